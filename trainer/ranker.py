"""The ranker: any Hugging Face encoder with one output. It does not know how it is trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from pars.text import clip
from trainer.errors import CheckpointError
from trainer.losses.objective import first_output

_POSITIONS_AFTER_PADDING = ("roberta", "xlm-roberta", "camembert")
"""Families that number positions from the padding id on, so that the first few of their positions are never a token's."""

SCORING_BATCH_TOKENS = 8192
"""Prompts × longest prompt in one scoring batch."""


class Ranker:
    """A sequence-classification model and its tokenizer. `score` is float[batch], higher means longer.

    to_score: from the model's outputs, float[batch, num_labels], to scores; a checkpoint has one output, which is the score.
    truncation: see trainer/config.py.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_tokens: int, *, truncation: str = "head"
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.truncation = truncation
        self.to_score: Callable[[torch.Tensor], torch.Tensor] = first_output

    @classmethod
    def load(
        cls, name_or_folder: str | Path, max_tokens: int, *, outputs: int = 1, layers: int = 0, truncation: str = "head"
    ) -> Ranker:
        """Load a backbone (its head is then new and random) or a finished checkpoint, in 32-bit floats.

        outputs: width of the head. layers: keep this many of the encoder, from the bottom; 0 keeps all.
        """
        depth = {"num_hidden_layers": layers} if layers else {}
        try:
            has = AutoConfig.from_pretrained(name_or_folder).num_hidden_layers
            if layers > has:
                raise CheckpointError(f"{name_or_folder!s} has {has} layers; {layers} cannot be kept")
            tokenizer = AutoTokenizer.from_pretrained(name_or_folder, use_fast=True)
            model = AutoModelForSequenceClassification.from_pretrained(
                name_or_folder, num_labels=outputs, dtype=torch.float32, **depth
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"cannot load {name_or_folder!s}: {str(error).splitlines()[0]}") from error
        ranker = cls(model, tokenizer, max_tokens, truncation=truncation)
        ranker.check(name_or_folder)
        return ranker

    def check(self, name: str | Path) -> None:
        """Raise CheckpointError, naming `name`, when tokenizer, model and max_tokens do not fit together."""
        config, pad = self.model.config, self.tokenizer.pad_token_id
        if pad is None:
            raise CheckpointError(f"{name}: its tokenizer has no padding token")
        limit = getattr(config, "max_position_embeddings", self.max_tokens)
        if config.model_type in _POSITIONS_AFTER_PADDING:
            limit -= pad + 1
        if self.max_tokens > limit:
            raise CheckpointError(f"max_tokens {self.max_tokens} is more than the {limit} positions of {name}")
        # Decoder backbones find the last real token by this id; the tokenizer decides it.
        config.pad_token_id = pad

    def tokenize(self, prompts: Sequence[str]) -> list[npt.NDArray[np.int64]]:
        """Token ids of each prompt, special tokens included, cut to max_tokens."""
        if not prompts:
            return []
        texts = [clip(prompt)[0] for prompt in prompts]
        if self.truncation == "head":
            encoded = self.tokenizer(
                texts, truncation=True, max_length=self.max_tokens, padding=False, return_attention_mask=False
            )
            return [np.asarray(ids, dtype=np.int64) for ids in encoded["input_ids"]]
        whole = self.tokenizer(texts, truncation=False, padding=False, return_attention_mask=False, verbose=False)["input_ids"]
        # The special tokens at both ends stay where they are.
        head = self.max_tokens // 2
        cut = [ids if len(ids) <= self.max_tokens else ids[:head] + ids[head - self.max_tokens :] for ids in whole]
        return [np.asarray(ids, dtype=np.int64) for ids in cut]

    def collate(self, token_ids: Sequence[npt.NDArray[np.int64]]) -> dict[str, torch.Tensor]:
        """input_ids and attention_mask, int64[batch, longest], padded on the right on the model's device.

        A prompt without any token, which tokenizers without special tokens make of the empty text, reads as one padding token;
        the sidecar does the same.
        """
        longest = max(1, *(len(ids) for ids in token_ids))
        pad: Any = self.tokenizer.pad_token_id
        input_ids = torch.full((len(token_ids), longest), pad, dtype=torch.int64)
        mask = torch.zeros_like(input_ids)
        for row, ids in enumerate(token_ids):
            input_ids[row, : len(ids)] = torch.from_numpy(ids)
            mask[row, : max(len(ids), 1)] = 1
        device = self.model.device
        return {"input_ids": input_ids.to(device), "attention_mask": mask.to(device)}

    @torch.no_grad()
    def score(self, token_ids: Sequence[npt.NDArray[np.int64]], *, progress: str = "") -> npt.NDArray[np.float64]:
        """Scores in the given order, computed in batches of similar size, in evaluation mode. Returns float64[n]."""
        was_training = self.model.training
        self.model.eval()
        order = np.argsort([-len(ids) for ids in token_ids], kind="stable")
        scores = np.empty(len(token_ids), dtype=np.float64)
        start = 0
        with tqdm(total=len(order), desc=progress, unit=" prompts", disable=not progress) as bar:
            while start < len(order):
                count = max(SCORING_BATCH_TOKENS // max(len(token_ids[order[start]]), 1), 1)
                rows = order[start : start + count]
                logits = self.model(**self.collate([token_ids[row] for row in rows])).logits
                scores[rows] = self.to_score(logits).double().cpu().numpy()
                start += len(rows)
                bar.update(len(rows))
        self.model.train(was_training)
        return scores
