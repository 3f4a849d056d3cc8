"""Added end-to-end latency at low load: engines with and without the hook side by side, one request at a time, in turn.

The engines run at their own pace here: steps of 20 ms would hide a millisecond. Their readers sleep all the same, since several
spinning engines on two cores would measure each other.
"""

import contextlib
import http.client
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from benchmarks.bench_vllm.gathering import WENT_WRONG
from benchmarks.bench_vllm.kept_runs import KEY, LOW_LOAD, Tries, key_of
from benchmarks.bench_vllm.metrics import by_label
from benchmarks.bench_vllm.process import ANSWER_S, CHAT_PATH, VllmInstallation, VllmServer, chat_body
from benchmarks.bench_vllm.rankers import oracle
from benchmarks.bench_vllm.site import Bench, Site
from benchmarks.bench_vllm.sources import content_hash
from benchmarks.measurement import percentile, spread_of
from benchmarks.process import ProcessError
from benchmarks.replay import Replay
from benchmarks.report import aligned
from benchmarks.served import ServedSidecar

OUTPUT_TOKENS = 16

WARM_UP_ROUNDS = 10

WITHOUT = "without"


@dataclass(frozen=True, slots=True)
class Variant:
    """One engine. hook: None for no middleware at all."""

    name: str
    what: str
    hook: Mapping[str, str] | None
    ranker: Literal["instant", "sidecar"] = "instant"


# The sidecar shares two cores with four engines; 10 ms would be missed now and then, and an unscored request is no measurement.
_ASK = {"gate_in_flight": "0", "deadline_ms": "100"}

VARIANTS = (
    Variant(WITHOUT, "no middleware", None),
    Variant("gated", "the hook with its defaults: a lone request is not asked about", {}),
    Variant("asked", "always asked about, by a ranker that answers at once", _ASK),
    Variant("encoder", "always asked about, by the sidecar with the shipped ranker", _ASK, "sidecar"),
)


@dataclass(slots=True)
class Probe:
    """One engine under measurement, on a connection of its own that stays open."""

    server: VllmServer
    connection: http.client.HTTPConnection
    times_ms: list[float] = field(default_factory=list)

    def request(self, prompt: str) -> float:
        """Milliseconds from sending to the last byte. Raises ProcessError unless it is answered with 200."""
        began_s = time.perf_counter()
        self.connection.request("POST", CHAT_PATH, chat_body(prompt, OUTPUT_TOKENS), {"content-type": "application/json"})
        response = self.connection.getresponse()
        response.read()
        if response.status != 200:
            raise ProcessError(f"vLLM answered {response.status} at low load")
        return 1000 * (time.perf_counter() - began_s)


def gather_low_load(bench: Bench, site: Site, number: int) -> None:
    """Measure one start and keep it, unless it is there. Of one that fails nothing is kept, and the next call tries again."""
    if _tries(bench, site, number):
        return
    print(f"low load, start {number} of {bench.latency_starts}", file=sys.stderr, flush=True)
    try:
        figures = measure_start(site.unpaced, bench.bundle, bench.common_replay(), bench.rounds, bench.settings.max_num_seqs)
    except WENT_WRONG as error:
        print(f"low load: {error}", file=sys.stderr, flush=True)
        return
    site.kept.add(f"{LOW_LOAD}-{number}", depends_on(bench, site, number), {**site.origin(), **figures})


def low_load_part(bench: Bench, site: Site) -> dict[str, Any] | None:
    """The report's part about added latency, of the starts that there are; None: none. Raises RecordsError."""
    starts = [
        {**tries[-1], KEY: key_of(depends_on(bench, site, number))}
        for number in range(1, bench.latency_starts + 1)
        if (tries := _tries(bench, site, number))
    ]
    if not starts:
        return None
    return {
        "output_tokens": OUTPUT_TOKENS,
        "variants": {variant.name: {"what": variant.what, "hook": variant.hook} for variant in VARIANTS},
        "planned_starts": bench.latency_starts,
        "summary": latency_summary(starts),
        "starts": starts,
    }


def _tries(bench: Bench, site: Site, number: int) -> Tries:
    return site.kept.tries(f"{LOW_LOAD}-{number}", depends_on(bench, site, number))


