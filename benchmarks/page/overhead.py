"""The page's section about the cost of the sidecar, from overhead.json."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from benchmarks.bench_overhead.cases import PAUSE_S, SHAPES
from benchmarks.bench_overhead.ratios import REFERENCE
from benchmarks.markdown import paragraph, table
from benchmarks.page.targets import shown, target_rows

Figures = Mapping[str, Any]

_HEAD = ["", "prompts/s", "p50 ms", "p90 ms", "p99 ms", "client CPU", "server CPU", "RSS MiB"]
_FIGURES = ("prompts_per_s", "p50_ms", "p90_ms", "p99_ms", "caller_cpu_s_per_1000_prompts", "scorer_cpu_s_per_1000_prompts")

_SPLIT = {"tokenise": "server_tokenize_p50_ms", "queue": "server_queue_p50_ms", "infer": "server_infer_p50_ms"}


def overhead(document: Figures | None) -> list[str]:
    """The section; without a run it says so."""
    lines = ["## Overhead", ""]
    if document is None:
        return [*lines, "Not measured yet: `make bench-overhead`."]
    settings, machine = document["settings"], document["stamp"]["machine"]
    rows = {row["name"]: row for row in document["rows"]}
    lines += [
        *paragraph(
            f"One run of {settings['rounds']} rounds on {machine['cpu_model']}, {machine['allotted_cores']} cores, "
            f"{document['execution_provider']}. Every round measures every case, {settings['seconds']:g} s of it or, where no named ratio "
            "rests on it, a part of that; each contender is a process of its own, one at work at a time, its callers on the same cores. "
            f"{document['workload']['prompts']:,} prompts of {document['workload']['prompt_tokens']['mean']:.0f} tokens on average."
        ),
        "",
        *(f"- {note}" for note in document["notes"]),
        "",
        *table(["", "ratio", "lowest and highest round", "target", "met"], target_rows(document)),
        "",
        *_best_line(document),
        *_made_of(rows),
        "![Prompts per second with 64 callers](benchmarks/throughput.svg)",
    ]
    for part in (_limit, _ours, _time, _beside_peers, _open_loop, _ratios):
        lines += part(document, rows)
    return [*lines, "", *_stamp(document, "overhead.json")]


def _best_line(document: Figures) -> list[str]:
    best = document["best_bundle"]
    if best is None:
        return []
    if best["tau_loss"] is None:
        return [f"The best bundle is {best['precision']}; what it loses of tau-b was not measured.", ""]
    return [
        *paragraph(
            f"The best bundle is {best['precision']}. What it loses of tau-b is from [quality.json](../{best['source']}), on the set "
            f"where it loses most ({best['dataset']}), with its 95% interval; it is not measured again here."
        ),
        "",
    ]


def _made_of(rows: Mapping[str, Figures]) -> list[str]:
    """What stands between ours and the limit, for those who ask why it is not reached."""
    names = {
        "grpc": ("bare_grpc_stream", "p50_ms"),
        "cheap": ("ours_ngram_stream_1_item", "p50_ms"),
        "tokenise": ("ours_ngram_stream_1_item", "server_tokenize_p50_ms"),
        "score": ("ours_ngram_stream_1_item", "server_infer_p50_ms"),
        "alone": ("bare_tokenize_and_run", "p50_ms"),
        "paused": ("bare_tokenize_and_run_paused", "p50_ms"),
        "served": ("ours_1_caller", "p50_ms"),
        "caller_cpu": ("ours_64_callers", "caller_cpu_s_per_1000_prompts"),
        "server_cpu": ("ours_64_callers", "scorer_cpu_s_per_1000_prompts"),
        "bare_cpu": ("bare_batches_of_8", "scorer_cpu_s_per_1000_prompts"),
    }
    if any(figure not in rows.get(row, {}) for row, figure in names.values()):
        return []
    of = {name: shown(rows[row][figure][0]) for name, (row, figure) in names.items()}
    return [
        *paragraph(
            f"What the distance is made of, medians: of the n-gram tier's {of['cheap']} ms, gRPC on a stream with nothing behind it "
            f"takes {of['grpc']}, tokenising {of['tokenise']} and scoring {of['score']}. One caller waits {of['served']} ms. The bare "
            f"session tokenises and runs a prompt in {of['alone']} ms, and in {of['paused']} where it idles for {PAUSE_S * 1e3:g} ms "
            "before each, about as long as it does between two calls of one caller. With 64 callers a prompt costs the "
            f"server {of['server_cpu']} ms of CPU and its caller {of['caller_cpu']}, on the same cores; the bare session {of['bare_cpu']}."
        ),
        "",
    ]


def _limit(document: Figures, rows: Mapping[str, Figures]) -> list[str]:
    limit = document["limits"].get("all_sorted")
    lines = [
        *("", "### The limit", ""),
        *paragraph(
            "The sidecar's own ONNX session with nothing around it: one prompt after the other, then all threads and batches of every "
            "size, over all prompts sorted by length or over groups of 32. CPU in seconds per 1,000 prompts, here as below."
        ),
        "",
    ]
    lines += table(_HEAD, _cells(row for name, row in rows.items() if name.startswith("bare")))
    return [*lines, "", f"The fastest: {rows[limit]['what']}."] if limit else lines


def _ours(document: Figures, rows: Mapping[str, Figures]) -> list[str]:
    names = [name for name in rows if name.startswith(("ours", "unbatched")) and not name.startswith(("ours_tcp", "ours_open"))]
    if not names:
        return []
    lines = ["", "### The sidecar", "", *paragraph("One fp32 bundle, unless it says otherwise over a unix socket.")]
    return [*lines, "", *table(_HEAD, _cells(rows[name] for name in names))]


def _time(document: Figures, rows: Mapping[str, Figures]) -> list[str]:
    """A call of one prompt: the server's own split, messages, and what is left."""
    closed = {name: row for name, row in rows.items() if name.startswith("ours") and "_open_" not in name}
    served = [row for row in closed.values() if "outside_server_p50_ms" in row]
    if not served:
        return []
    messages = rows.get("bare_serialize", {}).get("p50_ms", [None])[0]
    lines = []
    for row in served:
        outside = row["outside_server_p50_ms"][0]
        left = "" if messages is None else shown(outside - messages)
        split = [_median(row, figure) for figure in _SPLIT.values()]
        cells = [*split, shown(outside), "" if messages is None else shown(messages), left]
        lines.append([row["what"], _median(row, "p50_ms"), *cells])
    head = ["p50 in ms", "whole", *_SPLIT, "outside", "of it messages", "of it loops, gRPC, kernel"]
    return [
        *("", "### Where the time goes", ""),
        *paragraph(
            "Calls of one prompt. Tokenise, queue and infer are the server's own; outside is what the caller waited beyond them, of which "
            "messages are request and reply, built, written and read once each without anything else. Medians, which need not add up."
        ),
        "",
        *table(head, lines),
    ]


