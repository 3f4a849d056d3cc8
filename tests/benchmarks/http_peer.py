"""A peer of the tests' own: the reference peer's two routes, answering as a test wants."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[list[str]], tuple[int, Any]]
"""From prompts to an HTTP status and a JSON body."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A caller has left before its answer, as some tests want it to."""


class TinyServer:
    """What it was asked, by connection: the prompts of one call after the other."""

    def __init__(self, answer: Answer) -> None:
        self.connections: list[list[list[str]]] = []
        lock = threading.Lock()
        connections = self.connections

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"  # keeps connections open
            disable_nagle_algorithm = True

            def setup(self) -> None:
                super().setup()
                self.calls: list[list[str]] = []
                with lock:
                    connections.append(self.calls)

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                prompts = [body["prompt"]] if self.path == "/score" else body["prompts"]
                self.calls.append(prompts)
                status, document = answer(prompts)
                if self.path == "/score" and isinstance(document, dict) and document.get("scores"):
                    document = {"score": document["scores"][0]}
                content = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @contextlib.contextmanager
    def running(self) -> Iterator["TinyServer"]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()


def score_of(prompt: str) -> float:
    """One that no other prompt of a test has."""
    return float(len(prompt))


def scored(prompts: list[str]) -> tuple[int, Any]:
    return 200, {"scores": [score_of(prompt) for prompt in prompts]}
