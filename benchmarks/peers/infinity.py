"""infinity-emb through its own command line: `python -m benchmarks.peers.infinity --checkpoint FOLDER --port PORT`.

infinity serves a classifier with one output as a re-ranker of pairs, at /rerank, and no other way. So it gets a copy of the checkpoint
whose tokenizer puts the two texts of a pair where the one text belongs: with an empty query, what the model sees is the prompt alone.
"""

import json
import os
import signal
import sys
import tempfile
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from benchmarks.peers import flags

QUIET = {"DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}


def write_pair_checkpoint(checkpoint: Path, folder: Path, max_tokens: int) -> None:
    """The copy. infinity cuts at the tokenizer's own length and cannot be told another."""
    for path in checkpoint.iterdir():
        if path.name not in ("tokenizer.json", "tokenizer_config.json"):
            (folder / path.name).symlink_to(path)
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    # What it puts around a text.
    around = tokenizer.encode("a", add_special_tokens=True)
    tokens = [token if special else "$" for token, special in zip(around.tokens, around.special_tokens_mask, strict=True)]
    single, pair = ([piece if token == "$" else f"{token}:0" for token in tokens] for piece in ("$A:0", "$A:0 $B:0"))
    special = {token: tokenizer.token_to_id(token) for token in tokens if token != "$"}
    tokenizer.post_processor = TemplateProcessing(" ".join(single), " ".join(pair), list(special.items()))
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = json.loads((checkpoint / "tokenizer_config.json").read_text(encoding="utf-8"))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"model_max_length": max_tokens}), encoding="utf-8")


def main() -> None:
    given = flags.parse()
    # The server stops in order on SIGTERM and then sends it to itself again, which must not leave the folder behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with tempfile.TemporaryDirectory(prefix="infinity-") as folder:
        write_pair_checkpoint(given.checkpoint, Path(folder), given.max_tokens)
        os.environ |= QUIET | {"INFINITY_HOME": folder}
        # Only now: it reads its environment when it is imported.
        from infinity_emb.cli import cli

        sys.argv = ["infinity_emb", "v2", "--model-id", folder, "--engine", "torch", "--device", "cpu", "--dtype", "float32"]
        sys.argv += ["--host", flags.HOST, "--port", str(given.port), "--log-level", "error"]
        cli()


if __name__ == "__main__":
    main()