def depends_on(bench: Bench, site: Site, number: int) -> dict[str, Any]:
    """What makes it another measurement when it changes."""
    return {
        **site.common,
        **site.asking,
        "low_load": content_hash([Path(__file__)]),
        "start": number,
        "rounds": bench.rounds,
        "max_num_seqs": bench.settings.max_num_seqs,
        "replay": bench.common_replay().sha256,
    }


def measure_start(vllm: VllmInstallation, bundle: Path, replay: Replay, rounds: int, max_num_seqs: int) -> dict[str, Any]:
    """Figures of one start of all engines. Each round sends one prompt to each of them, in an order drawn anew: whoever always came
    after the same one would pay for what that one leaves behind."""
    with _probes(vllm, bundle, max_num_seqs) as probes:
        load_average = os.getloadavg()[0]
        order, rng = list(probes.values()), random.Random(0)
        for number in range(WARM_UP_ROUNDS + rounds):
            prompt = replay.requests[number % len(replay.requests)].prompt
            rng.shuffle(order)
            for probe in order:
                took_ms = probe.request(prompt)
                if number >= WARM_UP_ROUNDS:
                    probe.times_ms.append(took_ms)
        outcomes = {
            name: by_label(probe.server.metrics(), "pars_hook_requests_total", "outcome") for name, probe in probes.items()
        }
        times_ms = {name: probe.times_ms for name, probe in probes.items()}
    return {"load_average_1_min_before": load_average, **start_figures(times_ms), "hook_outcomes": _without_zeros(outcomes)}


def start_figures(times_ms: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Times of each variant, and what it added to those of WITHOUT: the differences within rounds, lists of equal length."""
    added_ms = {
        name: [own - bare for own, bare in zip(times, times_ms[WITHOUT], strict=True)]
        for name, times in times_ms.items()
        if name != WITHOUT
    }
    return {
        "rounds": len(times_ms[WITHOUT]),
        "e2e_ms": {name: _percentiles(times, (50, 90, 99)) for name, times in times_ms.items()},
        "added_ms": {name: _percentiles(differences, (25, 50, 75)) for name, differences in added_ms.items()},
    }


def latency_summary(starts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Over the engine starts, as [median, lowest, highest]: the median time of each variant, and the median of what it added."""
    return {
        name: {variant: spread_of([start[name][variant]["p50"] for start in starts]) for variant in starts[0][name]}
        for name in ("e2e_ms", "added_ms")
    }


def latency_table(summary: Mapping[str, Any]) -> list[str]:
    """Lines: one variant each."""
    lines = []
    for variant, e2e_ms in summary["e2e_ms"].items():
        added_ms = summary["added_ms"].get(variant)
        shown = ("", "", "") if added_ms is None else tuple(f"{value:.2f}" for value in added_ms)
        lines.append((variant, f"{e2e_ms[0]:.2f}", *shown))
    return aligned(("one request at a time", "e2e p50 ms", "added ms", "lowest", "highest"), lines)


@contextlib.contextmanager
def _probes(vllm: VllmInstallation, bundle: Path, max_num_seqs: int) -> Iterator[dict[str, Probe]]:
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="pars-bench-"))
        addresses = {kind: f"unix:{folder}/{kind}.sock" for kind in ("instant", "sidecar")}
        stack.enter_context(oracle(addresses["instant"], "--quantile", "0.5"))
        sidecar = ServedSidecar(bundle, addresses["sidecar"], "cpu", ())
        stack.callback(sidecar.process.close)
        probes = {}
        for variant in VARIANTS:
            hook = None if variant.hook is None else {"address": addresses[variant.ranker], **variant.hook}
            server = stack.enter_context(VllmServer(vllm, max_num_seqs=max_num_seqs, hook=hook))
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=ANSWER_S)
            stack.callback(connection.close)
            probes[variant.name] = Probe(server, connection)
        yield probes


def _percentiles(values: Sequence[float], percents: Sequence[int]) -> dict[str, float | None]:
    return {f"p{percent}": percentile(values, percent) for percent in percents}


def _without_zeros(outcomes: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, int]]:
    return {name: {outcome: int(count) for outcome, count in each.items() if count} for name, each in outcomes.items()}
