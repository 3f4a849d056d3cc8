"""What every peer is started with: `python -m benchmarks.peers.NAME --checkpoint FOLDER --port PORT`."""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Flags:
    """checkpoint: the trainer's folder, in Hugging Face layout, with ranker.json. max_tokens: where a prompt is cut."""

    checkpoint: Path
    port: int
    max_tokens: int


def parse() -> Flags:
    """From the command line of this process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    given = parser.parse_args()
    card = json.loads((given.checkpoint / "ranker.json").read_text(encoding="utf-8"))
    return Flags(given.checkpoint.resolve(), given.port, card["max_tokens"])
