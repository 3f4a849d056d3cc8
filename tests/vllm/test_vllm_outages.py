"""A sidecar in every kind of trouble, and a saturated vLLM with the middleware: each request is served, in the order of arrival, the
cause is counted, and with the sidecar's return requests are scored again."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from corpus import KINDS
from generating import completion, finishing_order, one_by_one
from quantile_ranker import RankerProcess, prompt
from shared_servers import HOOKED, Fleet
from troubled_sidecars import TROUBLES
from vllm_server import STOP_S, until_scoring

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def sound_sidecar(fleet: Fleet) -> Iterator[RankerProcess]:
    sidecar = RankerProcess(fleet.ranker_address)
    yield sidecar
    sidecar.stop()


@pytest.fixture
def real_sidecar(fleet: Fleet, tiny_bundle: Path, tmp_path: Path) -> Iterator[None]:
    command = [sys.executable, "-m", "sidecar", "--bundle", str(tiny_bundle), "--address", fleet.ranker_address]
    with (tmp_path / "sidecar.log").open("wb") as log:
        sidecar = subprocess.Popen(command, cwd=REPOSITORY, stdout=log, stderr=subprocess.STDOUT)
    yield
    sidecar.terminate()
    assert sidecar.wait(timeout=STOP_S) == 0


@pytest.mark.parametrize("name", TROUBLES)
async def test_every_request_is_served_in_the_order_of_arrival(fleet: Fleet, name: str) -> None:
    """1. requests are scored 2. the sidecar gets into trouble 3. saturate 4. queue six requests, the longest first 5. let go: all are
    answered with 200, as they came, or, where the sidecar still answers, the shortest first 6. vLLM's own /metrics says why
    7. a sound sidecar takes the place: requests are scored again."""
    trouble = TROUBLES[name]
    server = fleet(HOOKED)
    requests = {str(number): completion(prompt(1 - number / 10), 5) for number in range(6)}
    with trouble.sidecar(fleet.ranker_address) as befall:
        before = await until_scoring(server)
        befall()
        order = await finishing_order(server, one_by_one(requests))
        counted = (await server.metrics()).outcomes_since(before)
    expected = list(requests)
    assert order == (expected[::-1] if trouble.outcomes == {"scored"} else expected)
    # The blocker is the seventh.
    assert sum(counted.values()) == 7
    assert set(counted) <= trouble.outcomes
    sound = RankerProcess(fleet.ranker_address)
    try:
        await until_scoring(server)
    finally:
        sound.stop()


async def test_a_frozen_sidecar_thaws(fleet: Fleet, sound_sidecar: RankerProcess) -> None:
    """1. freeze the sidecar 2. requests go unscored until the breaker opens 3. thaw it 4. requests are scored again."""
    server = fleet(HOOKED)
    before = await until_scoring(server)
    sound_sidecar.freeze()
    while not (await server.metrics()).outcomes_since(before).get("breaker_open"):
        assert (await server.post("/v1/completions", completion(prompt(0.5), 1).content)).status == 200
    sound_sidecar.thaw()
    await until_scoring(server)


async def test_the_real_sidecar_orders_a_real_vllm(fleet: Fleet, real_sidecar: None) -> None:
    """1. a ranker is trained and exported 2. `python -m sidecar` serves it where the server looks 3. saturate 4. queue prompts that
    ask for much, then prompts that ask for little 5. let go: little first 6. all were scored."""
    server = fleet(HOOKED)
    before = await until_scoring(server)
    by_length = sorted(KINDS, key=lambda kind: kind[1])
    little, much = by_length[0][0], by_length[-1][0]
    long = {f"much {topic}": completion(f"{much} {topic} and bread") for topic in ("rivers", "music", "maps")}
    short = {f"little {topic}": completion(f"{little} {topic} and bread") for topic in ("glass", "trains", "storms")}
    order = await finishing_order(server, [long, short])
    assert set(order[:3]) == set(short)
    assert (await server.metrics()).outcomes_since(before) == {"scored": 7}
