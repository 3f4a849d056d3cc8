"""Pure: which call comes next in soak. A seed gives the same calls in the same order; what they meet is up to the machine."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from benchmarks.workload import made_up
from pars.v1 import ranker_pb2

SECOND_RANKER = "second/ranker"

SERVICE = "/pars.v1.RankerService/"
SCORE, STREAM, COMPARE, GET_BUNDLE = (SERVICE + name for name in ("Score", "ScoreStream", "Compare", "GetBundle"))
CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"

ANSWERS = frozenset({"OK", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"})
"""What a good call may end with, whatever the load. UNAVAILABLE is for a server that stops."""

ODD_PROMPTS = ("", " ", "\0", "क्या आप मुझे एक कहानी सुना सकते हैं?", "写一个关于龙的故事 🐉", "long " * 6_000, "x" * 20_000)

MAX_PROMPTS = 32

CANCELLED_SHARE, LEAVING_SHARE = 0.06, 0.03

BATCH_WEIGHTS = ((1, 1, 0.6), (2, 8, 0.25), (9, MAX_PROMPTS, 0.15))
"""(fewest, most, share): prompts of a call, five on average."""

DEADLINES = (("hopeless", 0.001, 0.01, 0.1), ("tight", 0.02, 0.25, 0.5), ("generous", 1.0, 10.0, 0.35))
"""(name, shortest, longest, share), in seconds. The rest have none."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One call to be made. what: under which it is counted. items: of a stream; empty for everything else.

    prompts: positions in the pool, in the order in which the answer must have them. timeout_s: None for no deadline.
    cancel_after_s: when the caller gives up. leaves: then its whole channel is closed. allowed: statuses it may end with while the
    server is not stopping.
    """

    what: str
    method: str
    content: bytes = b""
    prompts: tuple[int, ...] = ()
    tier: int = 0
    timeout_s: float | None = None
    cancel_after_s: float | None = None
    leaves: bool = False
    allowed: frozenset[str] = ANSWERS
    items: "tuple[Planned, ...]" = field(default=())
    pause_s: float = 0.0


def pool(seed: int, count: int = 192) -> tuple[str, ...]:
    """The prompts that are sent: everyday ones and odd ones."""
    return made_up(count, seed).prompts + ODD_PROMPTS


def deadline_class(planned: Planned) -> str:
    """By which name a call's deadline goes in the report; apart for those that insist on the encoder, which nobody else may answer."""
    timeout_s = planned.timeout_s
    name = next((name for name, _, longest_s, _ in DEADLINES if timeout_s is not None and timeout_s <= longest_s), "none")
    return f"{name}, encoder only" if planned.tier == ranker_pb2.TIER_ENCODER else name


