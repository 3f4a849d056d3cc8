"""Text to token ids, cut to the model's length and flagged. The one place where serving, export and warm-up tokenise."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from pars import text
from sidecar.bundle import Bundle
from sidecar.errors import BundleError, InvalidRequestError, ModelError
from sidecar.scorer import TokenizedPrompt

__all__ = ["PromptTokenizer", "TokenizedPrompt"]

STRANGE_TEXT = "\0 \u202e🦜\U0010ffff"
"""No vocabulary holds all of it. Any Unicode text is a prompt, so a tokenizer that knows no token for the unknown cannot serve."""


class PromptTokenizer:
    """A fast tokenizer with its padding off and its truncation set. Thread-safe: nothing is changed after construction."""

    def __init__(self, tokenizer: Tokenizer, max_tokens: int, max_chars: int) -> None:
        # A saved tokenizer carries the padding and truncation of its last use; the common MiniLM file pads everything to 128.
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_tokens)
        self._tokenizer = tokenizer
        self.max_chars = max_chars

    @classmethod
    def from_file(cls, path: Path, max_tokens: int, max_chars: int) -> "PromptTokenizer":
        """Load `tokenizer.json`. max_tokens counts special tokens. Raises BundleError for a file that is no usable tokenizer."""
        try:
            tokenizer = cls(Tokenizer.from_file(str(path)), max_tokens, max_chars)
        except BaseException as error:
            if not _is_of_the_binding(error):
                raise
            raise BundleError(f"{path} is not a tokenizer: {error}") from error
        try:
            probes = ["", "a " * min(max_tokens, text.MAX_CHARS), STRANGE_TEXT]
            longest = max(len(prompt.token_ids) for prompt in tokenizer.encode(probes))
        except ModelError as error:
            raise BundleError(f"{path} cannot be used: {error}") from error
        # Cutting never takes away special tokens, however many the template adds.
        if longest > max_tokens:
            raise BundleError(f"{path} makes {longest} tokens of a prompt although max_tokens is {max_tokens}")
        return tokenizer

    @classmethod
    def for_bundle(cls, bundle: Bundle) -> "PromptTokenizer":
        """Load the bundle's tokenizer with the limits its manifest states."""
        return cls.from_file(bundle.tokenizer_path, bundle.manifest.input.max_tokens, bundle.manifest.input.max_chars)

    def encode(self, prompts: Sequence[str]) -> list[TokenizedPrompt]:
        """Tokenise; same length and order as prompts.

        `truncated` is exact: it is set when characters were clipped or when the tokenizer had tokens left over.
        Raises InvalidRequestError for text that is not valid Unicode (lone surrogates; only Python callers can send them) and
        ModelError when the tokenizer fails on a prompt.
        """
        clipped = [text.clip(prompt, self.max_chars) for prompt in prompts]
        try:
            # Not encode(): that one holds the GIL, a second for a 1 MB prompt. The fast variant leaves out unused offsets.
            encodings = self._tokenizer.encode_batch_fast([kept for kept, _ in clipped])
        except TypeError as error:
            for index, prompt in enumerate(prompts):
                if not _is_unicode(prompt):
                    raise InvalidRequestError(f"prompt {index} is not valid Unicode: it holds a lone surrogate") from error
            raise
        except BaseException as error:
            if not _is_of_the_binding(error):
                raise
            # Without the error's text, which may quote the prompt.
            raise ModelError(f"the tokenizer failed on a call of {len(prompts)} prompts with {type(error).__name__}") from None
        return [
            TokenizedPrompt(np.array(encoding.ids, dtype=np.int64), cut or bool(encoding.overflowing))
            for encoding, (_, cut) in zip(encodings, clipped, strict=True)
        ]


def _is_of_the_binding(error: BaseException) -> bool:
    """Whether the tokenizer failed: its errors are bare Exceptions, and a panic inside it, such as a regex that gives up, is a
    BaseException that `except Exception` lets pass."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def _is_unicode(prompt: str) -> bool:
    try:
        prompt.encode()
    except UnicodeEncodeError:
        return False
    return True
