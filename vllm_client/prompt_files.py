"""Prompts from a file or from standard input, for the command line."""

import json
import sys
from pathlib import Path


class PromptFileError(ValueError):
    """The file cannot be read as prompts. The message names the file and the line."""


def read_prompts(source: str) -> list[str]:
    """Return the prompts of a file, in order; `-` is standard input.

    A name that ends in `.jsonl` holds one JSON value per line, a string or an object with a string `prompt`. Anything else is
    text with one prompt per line. UTF-8; lines that are empty or blank are no prompts.
    """
    try:
        raw = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
        text = raw.decode("utf-8-sig")
    except OSError as error:
        raise PromptFileError(f"{source}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise PromptFileError(f"{source}: not UTF-8 at byte {error.start}") from error
    # Not splitlines: it also splits at form feeds and other characters that a prompt may hold.
    lines = [(number, line.rstrip("\r")) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if source.endswith(".jsonl"):
        return [_json_prompt(line, f"{source}, line {number}") for number, line in lines]
    return [line for _, line in lines]


def _json_prompt(line: str, place: str) -> str:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise PromptFileError(f"{place}: not JSON") from error
    prompt = value.get("prompt") if isinstance(value, dict) else value
    if not isinstance(prompt, str):
        raise PromptFileError(f"{place}: neither a string nor an object with a string `prompt`")
    return prompt
