"""sentence-transformers' CrossEncoder behind FastAPI: `python -m benchmarks.peers.cross_encoder --checkpoint FOLDER --port PORT`."""

from typing import Any

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import CrossEncoder

from benchmarks.peers import flags


class SingleTextCrossEncoder(CrossEncoder):
    """`predict` for single texts instead of pairs.

    CrossEncoder takes a flat list of strings for one pair and refuses lists of one string. An empty second text does not help: it adds
    a separator, and the scores are off by up to 0.03. Its tokenisation and its forward take single texts, so that only the question
    of what is one input needs another answer. Sorting by length, batches of 32 and all else in `predict` stay its own.
    """

    def is_singular_input(self, inputs: object) -> bool:
        return isinstance(inputs, str)


class PredictRequest(BaseModel):
    texts: list[str]


class PredictResponse(BaseModel):
    scores: list[float]


def make_app(model: Any) -> FastAPI:
    """model: as above. Its `predict` is typed for pairs."""
    app = FastAPI()

    @app.post("/predict")
    def predict(request: PredictRequest) -> PredictResponse:
        return PredictResponse(scores=model.predict(request.texts, show_progress_bar=False).tolist())

    return app


def main() -> None:
    given = flags.parse()
    model = SingleTextCrossEncoder(
        str(given.checkpoint),
        max_length=given.max_tokens,
        device="cpu",
        activation_fn=torch.nn.Identity(),  # the default for one output is a sigmoid
        model_kwargs={"dtype": torch.float32},
    )
    uvicorn.run(make_app(model), host=flags.HOST, port=given.port, log_level="warning")


if __name__ == "__main__":
    main()
