"""What PriorityMiddleware makes of the engine behind it: one that orders by arrival, and its size."""

from types import SimpleNamespace

from asgi_rig import Exchange, body_messages, http_scope
from hook_rig import GROWN_MS, until
from middleware_rig import NOW_MS, made

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


async def test_who_finds_a_queue_has_a_longer_window(told_backlog, ranker):
    app, middleware = made(address=ranker.address, gate_in_flight=0, deadline_ms=20_000)
    exchange = Exchange(body_messages(b'{"prompt": "0123456789"}'))
    scope = http_scope(app=vllm_app_state("priority", max_num_seqs=256))
    await exchange.run(middleware, scope)  # which connects
    await until(lambda: middleware._hook.connected)
    app.scopes.clear()
    await Exchange(body_messages(b'{"prompt": "0123456789"}')).run(middleware, scope)
    assert app.priority == str(NOW_MS + GROWN_MS)
    assert (told_backlog.rooms, told_backlog.arrivals) == ([256], [(0, 1), (0, 1)])
    await middleware._hook.close()
