"""Writes the figures that README and docs quote, from benchmarks/results, between their markers, and docs/benchmarks.md, which has
nothing else: `python -m benchmarks.quoted`.

So no figure is typed by hand, and tests/test_repository.py fails when a document and the measurement differ.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping

from benchmarks.page.write import write
from benchmarks.quoted.operations import promised
from benchmarks.quoted.overhead import cost
from benchmarks.quoted.simulator import simulated
from benchmarks.quoted.vllm import Figures, attached, gain
from benchmarks.stamp import REPOSITORY

RESULTS = REPOSITORY / "benchmarks" / "results"


_OWN = {"alpaca_davinci003": "alpaca-davinci003", "alpaca_vicuna7b": "alpaca-vicuna7b"}
"""Data set → the ranker that was trained on it."""

_SETS = {
    "all": "its own ten sources",
    "alpaca_davinci003": "alpaca_davinci003, never learned",
    "alpaca_vicuna7b": "alpaca_vicuna7b, never learned",
}


def reaches(results: Figures) -> str:
    """README's section: what a server gains, order on held-out prompts, cost of a call, exactness."""
    # Parts of it are missing until they are measured, and after they failed.
    chain = results.get("chain", {})
    return "\n".join(
        [
            *(*gain(results, "docs/vllm.md"), ""),
            *(*_order(chain), ""),
            *(*cost(results), ""),
            *_exactness(chain),
            f"{_times(chain)}Every figure has its JSON with machine, versions, commit and command in",
            "[benchmarks/results](benchmarks/results); `make bench-chain` measures exactness again, and reads order from the rankers'",
            "cards, where training wrote it.",
        ]
    )


def _order(chain: Figures) -> list[str]:
    if "tau" not in chain:
        return ["Order on held-out prompts is not measured yet: `make bench-chain`."]
    taus = {(row["ranker"], row["scorer"], row["data_set"]): row for row in chain["tau"]}
    shipped = chain["tau"][0]["ranker"]
    lines = [
        "Order, as Kendall tau-b over all pairs of held-out prompts (1 perfect, 0 none), of the shipped ranker, its cheap n-gram tier, the",
        "length of the prompt, and for comparison of rankers trained on that very set:",
        "",
        "| held-out prompts of | prompts | encoder | n-gram | prompt length | encoder trained on it |",
        "|---|---|---|---|---|---|",
    ]
    for name, label in _SETS.items():
        row = taus[shipped, "encoder", name]
        trained_on_it = taus.get((_OWN.get(name), "encoder", name))  # its card is not in the repository
        trained = f"{trained_on_it['tau_b']:.3f}" if trained_on_it else ""
        cells = [f"{taus[shipped, scorer, name]['tau_b']:.3f}" for scorer in ("encoder", "n-gram", "prompt length")]
        lines.append(f"| {label} | {row['prompts']:,} | {' | '.join(cells)} | {trained} |")
    return lines


def _exactness(chain: Figures) -> list[str]:
    if "parity" not in chain:
        return ["How far the exported graph is from PyTorch is not measured yet: `make bench-chain`."]
    [fp32] = [row for row in chain["parity"] if row["precision"] == "fp32"]
    difference, prompts = fp32["max_score_difference"], fp32["probe_prompts"]
    return [f"The exported fp32 graph differs from PyTorch by at most {difference:.1g} on {prompts} probe prompts."]


def _times(chain: Figures) -> str:
    # Measured in a fresh clone, whose tests read this very document: the first time round there is no figure yet.
    return f"In a fresh clone `make demo` took {chain['demo_seconds']:.0f} s. " if "demo_seconds" in chain else ""


def precisions(results: Figures) -> str:
    """docs/bundles.md: what each precision weighs and loses."""
    rows = results.get("chain", {}).get("parity")
    if rows is None:
        return "Not measured yet: `make bench-chain`."
    lines = [
        "| precision | bundle | largest difference to PyTorch | tau-b to PyTorch | alone against in a batch | scores depend on the batch |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['precision']} | {row['bundle_bytes'] / 1e6:.1f} MB | {row['max_score_difference']:.2g} | {row['kendall_tau_b']:.4f} | "
            f"{row['max_batch_difference']:.2g} | {'yes' if row['scores_depend_on_batch'] else 'no'} |"
        )
    count = rows[0]["probe_prompts"]
    lines += ["", f"The shipped ranker on {count} probe prompts, on a CPU ([chain.json](../benchmarks/results/chain.json))."]
    return "\n".join(lines)


DOCUMENTS: Mapping[str, Callable[[Figures], str]] = {
    "README.md": reaches,
    "docs/bundles.md": precisions,
    "docs/vllm.md": attached,
    "docs/operations.md": promised,
    "docs/simulator.md": simulated,
}


def read_results() -> Figures:
    """Every committed result by the name of its file."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))}


def with_figures(document: str, block: str) -> str:
    """The document with the block between its two markers. Raises ValueError when it does not have exactly one pair."""
    filled, count = re.subn(
        r"(<!-- measured -->\n).*?(<!-- end -->)", lambda match: f"{match[1]}{block}\n{match[2]}", document, flags=re.DOTALL
    )
    if count != 1:
        raise ValueError(f"expected one pair of markers, found {count}")
    return filled


def main() -> int:
    results = read_results()
    for name, render in DOCUMENTS.items():
        path = REPOSITORY / name
        path.write_text(with_figures(path.read_text(encoding="utf-8"), render(results)), encoding="utf-8")
    write(results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
