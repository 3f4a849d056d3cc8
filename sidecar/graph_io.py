"""What goes into a bundle's graph and what comes out of it, the same for every runtime: token ids to arrays, output to scores."""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from sidecar.bundle import Bundle
from sidecar.errors import BundleError, ModelError
from sidecar.scorer import Scores, TokenizedPrompt


class GraphIO:
    """Of one bundle, as its manifest says. output: the name of what the graph returns. max_tokens: the longest prompt it takes."""

    def __init__(self, bundle: Bundle) -> None:
        self._pad_token_id = bundle.manifest.input.pad_token_id
        self._input_names = tuple(bundle.manifest.input.input_names)
        self.output = bundle.manifest.input.output_name
        self.max_tokens = bundle.manifest.input.max_tokens

    def check_names(self, inputs: Iterable[str], outputs: Iterable[str]) -> None:
        """Compare those of the opened graph with the manifest's. Raises BundleError."""
        wanted, found, returned = sorted(self._input_names), sorted(inputs), list(outputs)
        if found != wanted:
            raise BundleError(f"model.onnx has the inputs {found}, the manifest says {wanted}")
        if self.output not in returned:
            raise BundleError(f"model.onnx has the outputs {returned}, the manifest says {self.output!r}")

    def arrays(self, batch: Sequence[TokenizedPrompt], shape: tuple[int, int]) -> dict[str, npt.NDArray[np.int64]]:
        """The inputs by name, each int64[shape]: room for the prompts and for the longest of them, at least; see shape_of."""
        input_ids = np.full(shape, self._pad_token_id, dtype=np.int64)
        mask = np.zeros(shape, dtype=np.int64)
        # An empty prompt, and a row too many, read as one padding token: with nothing to attend to, a score may depend on its neighbours.
        mask[:, 0] = 1
        for row, prompt in enumerate(batch):
            input_ids[row, : len(prompt.token_ids)] = prompt.token_ids
            mask[row, : len(prompt.token_ids)] = 1
        arrays = {"input_ids": input_ids, "attention_mask": mask}
        if "token_type_ids" in self._input_names:
            arrays["token_type_ids"] = np.zeros(shape, dtype=np.int64)
        return {name: arrays[name] for name in self._input_names}


def shape_of(batch: Sequence[TokenizedPrompt]) -> tuple[int, int]:
    """(prompts, tokens of the longest), both at least 1: the least that a batch needs."""
    return len(batch), max(1, *(len(prompt.token_ids) for prompt in batch))


def as_scores(output: npt.NDArray[np.generic], prompts: int) -> Scores:
    """float32[prompts], one finite score per prompt, of what the graph returned. Raises ModelError for anything else."""
    if output.shape not in ((prompts, 1), (prompts,)):
        raise ModelError(f"the graph returned shape {list(output.shape)} for {prompts} prompts")
    scores: Scores = output.reshape(prompts).astype(np.float32, copy=False)
    if not np.isfinite(scores).all():
        raise ModelError("the graph returned a score that is not finite")
    return scores
