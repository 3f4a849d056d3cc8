"""Pure: cheap features of a prompt's text, each a number that one pass of a regular expression gives. No n-grams, no tokenizer."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Feature = Callable[[str], float]

_FIRST_WORDS = {
    "write": "write|compose|draft|author",
    "create": "create|generate|make|produce|come up|invent|imagine",
    "design": "design|develop|build|implement|plan|propose|construct",
    "list": "list|name|enumerate|mention",
    "give": "give|provide|suggest|recommend|tell|show",
    "explain": "explain|describe|discuss|elaborate|outline|compare|contrast|analy[sz]e|evaluate",
    "summarize": "summari[sz]e|condense|shorten|abstract",
    "translate": "translate|convert|transform|transcribe",
    "classify": "classify|categori[sz]e|identify|determine|choose|select|label|detect|find|pick|sort|match",
    "rewrite": "rewrite|edit|paraphrase|rephrase|correct|fix|improve|revise|reword|replace|change",
    "compute": "compute|calculate|solve|simplify|estimate|add|subtract|multiply|divide|prove",
    "what": "what|who|whom|when|where|which",
    "why": "why|how",
    "yes_or_no": "is|are|was|were|do|does|did|can|could|should|would|will|has|have",
}
_ANYWHERE = {
    "asks_code": r"\b(?:code|function|program|python|java(?:script)?|sql|html|css|algorithm|regex|query)\b|\bC\+\+",
    "asks_long_text": r"\b(?:essay|story|article|blog|speech|report|letter|e-?mail|dialogue|conversation|poem|script|review|guide"
    r"|tutorial)\b",
    "asks_short_text": r"\b(?:title|headline|slogan|tweet|caption|name|word|synonym|antonym|tagline|haiku|joke)\b",
    "asks_table": r"\b(?:table|csv|json|xml|spreadsheet|chart)\b",
    "asks_brief": r"\b(?:brief(?:ly)?|short(?:ly)?|concise(?:ly)?|succinct(?:ly)?|in (?:a|one|1|two|2) (?:single )?(?:sentence|line|word)s?"
    r"|single (?:sentence|word)|few words|quick(?:ly)?)\b",
    "asks_only_the_answer": r"\b(?:only (?:the|with|answer|output|return|give|respond|reply)|just (?:the|answer|give|return)|yes or no"
    r"|true or false|no explanation|nothing else|one word)\b",
    "asks_detail": r"\b(?:detail(?:ed|s)?|in[- ]depth|comprehensive(?:ly)?|thorough(?:ly)?|elaborate|extensive|at length|long)\b",
    "asks_steps": r"\bstep[- ]by[- ]step\b|\bsteps?\b|\bshow your work\b|\breasoning\b",
    "asks_paragraphs": r"\bparagraphs?\b",
    "asks_list": r"\b(?:list|examples?|reasons|ways|ideas|tips|bullet points?|items|facts|questions|benefits|advantages)\b",
    "gives_input": r"\b(?:following|below|given|passage|paragraph|text|article|sentence)\b",
}
_NUMBER_WORDS = (
    *("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)
_QUANTITY = rf"(\d{{1,5}}|{'|'.join(_NUMBER_WORDS)})"
_FILLER = r"(?:[- ]+[a-z]+)?[- ]+"
"""One adjective between the number and the noun: "three main reasons"."""
_QUANTITIES = {
    "asked_words": rf"\b{_QUANTITY}{_FILLER}words?\b",
    "asked_sentences": rf"\b{_QUANTITY}{_FILLER}(?:sentence|line)s?\b",
    "asked_paragraphs": rf"\b{_QUANTITY}{_FILLER}(?:paragraph|page|stanza)s?\b",
    "asked_items": rf"\b{_QUANTITY}{_FILLER}(?!words?\b|sentences?\b|lines?\b|paragraphs?\b)[a-z]+s\b",
}
_LATIN_BOUND = "\u024f"


def features(prompts: Sequence[str]) -> FloatArray:
    """float64[prompts, features], columns in the order of `FEATURES`. Every value is finite."""
    return np.array([[value(prompt) for value in FEATURES.values()] for prompt in prompts], dtype=np.float64).reshape(
        len(prompts), len(FEATURES)
    )


def _count(pattern: str) -> Feature:
    compiled = re.compile(pattern)
    return lambda text: float(len(compiled.findall(text)))


def _says(pattern: str) -> Feature:
    compiled = re.compile(pattern, re.IGNORECASE)
    return lambda text: float(compiled.search(text) is not None)


def _share(pattern: str) -> Feature:
    """Characters that match, over all characters; 0 for an empty prompt."""
    count = _count(pattern)
    return lambda text: count(text) / max(len(text), 1)


def _first_word(verbs: str) -> Feature:
    """Whether the prompt begins with one of the verbs, a courtesy before it allowed."""
    return _says(rf"\A\W*(?:(?:please|kindly|can you|could you|i want you to|you are asked to)\W+)?(?:{verbs})\b")


def _asked(pattern: str) -> Feature:
    """The number asked for; 0 where none is."""
    compiled = re.compile(pattern, re.IGNORECASE)

    def quantity(text: str) -> float:
        found = compiled.search(text)
        if found is None:
            return 0.0
        said = found[1].lower()
        return float(said) if said.isdigit() else float(_NUMBER_WORDS.index(said) + 1)

    return quantity


def _mean_word_characters(text: str) -> float:
    words = text.split()
    return sum(map(len, words)) / max(len(words), 1)


FEATURES: Mapping[str, Feature] = {
    "characters": lambda text: float(len(text)),
    "words": lambda text: float(len(text.split())),
    "lines": lambda text: float(text.count("\n") + 1),
    "sentences": _count(r"[.!?。！？](?:\s|$)"),
    "mean_word_characters": _mean_word_characters,
    "digits": _count(r"[0-9]"),
    "digit_share": _share(r"[0-9]"),
    "capital_share": _share(r"[A-Z]"),
    "non_latin_share": _share(rf"[^\W\d_\u0000-{_LATIN_BOUND}]"),
    "ideograph_share": _share(r"[\u2e80-\ua4cf\uac00-\ud7af]"),
    "question_marks": _count(r"[?？]"),
    "quotes": _count(r"[\"“”«»]"),
    "colons": _count(r":"),
    "code_fences": _count(r"```"),
    "code_symbols": _count(r"[{}()\[\];<>=_]"),
    "code_symbol_share": _share(r"[{}()\[\];<>=_]"),
    "maths_symbols": _count(r"\\[a-zA-Z]+|[$^+*/=]"),
    "list_markers": _count(r"(?m)^\s*(?:[-*•]|\d+[.)])\s"),
    "lettered_options": _count(r"(?m)^\s*\(?[A-J][.):]\s"),
    "blanks_to_fill": _count(r"_{2,}"),
    **{f"begins_{name}": _first_word(verbs) for name, verbs in _FIRST_WORDS.items()},
    **{name: _says(pattern) for name, pattern in _ANYWHERE.items()},
    **{name: _asked(pattern) for name, pattern in _QUANTITIES.items()},
}
"""Column → how it is computed."""
