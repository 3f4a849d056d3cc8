"""How should a chat become ranker text? `python -m benchmarks.quality.chat --data DIR --checkpoint DIR --out FILE`.

A ranker that was trained on lone prompts scores the same prompts as the last message of made-up chats, in several ways of making one
text of a chat, beside the prompt alone. The rule that came of it stands in proto/pars/text.py.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.quality.chat_config import check_expectations, read_config
from benchmarks.quality.chat_figures import ChatRow
from benchmarks.quality.chat_measure import measure
from benchmarks.report import aligned, write_json
from benchmarks.stamp import make_stamp
from trainer.checkpoint import read_checkpoint
from trainer.errors import TrainerError

MODULE = "benchmarks.quality.chat"
CONFIG = Path(__file__).with_suffix(".toml")

NOTES = (
    "Chats are put around real prompts with real response lengths: system prompt, tools, earlier turns and replies say nothing about the "
    "response. The figures show what a way costs, not what context is worth where it does say something.",
    "The ranker was trained on lone prompts; none of these, nor a near-duplicate, was among those that it learned from or was chosen by.",
    "change: of tau against the first row of the same question and set, on the same prompts. unread: share of the texts in which the "
    "prompt begins where the ranker has stopped reading.",
    "A follow-up has no measured response: it counts as wanting one as long as that of the prompt before it.",
)


def main(arguments: Sequence[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description="How should a chat become ranker text?")
    parser.add_argument("--data", type=Path, required=True, help="folder of the recipe's files")
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="JSON")
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--threads", type=int, default=1)
    flags = parser.parse_args(arguments)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    stamp = make_stamp(MODULE, arguments)
    torch.set_num_threads(flags.threads)
    try:
        config = read_config(flags.config)
        rows = measure(config, read_checkpoint(flags.checkpoint).ranker, flags.data)
        write_json(flags.out, {"stamp": stamp, "notes": NOTES, "chat": [row.as_dict() for row in rows]})
        print("\n".join(table(rows)))
        check_expectations(config, rows)
    except TrainerError as error:
        print(f"{MODULE}: {error}", file=sys.stderr)
        return 1
    return 0


def table(rows: Sequence[ChatRow]) -> list[str]:
    """Lines for people, a row each."""
    header = ("", "set", "prompts", "tau-b", "interval", "change", "interval", "pairs", "filtered", "unread")
    return aligned(
        header,
        [
            (
                f"{row.question}: {row.way}",
                row.dataset,
                f"{row.prompts:,}",
                f"{row.tau:.3f}",
                f"{row.tau_low:.3f} to {row.tau_high:.3f}",
                f"{row.change:+.3f}",
                f"{row.change_low:+.3f} to {row.change_high:+.3f}",
                f"{row.pair_accuracy:.3f}",
                f"{row.filtered_pair_accuracy:.3f}",
                f"{row.unread:.0%}",
            )
            for row in rows
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