def _beside_peers(document: Figures, rows: Mapping[str, Figures]) -> list[str]:
    contenders = {"ours_tcp": "the sidecar, fp32"}
    if document["best_bundle"]:
        contenders["best_tcp"] = f"the sidecar, {document['best_bundle']['precision']}"
    contenders |= {name: name for name in document["peers"]}
    lines = []
    for name, label in contenders.items():
        own = {shape.name: rows.get(f"{name}_{shape.case}", {}) for shape in SHAPES}
        if any(own.values()):
            lines.append([label, *_shapes(own)])
    if not lines:
        return []
    peers = [
        f"- {name}: {', '.join(f'{package} {version}' for package, version in peer['versions'].items())}; largest difference of a score "
        f"to the bare session's: {peer['largest_score_difference']:.1g}"
        for name, peer in document["peers"].items()
    ]
    head = ["", "1 caller: p50 ms", "p99 ms", "8 callers: prompts/s", "64 callers: prompts/s", "p50 ms", "p99 ms"]
    head += ["4 x 32 prompts: prompts/s", "64 callers: server CPU", "RSS MiB"]
    return [
        *("", "### Beside other servers", ""),
        *paragraph(
            "On the same weights, called alike: over TCP, from asyncio, the sidecar through its client and the others over HTTP. "
            "`reference` is built like the reference release: FastAPI around transformers, a forward for each request. All of them in "
            "fp32 unless it says otherwise, and their scores are compared before they are measured. RSS counts shared pages once for "
            "each process of a server."
        ),
        *("", *table(head, lines), "", *peers, *([""] if peers else [])),
        "![Latency by callers](benchmarks/latency.svg)",
    ]


def _shapes(own: Mapping[str, Figures]) -> list[str]:
    return [
        *(_median(own["1"], "p50_ms"), _median(own["1"], "p99_ms"), _median(own["8"], "prompts_per_s")),
        *(_median(own["64"], "prompts_per_s"), _median(own["64"], "p50_ms"), _median(own["64"], "p99_ms")),
        _median(own["batch32"], "prompts_per_s"),
        *(_median(own["64"], "scorer_cpu_s_per_1000_prompts"), _median(own["64"], "server_rss_mib")),
    ]


def _open_loop(document: Figures, rows: Mapping[str, Figures]) -> list[str]:
    names = [name for name in rows if "_open_" in name]
    if not names:
        return []
    return [
        *("", "### Open loop", ""),
        *paragraph(
            f"Independent callers: Poisson arrivals at fractions of {document['open_loop_limit_prompts_per_s']:,.0f} prompts/s, the limit "
            "as it was in the first round, whether earlier calls are answered or not. Latency counts from when a call was due. A server "
            "that cannot keep up falls behind for as long as the case lasts, so its times say little but that."
        ),
        *("", *table(_HEAD, _cells(rows[name] for name in names))),
    ]


def _ratios(document: Figures, rows: Mapping[str, Figures]) -> list[str]:
    lines = []
    others = tuple(f"_vs_{name}" for name in document["peers"] if name != REFERENCE)
    for name, value in document["ratios"].items():
        if name.endswith(others):
            continue  # there are a hundred of them, and the table above says the same
        span = document["ratio_ranges"][name]
        lines.append(
            [f"`{name}`", "failed", ""] if value is None else [f"`{name}`", shown(value), " to ".join(map(shown, span))]
        )
    intro = paragraph("Ours over the other side, each taken within a round. Those to the other servers are in the JSON.")
    return ["", "### Ratios", "", *intro, "", *table(["", "median", "lowest and highest round"], lines)]


def _cells(rows: Iterable[Figures]) -> list[list[str]]:
    lines = []
    for row in rows:
        failed = sum(row["failed_calls"].values())
        what = row["what"] + (f" ({failed:,} failed calls)" if failed else "")
        lines.append([what, *(_median(row, figure) for figure in (*_FIGURES, "server_rss_mib"))])
    return lines


def _median(row: Figures, figure: str) -> str:
    return shown(row[figure][0]) if figure in row else ""


def _stamp(document: Figures, name: str) -> list[str]:
    stamp = document["stamp"]
    return paragraph(
        f"[{name}](../benchmarks/results/{name}): commit {stamp['commit'][:12]}, {stamp['date'][:10]}, `{stamp['command']}`; "
        f"{', '.join(f'{package} {version}' for package, version in stamp['versions'].items())}."
    )
