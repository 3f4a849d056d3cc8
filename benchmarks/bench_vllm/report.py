"""The document of a benchmark on a real vLLM, made of the runs that there are."""

import collections
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from benchmarks.bench_vllm.arms import ARMS, BASELINE
from benchmarks.bench_vllm.bench_serve import Load, bench_flags
from benchmarks.bench_vllm.figures import FIGURES, STEP_P50_WITHIN, STEP_P99_ABOVE, later_than
from benchmarks.bench_vllm.gathering import ERROR, MAX_TRIES, Gathering
from benchmarks.bench_vllm.kept_runs import KEY, key_of
from benchmarks.bench_vllm.plan import BURST, LASTING, Planned
from benchmarks.bench_vllm.process import ENVIRONMENT, serve_flags
from benchmarks.bench_vllm.requests import KEPT
from benchmarks.bench_vllm.rows import CleanRuns, Whys, ratios_of, rows_of
from benchmarks.bench_vllm.site import Bench, Site

NOTES = (
    "A tiny Llama with random weights, on a CPU: the scheduling is vLLM's own, the speed says nothing. Responses have the recorded "
    "lengths, whatever their text.",
    "Every step of the worker is padded to step_ms, and readers of shared memory sleep instead of spinning (pacing), since the "
    "engine, the sidecar and the client fight for the cores of a small machine otherwise.",
    "A run is clean when no request failed, and of the responses' mean steps the median is within "
    f"{STEP_P50_WITHIN:.0%} of step_ms and the 99th percentile at most {STEP_P99_ABOVE:.0%} above; that was stated before any was made. A "
    f"run that is not is made again by the next call, {MAX_TRIES} tries in all. Tries that are not clean are in no figure, and all are in "
    "`runs` and counted in the rows, with what was wrong.",
    "vLLM's CPU platform turns asynchronous scheduling off again, whatever the flag says.",
    "The hook's deadline is deadline_ms and not its default of 10, because the encoder shares its cores with vLLM, vLLM's API server "
    "and the client.",
    f"Loads are arrivals as a share of what the engine can do (capacity); {BURST}: all requests at once. Loads with as many "
    "requests have the same ones in a repetition, at times that the rate stretches; another repetition has other requests.",
    "Above load 1 there is no steady state: the queue grows as long as requests come, and what order brings is that of so many "
    f"requests. {LASTING} is 1.2 with more of them.",
    "e2e is from sending to the last token; per_token is that divided by the response's tokens; worst_slowdown is the largest e2e over "
    "the time alone, which is (tokens + 1) steps; waiting and running are vLLM's own gauges, looked at each second; hook_ask_share is the "
    "time that the hook held requests for their scores over all e2e; scored_share: requests that got a score; tau_b: of what the ranker "
    "said and the lengths; later: by how much later than with first come, first served the same request got its first token, 99th "
    "percentile and most, of runs whose single requests were there beside the others'. A figure is "
    "[median, lowest, highest] over the repetitions, one engine start each. Ratios are taken within a repetition, then the median; "
    "ratio_ranges are the lowest and highest repetition.",
    "Runs may be of several machines (machines; runs says which): steps are padded to the same time on all, and a repetition has the same "
    "requests at the same times on all.",
    "The policy `cost` is not among the arms: it takes a request's max_tokens as a bound of its response, and here, where lengths are "
    "replayed, max_tokens is the recorded length. It would be an oracle.",
    "low_load: unpadded engines side by side, one request at a time to one of them, in an order drawn anew each round; what is added "
    "is the difference to the engine without the middleware within a round.",
)


def runs_part(bench: Bench, gathering: Gathering) -> dict[str, Any]:
    """Rows, ratios and runs. Raises RecordsError."""
    tries = _tries(bench, gathering)
    whys = {run: [gathering.why_not_clean(each) for each in its_tries] for run, its_tries in tries.items()}
    counted = {run: tries[run][whys_of_run.index(None)] for run, whys_of_run in whys.items() if None in whys_of_run}
    clean = {
        run: {**gathering.figures(one_try), **later_than(one_try, counted.get(run._replace(arm=BASELINE)))}
        for run, one_try in counted.items()
    }
    loads = {(run.load, run.repetition): gathering.load(run.load, run.repetition) for run in tries}
    return {
        "repetitions": bench.starts,
        "settings": bench.settings,
        "vllm_serve": shlex.join(serve_flags(bench.settings.max_num_seqs, has_hook=True)),
        "environment": ENVIRONMENT,
        "capacity": gathering.capacity(),
        "arms": {arm.name: {"what": arm.what, "ranker": arm.ranker, "hook": arm.hook} for arm in ARMS},
        "workloads": {f"{load}-{repetition}": _workload_json(its_load) for (load, repetition), its_load in loads.items()},
        **_origins(each for its_tries in tries.values() for each in its_tries),
        "rows": rows_of(clean, whys, bench.starts),
        **ratios_of(clean),
        "runs": list(_runs_json(gathering, tries, whys, clean)),
    }


def about(site: Site) -> dict[str, Any]:
    """What the report is about as a whole. scoring: see `site.what_scores`."""
    bundle = {"model_name": site.model_name, "bundle_id": site.bundle_id, "scoring": site.scoring}
    return {"stamp": site.stamp, "vllm": site.versions, **bundle}


def _tries(bench: Bench, gathering: Gathering) -> dict[Planned, list[dict[str, Any]]]:
    planned = [run for repetition in range(1, bench.starts + 1) for run in gathering.planned(repetition)]
    found = {run: gathering.tries(run) for run in planned}
    return {run: tries for run, tries in found.items() if tries}


def _runs_json(
    gathering: Gathering, tries: Mapping[Planned, Sequence[Mapping[str, Any]]], whys: Whys, clean: CleanRuns
) -> Iterator[dict[str, Any]]:
    """All tries of all runs, but for their single requests."""
    for run, its_tries in tries.items():
        key = key_of(gathering.depends_on(run))
        for number, (one_try, why) in enumerate(zip(its_tries, whys[run], strict=True), start=1):
            told = {name: value for name, value in one_try.items() if name not in (KEPT, "queue")}
            figures = {} if ERROR in one_try else {FIGURES: clean[run] if why is None else gathering.figures(one_try)}
            yield {**told, KEY: key, "try": number, "not_clean": why, **figures}


def _origins(tries: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Of which commits and machines the runs are: gathered over days, they may be of several."""
    tries = list(tries)
    machines = collections.Counter(
        f"{each['machine']['cpu_model']}, {each['machine']['allotted_cores']} cores" for each in tries
    )
    return {"commits": dict(collections.Counter(each["commit"] for each in tries)), "machines": dict(machines)}


def _workload_json(load: Load) -> dict[str, Any]:
    tokens = sorted(request.output_tokens for request in load.replay.requests)
    return {
        "source": load.replay.source,
        "sha256": load.replay.sha256,
        "requests": len(tokens),
        "requests_per_s": None if load.request_rate == float("inf") else load.request_rate,
        "vllm_bench_serve": shlex.join(bench_flags(load)),
        "output_tokens": {
            "mean": load.replay.mean_output_tokens,
            "p50": tokens[len(tokens) // 2],
            "p90": tokens[len(tokens) * 9 // 10],
            "max": tokens[-1],
        },
    }
