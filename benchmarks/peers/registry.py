"""The peers by name: where each runs and how it is called. What a call looks like is known here and to the peer, nowhere else."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.stamp import REPOSITORY


class PeerError(RuntimeError):
    """A peer cannot be compared: it is unknown, not installed, answers nonsense, scores differently, or runs on another device."""


@dataclass(frozen=True, slots=True)
class Route:
    """One way to ask. body: of the prompts, as JSON. scores: read from the answer, in the order of the prompts."""

    path: str
    body: Callable[[Sequence[str]], Any]
    scores: Callable[[Any], list[float]]


@dataclass(frozen=True, slots=True)
class Peer:
    """environment: `make peers-env` makes .venv-ENVIRONMENT of .ci/ENVIRONMENT-requirements.txt.

    one: for a single prompt, where that is asked differently. packages: whose versions belong beside its figures.
    """

    name: str
    environment: str
    many: Route
    packages: tuple[str, ...]
    one: Route | None = None

    @property
    def python(self) -> Path:
        return REPOSITORY / f".venv-{self.environment}" / "bin" / "python"

    def route(self, prompts: int) -> Route:
        """The one for so many prompts."""
        return self.one if self.one and prompts == 1 else self.many


def _scores(answer: Any) -> list[float]:
    scores: list[float] = answer["scores"]
    return scores


def _reranked(answer: Any) -> list[float]:
    # Best first; each says which of the documents it is.
    return [result["relevance_score"] for result in sorted(answer["results"], key=lambda result: int(result["index"]))]


PEERS = {
    peer.name: peer
    for peer in (
        Peer(
            "reference",
            "peers",
            one=Route("/score", lambda prompts: {"prompt": prompts[0]}, lambda answer: [answer["score"]]),
            many=Route("/score_batch", lambda prompts: {"prompts": prompts}, _scores),
            packages=("fastapi", "uvicorn", "torch", "transformers"),
        ),
        Peer(
            "cross_encoder",
            "peers",
            many=Route("/predict", lambda prompts: {"texts": prompts}, _scores),
            packages=("sentence-transformers", "fastapi", "uvicorn", "torch", "transformers"),
        ),
        Peer(
            "mosec",
            "peers",
            many=Route("/inference", lambda prompts: {"prompts": prompts}, _scores),
            packages=("mosec", "torch", "transformers"),
        ),
        Peer(
            "ray_serve",
            "peers",
            many=Route("/score", lambda prompts: {"prompts": prompts}, _scores),
            packages=("ray", "torch", "transformers"),
        ),
        Peer(
            "infinity",
            "peers-infinity",
            many=Route("/rerank", lambda prompts: {"query": "", "documents": prompts, "raw_scores": True}, _reranked),
            packages=("infinity_emb", "optimum", "torch", "transformers"),
        ),
    )
}


def chosen(names: str) -> list[Peer]:
    """Peers by comma-separated names; all of them for "all". Raises PeerError for a name that is none of theirs."""
    wanted = list(PEERS) if names == "all" else [name.strip() for name in names.split(",")]
    for name in wanted:
        if name not in PEERS:
            raise PeerError(f"no peer is called {name!r}; there are {', '.join(PEERS)}")
    return [PEERS[name] for name in dict.fromkeys(wanted)]