class Mix:
    """An endless supply of calls."""

    def __init__(self, prompts: Sequence[str], seed: int, *, rankers: Sequence[str] = ("", SECOND_RANKER)) -> None:
        self._prompts = prompts
        self._rankers = rankers
        self._rng = random.Random(seed)
        self._kinds: dict[Callable[[], Planned], float] = {
            self._score: 0.5,
            self._ngram: 0.12,
            self._compare: 0.08,
            self._stream: 0.06,
            self._get_bundle: 0.06,
            self._health: 0.06,
            self._watch: 0.02,
            self._wrong: 0.09,
            self._large: 0.01,
        }
        one = prompts[0]
        refused = [
            ranker_pb2.ScoreRequest(),
            ranker_pb2.ScoreRequest(prompts=[one] * 300),
            ranker_pb2.ScoreRequest(prompts=[one], tier=99),  # type: ignore[arg-type]  # meant to be none
            ranker_pb2.ScoreRequest(prompts=[one], ranker="nobody"),
        ]
        unreadable = [b"\xff junk", b"\x0a\x02\xc3\x28"]  # the second one is a prompt that is not UTF-8
        too_large = ranker_pb2.ScoreRequest(prompts=["x" * 4_500_000]).SerializeToString()
        self._wrong_requests = [(each.SerializeToString(), "INVALID_ARGUMENT") for each in refused]
        self._wrong_requests += [(each, "INVALID_ARGUMENT") for each in unreadable]
        self._wrong_requests += [(too_large, "RESOURCE_EXHAUSTED")]

    def next(self) -> Planned:
        """The next call."""
        (make,) = self._rng.choices(list(self._kinds), list(self._kinds.values()))
        planned = make()
        if planned.what == "watch":
            return planned
        chance = self._rng.random()
        if chance < CANCELLED_SHARE + LEAVING_SHARE:
            return replace(
                planned,
                cancel_after_s=self._rng.expovariate(20),
                leaves=chance < LEAVING_SHARE,
                allowed=planned.allowed | {"CANCELLED"},
            )
        return planned

    def _score(self) -> Planned:
        tier = self._rng.choices((ranker_pb2.TIER_UNSPECIFIED, ranker_pb2.TIER_ENCODER), (0.7, 0.3))[0]
        return self._scored("score" if tier == ranker_pb2.TIER_UNSPECIFIED else "score, encoder", self._chosen(), tier)

    def _ngram(self) -> Planned:
        return self._scored("score, n-gram", self._chosen(), ranker_pb2.TIER_NGRAM)

    def _large(self) -> Planned:
        return self._scored("score, 256 prompts", self._rng.choices(range(len(self._prompts)), k=256), 0)

    def _scored(self, what: str, prompts: Sequence[int], tier: int) -> Planned:
        return Planned(what, SCORE, self._request(prompts, tier), tuple(prompts), tier, self._deadline())

    def _compare(self) -> Planned:
        prompts = self._chosen() + self._chosen()
        prompts = prompts[: len(prompts) // 2 * 2]
        texts = [self._prompts[number] for number in prompts]
        pairs = [ranker_pb2.PromptPair(prompt_a=a, prompt_b=b) for a, b in zip(texts[::2], texts[1::2], strict=True)]
        content = ranker_pb2.CompareRequest(pairs=pairs, ranker=self._ranker()).SerializeToString()
        return Planned("compare", COMPARE, content, tuple(prompts), 0, self._deadline())

    def _stream(self) -> Planned:
        items = []
        for number in range(self._rng.randint(1, 24)):
            timeout_s = self._deadline()
            prompts = self._chosen()[:4]
            request = ranker_pb2.ScoreRequest.FromString(self._request(prompts, 0))
            timeout_ms = 0 if timeout_s is None else max(round(timeout_s * 1e3), 1)
            content = ranker_pb2.ScoreStreamRequest(id=number, request=request, timeout_ms=timeout_ms).SerializeToString()
            items.append(Planned("stream item", STREAM, content, tuple(prompts), 0, timeout_s))
        return Planned("stream", STREAM, items=tuple(items), pause_s=self._rng.choice((0.0, 0.0, 0.05)))

    def _get_bundle(self) -> Planned:
        content = ranker_pb2.GetBundleRequest(ranker=self._ranker()).SerializeToString()
        return Planned("get bundle", GET_BUNDLE, content, timeout_s=10.0, allowed=frozenset({"OK", "DEADLINE_EXCEEDED"}))

    def _health(self) -> Planned:
        return Planned("health", CHECK, timeout_s=10.0, allowed=frozenset({"OK", "DEADLINE_EXCEEDED"}))

    def _watch(self) -> Planned:
        return Planned("watch", WATCH, cancel_after_s=self._rng.uniform(0.1, 20.0), allowed=frozenset({"CANCELLED"}))

    def _wrong(self) -> Planned:
        content, code = self._rng.choice(self._wrong_requests)
        return Planned("wrong", SCORE, content, timeout_s=10.0, allowed=frozenset({code, "DEADLINE_EXCEEDED"}))

    def _request(self, prompts: Sequence[int], tier: int) -> bytes:
        texts = [self._prompts[number] for number in prompts]
        return ranker_pb2.ScoreRequest(prompts=texts, tier=tier, ranker=self._ranker()).SerializeToString()  # type: ignore[arg-type]  # open enum

    def _ranker(self) -> str:
        return self._rng.choice(self._rankers)

    def _chosen(self) -> list[int]:
        ((low, high, _),) = self._rng.choices(BATCH_WEIGHTS, [share for *_, share in BATCH_WEIGHTS])
        return self._rng.choices(range(len(self._prompts)), k=self._rng.randint(low, high))

    def _deadline(self) -> float | None:
        chance = self._rng.random()
        for _, shortest_s, longest_s, share in DEADLINES:
            if chance < share:
                return self._rng.uniform(shortest_s, longest_s)
            chance -= share
        return None
