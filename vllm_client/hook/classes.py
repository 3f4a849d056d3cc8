"""Traffic classes: a request's header or API key → a delay, so that batch work waits behind interactive work, for a bounded time."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

MAX_DELAY_MS = 86_400_000
"""A day. Whoever delays a class by more has most likely mixed up seconds and milliseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficClasses:
    """Which class a request belongs to. Checked when made; raises ValueError."""

    delays_ms: Mapping[str, int] = field(default_factory=dict)
    """Class → how much later its requests count as having arrived. The largest one is part of the starvation bound."""
    default: str | None = None
    """Class of requests that name none, or an unknown one. None: no delay."""
    header: str = "x-pars-class"
    """Request header that names the class, lower case. Clients can write it, so set it in a gateway, or use keys."""
    api_keys: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of an API key, in hex → class. Wins over the header, which still counts for a request whose key is not listed."""

    def __post_init__(self) -> None:
        for name, delay_ms in self.delays_ms.items():
            if isinstance(delay_ms, bool) or not isinstance(delay_ms, int) or not 0 <= delay_ms <= MAX_DELAY_MS:
                raise ValueError(f"delays_ms[{name!r}] must be a whole number from 0 to {MAX_DELAY_MS}, not {delay_ms!r}")
        if not self.header or self.header != self.header.lower():
            raise ValueError(f"header must be the name of a request header in lower case, not {self.header!r}")
        # Before any message that shows class names: in a table written the wrong way round those are keys.
        for digest in self.api_keys:
            if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
                raise ValueError("api_keys wants the SHA-256 of each key, 64 lower-case hex digits, never the key itself")
        unknown = {*self.api_keys.values(), *([self.default] if self.default is not None else [])} - set(self.delays_ms)
        if unknown:
            raise ValueError(f"not in delays_ms: {', '.join(sorted(unknown))}")

    def delay_ms(self, headers: Mapping[str, str]) -> int:
        """Return the delay of a request with these headers; names are lower case."""
        name = self._by_key(headers) if self.api_keys else None
        if name is None:
            name = headers.get(self.header)
        if name is None or name not in self.delays_ms:
            name = self.default
        return 0 if name is None else self.delays_ms[name]

    def _by_key(self, headers: Mapping[str, str]) -> str | None:
        # A bearer token, which alone vLLM's --api-key accepts, or else Anthropic's header, for a gateway that checks that.
        scheme, _, key = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key:
            key = headers.get("x-api-key", "")
        # surrogatepass: whatever a host made of odd bytes, no header raises here.
        return self.api_keys.get(hashlib.sha256(key.strip().encode(errors="surrogatepass")).hexdigest()) if key else None


NO_CLASSES = TrafficClasses()


def read_classes(path: str | Path) -> TrafficClasses:
    """Read {"delays_ms": {class: ms}, "default": class, "header": name, "api_keys": {sha256: class}} from a JSON file.

    Raises ValueError naming the file and what is wrong with it.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    known = {"delays_ms": dict, "default": str, "header": str, "api_keys": dict}
    if not isinstance(found, dict) or "delays_ms" not in found:
        raise ValueError(f"{path} must be an object with delays_ms and, if wanted, default, header, api_keys")
    if unknown := sorted(set(found) - set(known)):
        raise ValueError(f"{path} holds {', '.join(unknown)}; known are {', '.join(known)}")
    for name, value in found.items():
        if not isinstance(value, known[name]):
            raise ValueError(f"{path}: {name} must be {'an object' if known[name] is dict else 'text'}")
    if not all(isinstance(value, str) for value in found.get("api_keys", {}).values()):
        raise ValueError(f"{path}: api_keys must map digests to class names")
    try:
        return TrafficClasses(**{**found, "header": found.get("header", "x-pars-class").lower()})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
