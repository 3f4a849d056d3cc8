"""What the hook can learn from the server that it lives in. Everything here is a guess that may fail: any surprise reads as None.

vLLM is never imported, only looked up among what is loaded. Its configuration hangs on the ASGI application, as
`scope["app"].state.vllm_config` (seen in 0.25.1 to 0.32.0). It is no public interface, which is why nothing depends on it.
"""

import logging
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vllm_client.hook.settings import HookSettings

TESTED_MIN = "0.27.1"
TESTED_MAX = "0.32.0"
"""The vLLM versions that the tests were run with. Others most likely work, and are told so once in the log."""

HEADER_SINCE = "0.28.0"
"""The first vLLM that reads X-Vllm-Priority. Older ones have the body field alone."""

DEFAULT_GATE = 4
"""Requests in flight below which nothing is asked, where the server does not tell how many it runs at a time."""

_ROOT_LOGGER = "vllm_client"


@dataclass(frozen=True, slots=True)
class Host:
    """The server around the hook. None, everywhere: it cannot be told."""

    engine_obeys: bool | None = None
    """Whether the engine orders by priority, which takes --scheduling-policy priority."""
    max_num_seqs: int | None = None
    """Requests that one engine runs at a time."""
    api_servers: int | None = None
    """API server processes that share the engines; the hook sees the requests of its own process only."""
    engines: int | None = None
    """Data-parallel engines behind these API servers. None counts as one."""
    knows_header: bool | None = None
    """Whether it reads X-Vllm-Priority."""
    version: str | None = None
    """Of vLLM."""

    @property
    def room(self) -> int | None:
        """Requests that run at a time, of those that come through this process: engines are shared among the API servers."""
        return None if self.max_num_seqs is None else max(1, self.max_num_seqs * (self.engines or 1) // (self.api_servers or 1))

    def gate_in_flight(self, setting: int) -> int:
        """Return the load gate in requests: the setting, or for -1 a quarter of the room."""
        if setting >= 0:
            return setting
        return DEFAULT_GATE if self.room is None else max(1, self.room // 4)

    def is_tested(self) -> bool | None:
        numbers = version_numbers(self.version)
        if numbers is None:
            return None
        return _known_numbers(TESTED_MIN) <= numbers <= _known_numbers(TESTED_MAX)


def inspect_host(scope: Mapping[str, Any]) -> Host:
    """Return what the ASGI scope, of a request or of the lifespan, tells. Never raises."""
    config = _attribute(scope.get("app"), "state", "vllm_config")
    policy = _attribute(config, "scheduler_config", "policy")
    version = _attribute(sys.modules.get("vllm"), "__version__")
    numbers = version_numbers(version)
    return Host(
        engine_obeys=policy == "priority" if isinstance(policy, str) else None,
        max_num_seqs=_count(_attribute(config, "scheduler_config", "max_num_seqs")),
        api_servers=_count(_attribute(config, "parallel_config", "_api_process_count")),
        engines=_engines(_attribute(config, "parallel_config")),
        knows_header=None if numbers is None else numbers >= _known_numbers(HEADER_SINCE),
        version=version if isinstance(version, str) else None,
    )


def tell_about(host: Host, settings: HookSettings, logger: logging.Logger) -> None:
    """Log, once for each server process, what an operator must know about hook and host together."""
    gate = host.gate_in_flight(settings.gate_in_flight)
    logger.info("PARS hook: sidecar %s, policy %s, asks from %d requests in flight", settings.address, settings.policy, gate)
    if host.engine_obeys is False and settings.shadow:
        logger.warning(
            "PARS hook: this server runs without --scheduling-policy priority. Shadow mode goes on asking and counting, "
            "but as it stands vLLM would ignore every priority."
        )
    elif host.engine_obeys is False:
        logger.error(
            "PARS hook: DOES NOTHING, because this server runs without --scheduling-policy priority, and vLLM then ignores "
            "every priority. Requests pass through untouched. Add --scheduling-policy priority, or take the hook away."
        )
    if host.is_tested() is False:
        logger.warning(
            "PARS hook: vLLM %s is outside the tested versions, %s to %s. It goes on; watch pars_hook_requests_total.",
            host.version,
            TESTED_MIN,
            TESTED_MAX,
        )
    if host.knows_header is None and settings.priority_place == "auto":
        logger.warning("PARS hook: cannot tell the version of vLLM; priorities go into the X-Vllm-Priority header.")
    if host.knows_header is False and settings.priority_place == "header":
        logger.warning(
            "PARS hook: vLLM %s does not read X-Vllm-Priority, which came with %s. Set PARS_HOOK_PRIORITY_PLACE to auto.",
            host.version,
            HEADER_SINCE,
        )


def hook_logger() -> logging.Logger:
    """Return the logger of the hook: a child of vLLM's where vLLM is loaded, since that one has a handler and the root has none."""
    return logging.getLogger(f"vllm.{_ROOT_LOGGER}" if "vllm" in sys.modules else _ROOT_LOGGER)


def version_numbers(version: object) -> tuple[int, int, int] | None:
    """Return the three numbers that "0.28.0rc1+cpu" begins with; None for anything else.

    A source build without tags calls itself 0.1.dev1+g1234: that says nothing about its age.
    """
    match = re.match(r"(\d{1,6})\.(\d{1,6})(?:\.(\d{1,6}))?", version) if isinstance(version, str) else None
    if match is None:
        return None
    numbers = (int(match[1]), int(match[2]), int(match[3] or 0))
    return numbers if numbers >= (0, 2, 0) else None


def _known_numbers(version: str) -> tuple[int, int, int]:
    numbers = version_numbers(version)
    assert numbers is not None, "bug: a version constant that does not parse"
    return numbers


def _attribute(owner: object, *path: str) -> Any:
    try:
        for name in path:
            owner = getattr(owner, name)
    except Exception:  # Somebody else's objects: a property may raise anything.
        return None
    return owner


def _engines(parallel: object) -> int | None:
    """With a load balancer of its own in front of each engine, or of each node, the others get none of these requests."""
    if _attribute(parallel, "data_parallel_external_lb") is True:
        return 1
    balanced_here = _attribute(parallel, "data_parallel_hybrid_lb") is True
    return _count(_attribute(parallel, "data_parallel_size_local" if balanced_here else "data_parallel_size"))


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
