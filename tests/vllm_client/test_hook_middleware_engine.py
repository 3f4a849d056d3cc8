"""What PriorityMiddleware makes of the engine behind it: one that orders by arrival, and its size."""

from types import SimpleNamespace

from asgi_rig import Exchange, body_messages, http_scope
from middleware_rig import made

from vllm_client import PriorityHook
from vllm_client.hook.decision import Outcome


def vllm_app_state(policy, max_num_seqs=16):
    config = SimpleNamespace(
        scheduler_config=SimpleNamespace(policy=policy, max_num_seqs=max_num_seqs),
        parallel_config=SimpleNamespace(_api_process_count=1),
    )
    return SimpleNamespace(state=SimpleNamespace(vllm_config=config))


async def test_an_engine_that_runs_fcfs_is_told_of_once_and_its_requests_are_untouched(errors):
    app, middleware = made()
    for _ in range(3):
        scope = http_scope(app=vllm_app_state("fcfs"))
        await Exchange(body_messages(b'{"prompt": "a"}')).run(middleware, scope)
        assert app.scopes.pop() is scope
    (line,) = [line for line in errors() if "--scheduling-policy priority" in line]
    assert "DOES NOTHING" in line
    assert middleware._hook.counters.counts[Outcome.FCFS_ENGINE] == 3


async def test_nobody_connects_for_an_engine_that_runs_fcfs():
    starts = []

    class Watched(PriorityHook):
        def start(self):
            starts.append(self)

    for policy, more, started in (("fcfs", {}, 0), ("fcfs", {"shadow": True}, 1), ("priority", {}, 1)):
        _, middleware = made(make_hook=Watched, **more)
        for _ in range(2):
            await Exchange(body_messages(b'{"prompt": "a"}')).run(middleware, http_scope(app=vllm_app_state(policy)))
        assert len(starts) == started
        starts.clear()


async def test_shadow_mode_goes_on_under_fcfs(errors):
    app, middleware = made(shadow=True)
    await Exchange(body_messages(b'{"prompt": "a"}')).run(middleware, http_scope(app=vllm_app_state("fcfs")))
    assert app.priority is None
    assert middleware._hook.counters.counts[Outcome.GATED] == 1
    assert any("Shadow mode" in line for line in errors())


async def test_the_gate_follows_the_engine():
    _, middleware = made()
    await Exchange(body_messages(b'{"prompt": "a"}')).run(
        middleware, http_scope(app=vllm_app_state("priority", max_num_seqs=256))
    )
    assert middleware._hook.gate_in_flight == 64
