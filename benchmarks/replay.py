"""What is replayed against a real engine: prompts with the response lengths that some model really gave, or made-up ones.

The file that `vllm bench serve --dataset-name custom` reads and the one that the oracle knows are the same.
"""

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.workload import made_up

MAX_PROMPT_CHARS, MAX_OUTPUT_TOKENS = 2_000, 1_000
"""Longer records are left out: in the tiny tokenizer a token is two characters or so, and prompt and response must fit into
MODEL_TOKENS together."""

MODEL_TOKENS = 2_048

MADE_UP_MEDIAN_TOKENS, MADE_UP_SIGMA = 100, 0.9
"""Of a lognormal distribution, not far from what chat models answer."""


class RecordsError(ValueError):
    """The records cannot be read or are too few. The message names the file."""


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt, and how many tokens its response has."""

    prompt: str
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Replay:
    """Requests in the order in which they are sent, all prompts different. source: for the report."""

    requests: tuple[Request, ...]
    source: str

    @property
    def sha256(self) -> str:
        """Of prompts and lengths, in order."""
        lines = (json.dumps([request.prompt, request.output_tokens]) for request in self.requests)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    @property
    def mean_output_tokens(self) -> float:
        return sum(request.output_tokens for request in self.requests) / len(self.requests)

    def write(self, path: Path) -> None:
        """As .jsonl with `prompt` and `output_tokens`."""
        lines = (json.dumps({"prompt": each.prompt, "output_tokens": each.output_tokens}) + "\n" for each in self.requests)
        path.write_text("".join(lines), encoding="utf-8")


def read_workload(path: Path) -> list[Request]:
    """What `Replay.write` wrote."""
    lines = path.read_text(encoding="utf-8").split("\n")
    return [Request(**json.loads(line)) for line in lines if line]


def from_records(path: Path, count: int, seed: int) -> Replay:
    """`count` records drawn from a .parquet or .jsonl with `prompt` and `response_tokens`. Raises RecordsError."""
    lengths: dict[str, int] = {}
    for prompt, tokens in _records(path):
        if prompt.strip() and len(prompt) <= MAX_PROMPT_CHARS and 1 <= tokens <= MAX_OUTPUT_TOKENS:
            lengths.setdefault(prompt, tokens)
    if len(lengths) < count:
        raise RecordsError(f"{path}: {len(lengths)} usable records, {count} are wanted")
    # Sorted, so that a seed means the same whatever order the file has.
    chosen = random.Random(seed).sample(sorted(lengths), count)
    return Replay(tuple(Request(prompt, lengths[prompt]) for prompt in chosen), f"{path.name}, seed {seed}")


def from_seed(count: int, seed: int) -> Replay:
    """Made-up prompts with made-up lengths that have nothing to do with them: only the oracle can know."""
    rng = random.Random(seed)
    prompts = dict.fromkeys(made_up(count, seed).prompts)
    assert len(prompts) == count, "bug: a made-up prompt came twice"
    requests = []
    for prompt in prompts:
        tokens = MADE_UP_MEDIAN_TOKENS * rng.lognormvariate(0, MADE_UP_SIGMA)
        requests.append(Request(prompt, round(min(max(tokens, 1), MAX_OUTPUT_TOKENS))))
    return Replay(tuple(requests), f"built-in generator, seed {seed}")


def _records(path: Path) -> Sequence[tuple[str, int]]:
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet as parquet  # slow to import, and not needed for the rest

            table = parquet.read_table(path, columns=["prompt", "response_tokens"])
            prompts, tokens = table["prompt"].to_pylist(), table["response_tokens"].to_pylist()
        else:
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
            prompts, tokens = [row["prompt"] for row in rows], [row["response_tokens"] for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecordsError(f"{path}: no records with prompt and response_tokens ({type(error).__name__}: {error})") from error
    return [(prompt, round(count)) for prompt, count in zip(prompts, tokens, strict=True) if count is not None]
