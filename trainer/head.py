"""The linear head of a sequence-classification model: wider while a loss wants several outputs, one output in a checkpoint."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel


def set_outputs(model: PreTrainedModel, outputs: int) -> None:
    """Make the head `outputs` wide, in place. Rows that are kept keep their order and values; new ones are drawn
    as the model draws its own.

    Raises ValueError where the model has no such head.
    """
    name, head = _head_of(model)
    if head.out_features != outputs:
        resized = torch.nn.Linear(head.in_features, outputs, bias=head.bias is not None)
        kept = min(outputs, head.out_features)
        with torch.no_grad():
            resized.weight.normal_(0.0, getattr(model.config, "initializer_range", 0.02))
            resized.weight[:kept] = head.weight[:kept]
            if head.bias is not None:
                resized.bias.zero_()
                resized.bias[:kept] = head.bias[:kept]
        model.set_submodule(name, resized.to(head.weight))
    model.config.num_labels = outputs
    model.num_labels = outputs  # type: ignore[assignment]  # an attribute of every classifier, which the base class does not declare


def _head_of(model: PreTrainedModel) -> tuple[str, torch.nn.Linear]:
    """The last linear layer that is as wide as the model has labels: families name it differently, or put it into a module of its own."""
    for name, module in reversed(list(model.named_modules())):
        if isinstance(module, torch.nn.Linear) and module.out_features == model.config.num_labels:
            return name, module
    raise ValueError(f"{type(model).__name__} has no linear head of {model.config.num_labels} outputs")
