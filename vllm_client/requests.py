"""Pure: prompts → request messages, and a long list → calls of a size the server takes."""

from collections.abc import Iterable, Iterator, Sequence

from pars.v1 import ranker_pb2
from vllm_client.errors import InvalidPromptsError
from vllm_client.scores import Tier

CALL_BYTES = 1024 * 1024
"""Prompt bytes after which a long list goes on in another call: a quarter of what gRPC servers take by default."""


def score_request(prompts: Sequence[str], tier: Tier, ranker: str = "") -> ranker_pb2.ScoreRequest:
    """Return the request. Raises InvalidPromptsError for text that has no UTF-8 form, TypeError for what is not a list of text.

    How many prompts are too many is the server's to say.
    """
    _refuse_bare_text(prompts)
    try:
        return ranker_pb2.ScoreRequest(prompts=prompts, tier=int(tier), ranker=ranker)  # type: ignore[arg-type]  # open enum
    except UnicodeError as error:
        raise _no_utf8() from error


def compare_request(pairs: Iterable[tuple[str, str]], tier: Tier, ranker: str = "") -> ranker_pb2.CompareRequest:
    """Return the request. Errors as for `score_request`."""
    try:
        return ranker_pb2.CompareRequest(
            pairs=[ranker_pb2.PromptPair(prompt_a=prompt_a, prompt_b=prompt_b) for prompt_a, prompt_b in pairs],
            tier=int(tier),  # type: ignore[arg-type]  # open enum
            ranker=ranker,
        )
    except UnicodeError as error:
        raise _no_utf8() from error


def split(prompts: Sequence[str], max_prompts: int, max_bytes: int = CALL_BYTES) -> Iterator[Sequence[str]]:
    """Yield `prompts` in order, in runs of at most `max_prompts` prompts and, unless a single prompt is larger, `max_bytes`."""
    _refuse_bare_text(prompts)
    start, run_bytes = 0, 0
    for index, prompt in enumerate(prompts):
        # A lone surrogate has no UTF-8 form; it is refused where the request is built, not where sizes are counted.
        prompt_bytes = len(prompt.encode("utf-8", "surrogatepass"))
        if index > start and (index - start == max_prompts or run_bytes + prompt_bytes > max_bytes):
            yield prompts[start:index]
            start, run_bytes = index, 0
        run_bytes += prompt_bytes
    if start < len(prompts):
        yield prompts[start:]


def _refuse_bare_text(prompts: Sequence[str]) -> None:
    # Text is a sequence of texts to Python: without this, "hi" would be scored as the two prompts "h" and "i".
    if isinstance(prompts, str | bytes):
        raise TypeError("prompts must be a list of strings, not one string")


def _no_utf8() -> InvalidPromptsError:
    # Honest callers get here: json.loads turns "\ud800" into a lone surrogate. The codec's own message would quote the prompt.
    return InvalidPromptsError("a prompt holds a lone surrogate and has no UTF-8 form")
