"""A server and an application to put a middleware between, played by hand: no sockets, every message under the test's control."""

import asyncio
import contextlib
import itertools
import json

TIMEOUT_S = 20

DISCONNECT = {"type": "http.disconnect"}


def http_scope(path="/v1/completions", headers=(("content-type", "application/json"),), method="POST", **more):
    raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    return {"type": "http", "asgi": {"version": "3.0"}, "method": method, "path": path, "headers": raw, "state": {}, **more}


def body_messages(*pieces):
    """The messages of a complete body in these pieces."""
    last = len(pieces) - 1
    return [{"type": "http.request", "body": piece, "more_body": index < last} for index, piece in enumerate(pieces)]


def cut(body, places):
    """`body` in pieces, cut at these offsets; an offset that comes twice makes an empty piece."""
    edges = [0, *sorted(min(place, len(body)) for place in places), len(body)]
    return [body[start:end] for start, end in itertools.pairwise(edges)]


class Exchange:
    """One request: the server's messages in, the response out. After the messages the client hangs up, and stays away."""

    def __init__(self, messages):
        self.messages = [*messages]
        self.sent = []
        self.taken = 0

    async def receive(self):
        self.taken += 1
        return self.messages.pop(0) if self.messages else DISCONNECT

    async def send(self, message):
        self.sent.append(message)

    async def run(self, app, scope):
        async with asyncio.timeout(TIMEOUT_S):
            await app(scope, self.receive, self.send)
        return self


class RecordingApp:
    """Takes every message up to the disconnect, then answers in three messages, or raises `error`."""

    def __init__(self, error=None):
        self.error = error
        self.scopes = []
        self.sends = []
        self.messages = []

    async def __call__(self, scope, receive, send):
        self.scopes.append(scope)
        self.sends.append(send)
        while True:
            self.messages.append(await receive())
            if self.messages[-1]["type"] == "http.disconnect":
                break
        if self.error is not None:
            raise self.error
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-own", b"1")]})
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    @property
    def headers(self):
        """Of the only request."""
        (scope,) = self.scopes
        return scope["headers"]

    @property
    def priority(self):
        """What the only request's header says, as text; None: no header."""
        values = [value.decode() for name, value in self.headers if name == b"x-vllm-priority"]
        assert len(values) <= 1
        return values[0] if values else None

    @property
    def body(self):
        return b"".join(message["body"] for message in self.messages if message["type"] == "http.request")

    @property
    def fields(self):
        return json.loads(self.body)


class LivingApp(RecordingApp):
    """Has a lifespan too, and writes down what it sees of it."""

    def __init__(self):
        super().__init__()
        self.life = []

    async def __call__(self, scope, receive, send):
        if scope["type"] != "lifespan":
            await super().__call__(scope, receive, send)
            return
        for state in ("startup", "shutdown"):
            message = await receive()
            self.life.append(message["type"])
            assert message == {"type": f"lifespan.{state}"}
            await send({"type": f"lifespan.{state}.complete"})


@contextlib.asynccontextmanager
async def live(middleware):
    """Run the lifespan around a block, as a server does."""
    inbox, outbox = asyncio.Queue(), asyncio.Queue()
    task = asyncio.create_task(middleware({"type": "lifespan", "state": {}}, inbox.get, outbox.put))
    async with asyncio.timeout(TIMEOUT_S):
        await inbox.put({"type": "lifespan.startup"})
        assert await outbox.get() == {"type": "lifespan.startup.complete"}
        yield
        await inbox.put({"type": "lifespan.shutdown"})
        assert await outbox.get() == {"type": "lifespan.shutdown.complete"}
        await task
