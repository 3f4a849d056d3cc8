"""PriorityMiddleware as its server starts: settings, right and wrong, with a lifespan and without one."""

import pytest
from asgi_rig import Exchange, LivingApp, RecordingApp, body_messages, http_scope
from middleware_rig import NEUTRAL, made

from vllm_client import HookSettings, PriorityMiddleware
from vllm_client.hook.settings import HookSettingsError


async def lifespan_answers(middleware):
    sent = []

    async def receive():
        return {"type": "lifespan.startup"}

    async def send(message):
        sent.append(message)

    await middleware({"type": "lifespan", "state": {}}, receive, send)
    return sent


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("PARS_HOOK_WINDOW_MS", "soon", "PARS_HOOK_WINDOW_MS is 'soon'"),
        ("PARS_HOOK_WINDOWMS", "1", "PARS_HOOK_WINDOWMS is not a setting"),
        ("PARS_HOOK_CLASSES_FILE", "/nowhere/classes.json", "/nowhere/classes.json"),
    ],
)
async def test_a_wrong_variable_stops_the_servers_start_and_says_why(monkeypatch, variable, value, words):
    monkeypatch.setenv(variable, value)
    app = LivingApp()
    ((answer),) = await lifespan_answers(PriorityMiddleware(app))
    assert answer["type"] == "lifespan.startup.failed"
    assert words in answer["message"]
    assert app.life == []


async def test_a_wrong_variable_on_a_host_without_lifespan_is_told_of_once_and_harms_nobody(monkeypatch, errors):
    monkeypatch.setenv("PARS_HOOK_WINDOW_MS", "soon")
    app = RecordingApp()
    middleware = PriorityMiddleware(app)
    for _ in range(2):
        scope = http_scope()
        await Exchange(body_messages(b'{"prompt": "a"}')).run(middleware, scope)
        assert app.scopes.pop() is scope
    (line,) = errors()
    assert "PARS_HOOK_WINDOW_MS is 'soon'" in line


async def test_settings_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("PARS_HOOK_POLICY", "equal")
    app = RecordingApp()
    middleware = PriorityMiddleware(app)
    await Exchange(body_messages(b'{"prompt": "a"}')).run(middleware, http_scope())
    assert app.priority == "0"
    await middleware._hook.close()


def test_wrong_settings_of_the_callers_own_are_raised(tmp_path):
    with pytest.raises(HookSettingsError, match=r"missing\.json"):
        PriorityMiddleware(RecordingApp(), HookSettings(classes_file=str(tmp_path / "missing.json")))


async def test_an_application_that_knows_no_lifespan_stays_as_it_is():
    class Unwilling(RecordingApp):
        async def __call__(self, scope, receive, send):
            assert scope["type"] == "http", "unsupported"
            await super().__call__(scope, receive, send)

    app, middleware = made(Unwilling())
    with pytest.raises(AssertionError, match="unsupported"):
        await lifespan_answers(middleware)
    await Exchange(body_messages(b'{"prompt": "a"}')).run(middleware, http_scope())
    assert app.priority == NEUTRAL


async def test_a_failed_start_of_the_application_is_passed_on():
    async def failing(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no model"})

    _, middleware = made(failing)
    assert await lifespan_answers(middleware) == [{"type": "lifespan.startup.failed", "message": "no model"}]
