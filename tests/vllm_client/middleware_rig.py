"""PriorityMiddleware between a server and an application that are played by hand, with the real hook inside."""

import functools
import json

from asgi_rig import Exchange, RecordingApp, body_messages, http_scope

from vllm_client import HookSettings, PriorityHook, PriorityMiddleware

NOW_MS = 1_000_000
NEUTRAL = str(NOW_MS + 20_000)
"""Half a window after now: what the default policy gives a request that nobody scored."""

LARGE = 2_000
"""More than max_body_bytes, where a test sets that to 1,024."""

StillHook = functools.partial(PriorityHook, wall_ms=lambda: NOW_MS)
"""The real hook at a standing clock. Alone on its host it is gated, so it never asks."""


def made(app=None, make_hook=StillHook, **more):
    app = app or RecordingApp()
    return app, PriorityMiddleware(app, HookSettings(**more), make_hook=make_hook)


async def served(fields, *, path="/v1/completions", headers=(), scope=None, app=None, **more):
    """Send one request through a middleware of its own and return the application, which recorded it."""
    app, middleware = made(app, **more)
    body = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    scope = scope or http_scope(path, (("content-type", "application/json"), *headers))
    await Exchange(body_messages(body)).run(middleware, scope)
    app.counts = {str(outcome): count for outcome, count in middleware._hook.counters.counts.items() if count}
    return app
