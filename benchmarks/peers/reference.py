"""A scorer as research code is released: FastAPI around transformers, a forward for each request, no queue and no batches.

`python -m benchmarks.peers.reference --checkpoint FOLDER --port PORT`. Its handlers are synchronous, so FastAPI runs as many of them
at once as its thread pool holds, each with PyTorch's default number of threads.
"""

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from benchmarks.peers import flags
from benchmarks.peers.classifier import Classifier


class ScoreRequest(BaseModel):
    prompt: str


class ScoreResponse(BaseModel):
    score: float


class ScoreBatchRequest(BaseModel):
    prompts: list[str]


class ScoreBatchResponse(BaseModel):
    scores: list[float]


def make_app(classifier: Classifier) -> FastAPI:
    app = FastAPI()

    @app.post("/score")
    def score(request: ScoreRequest) -> ScoreResponse:
        return ScoreResponse(score=classifier.score([request.prompt])[0])

    @app.post("/score_batch")
    def score_batch(request: ScoreBatchRequest) -> ScoreBatchResponse:
        return ScoreBatchResponse(scores=classifier.score(request.prompts))

    return app


def main() -> None:
    given = flags.parse()
    # No line for each request: writing it would be measured.
    uvicorn.run(make_app(Classifier(given.checkpoint, given.max_tokens)), host=flags.HOST, port=given.port, log_level="warning")


if __name__ == "__main__":
    main()
