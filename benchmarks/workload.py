"""The prompts that are scored: from a seed, or from a file; always in an order that makes any stretch a fair sample."""

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vllm_client.prompt_files import read_prompts

STRETCH_PROMPTS = 32
"""Prompts in which the whole mix of lengths comes round once. Also the size of the large batches that are sent."""

LONG_EVERY = 128
"""One long prompt in so many: fewer than one in a hundred, so that the 99th percentile is not theirs alone."""

# Everyday words, nearly all of them one token to a WordPiece tokenizer. What a prompt costs to score is its number of tokens,
# so sense is not needed; a plausible opening and punctuation keep the work of the tokenizer real.
_OPENINGS = (
    "Write a short story about",
    "Explain to a beginner how",
    "Summarise in one paragraph",
    "List three reasons why",
    "What is the difference between",
    "Translate into French:",
    "Give me a recipe with",
    "Write a Python function that",
    "Is it true that",
    "Compare and contrast",
    "Fix the grammar of this sentence:",
    "Suggest a name for",
)
_WORDS = (  # noqa: SIM905 - a list of 200 quoted words is harder to read
    "the a an of and to in for with on by from about after before between city river house garden music doctor teacher child "
    "family friend market story island ocean mountain winter summer morning night road bridge train paper letter book table "
    "window door water fire light stone green blue small large old new early late quick slow bright quiet simple modern common "
    "people worker writer player leader member number value price cost time year week reason problem answer question idea plan "
    "method model system machine computer program network energy power field forest animal bird horse fish tree flower food "
    "bread coffee sugar salt dinner history science art language culture law trade money bank company office school student "
    "make take give find build write read learn teach change move keep hold carry begin finish open close follow lead "
    "would could should may often never always sometimes together again almost rather quite very more most less least"
).split()


@dataclass(frozen=True, slots=True)
class Workload:
    """prompts in the order in which they are sent, again and again. source: for the report."""

    prompts: tuple[str, ...]
    source: str

    @property
    def sha256(self) -> str:
        """Of the prompts, joined by NUL: two runs with the same one scored the same."""
        return hashlib.sha256("\0".join(self.prompts).encode("utf-8", "surrogatepass")).hexdigest()


def write_prompts(path: Path, prompts: Sequence[str]) -> None:
    """As .jsonl, in this order, for a process that is to send or score them; read_prompts reads it."""
    path.write_text("".join(json.dumps(prompt) + "\n" for prompt in prompts), encoding="utf-8")


def made_up(count: int, seed: int) -> Workload:
    """`count` prompts of 10 to 60 tokens, 26 on average, and one in LONG_EVERY of 90 words and more."""
    rng = random.Random(seed)
    prompts = [_prompt(rng, is_long=index % LONG_EVERY == LONG_EVERY - 1) for index in range(count)]
    return Workload(balanced(prompts, seed), f"built-in generator, seed {seed}")


def from_file(path: Path, seed: int) -> Workload:
    """The prompts of a text file (one per line) or a `.jsonl` (strings, or objects with `prompt`). Raises PromptFileError."""
    return Workload(balanced(read_prompts(str(path)), seed), path.name)


def balanced(prompts: Sequence[str], seed: int) -> tuple[str, ...]:
    """Reorder so that every STRETCH_PROMPTS in a row hold short, middling and long prompts alike.

    A measurement ends somewhere in the list. In a random order, 500 prompts more or less differ by some 3% in tokens, as much as
    the ratios are about.
    """
    rng = random.Random(seed)
    ascending = sorted(prompts, key=lambda prompt: (len(prompt), prompt))
    stretches = max(len(prompts) // STRETCH_PROMPTS, 1)
    order: list[list[str]] = [[] for _ in range(stretches)]
    for start in range(0, len(ascending), stretches):
        # Neighbours in length go to different stretches.
        stratum = ascending[start : start + stretches]
        for number, prompt in zip(rng.sample(range(stretches), len(stratum)), stratum, strict=True):
            order[number].append(prompt)
    for stretch in order:
        rng.shuffle(stretch)
    return tuple(prompt for stretch in order for prompt in stretch)


def sample(prompts: Sequence[str], count: int) -> list[str]:
    """Up to `count` of them, evenly spread by length, the shortest and the longest included."""
    ascending = sorted(prompts, key=lambda prompt: (len(prompt), prompt))
    last, gaps = len(ascending) - 1, max(min(count, len(ascending)) - 1, 1)
    return [ascending[number] for number in sorted({last * step // gaps for step in range(gaps + 1)})]


def _prompt(rng: random.Random, *, is_long: bool) -> str:
    words = rng.choice(_OPENINGS).split()
    wanted = rng.randint(90, 160) if is_long else round(min(max(rng.lognormvariate(3.0, 0.48), 7), 54))
    while len(words) < wanted:
        comma = "," if rng.random() < 0.05 else ""
        words.append(rng.choice(_WORDS) + comma)
    return " ".join(words[:wanted]).rstrip(",:") + rng.choice(".?")
