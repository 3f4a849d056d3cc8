"""What is compared: the arms, each a hook setting and somebody who ranks."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from benchmarks.bench_vllm.rankers import Ranker
from vllm_client import DEFAULT_WINDOW_MS

SHORT_WINDOW_MS = 5_000
"""Of the arm `ours-5s`: short against the waits of this benchmark, and it stays, so that the bound of ageing shows."""

NO_GROWTH = {"max_window_ms": "0"}


@dataclass(frozen=True, slots=True)
class Arm:
    """hook: settings beside the common ones, by name. ranker: who answers the hook."""

    name: str
    what: str
    ranker: Ranker
    hook: Mapping[str, str] = field(default_factory=dict)

    @property
    def window_ms(self) -> int | None:
        """Nobody is overtaken by a request that arrives more than this later, as long as the window has not grown with the queue. None:
        the policy states no bound."""
        policy = self.hook.get("policy", "ageing")
        if policy in ("ageing", "cost"):
            return int(self.hook.get("window_ms", DEFAULT_WINDOW_MS))
        return 0 if policy == "equal" else None


ARMS = (
    Arm("equal", "first come, first served: the hook gives everybody the same priority", "none", {"policy": "equal"}),
    Arm("ours", "the bundle's ranker, served by the sidecar, with the default policy", "sidecar"),
    Arm("oracle", "the recorded lengths themselves", "oracle"),
    Arm("random", "the recorded lengths, dealt out anew: a ranker that knows nothing", "shuffled"),
    Arm("prompt-length", "the longer the prompt, the later", "prompt_length"),
    Arm("ours-ngram", "the bundle's cheap n-gram tier", "sidecar", {"tier": "ngram"}),
    Arm("ours-fixed", "the bundle's ranker, ageing with a window that stays at its 40 s", "sidecar", NO_GROWTH),
    Arm("ours-shortest", "the bundle's ranker, shortest first, without ageing: no bound", "sidecar", {"policy": "shortest"}),
    Arm(
        "ours-5s",
        "the bundle's ranker, ageing with a window of 5 s that stays",
        "sidecar",
        {"window_ms": str(SHORT_WINDOW_MS), **NO_GROWTH},
    ),
    Arm("oracle-shortest", "the recorded lengths, shortest first, without ageing: no bound", "oracle", {"policy": "shortest"}),
)

ARM_NAMES = tuple(arm.name for arm in ARMS)

ARM_LABELS = {
    "equal": "first come, first served",
    "random": "random",
    "prompt-length": "prompt length",
    "ours-ngram": "ours, n-gram tier",
    "ours": "ours",
    "ours-fixed": "ours, window that stays",
    "ours-5s": "ours, window that stays at 5 s",
    "ours-shortest": "ours, policy `shortest`",
    "oracle": "recorded lengths (oracle)",
    "oracle-shortest": "oracle, policy `shortest`",
}
"""As tables name them, in their order."""

BASELINE, ORACLE = "equal", "oracle"


def arm_named(name: str) -> Arm:
    return next(arm for arm in ARMS if arm.name == name)
