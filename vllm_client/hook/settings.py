"""Every knob of the hook, in one frozen dataclass, read from PARS_HOOK_* variables: vLLM makes a middleware without arguments.

Each field carries its meaning, unit, what 0 means and its range; the table in docs/vllm.md is made from them.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_type_hints

from pars import DEFAULT_ADDRESS
from vllm_client.config import ClientConfig
from vllm_client.hook.classes import NO_CLASSES, TrafficClasses, read_classes
from vllm_client.hook.plugin import PLUGIN_VARIABLE
from vllm_client.priority import CLOCKED, DEFAULT_WINDOW_MS, WINDOW_BACKLOGS, PolicyName, PolicySettings
from vllm_client.scores import Tier

ENV_PREFIX = "PARS_HOOK_"

ClientPriority = Literal["keep", "combine", "override"]
PriorityPlace = Literal["auto", "header", "body"]
TierName = Literal["any", "encoder", "ngram"]

_DEFAULT_POLICY = PolicySettings()

_WANTED = {bool: "True or False", int: "a whole number", float: "a number", str: "text"}


class HookSettingsError(ValueError):
    """A setting that cannot be used. The message names it, its value and what would be right."""


def _setting(
    doc: str, *, default: Any, unit: str = "", zero: str = "", low: float | None = None, high: float | None = None
) -> Any:
    metadata = {"doc": doc, "unit": unit, "zero": zero, "low": low, "high": high}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HookSettings:
    """All settings, checked when made. Raises HookSettingsError."""

    address: str = _setting("where the sidecar listens: host:port or unix:/path", default=DEFAULT_ADDRESS)
    ranker: str = _setting("name of the ranker that is asked; empty: the sidecar's default", default="")
    tls_ca: str = _setting("PEM file with the CA of the sidecar's certificate; empty: plaintext", default="")
    tls_cert: str = _setting("PEM file with the certificate that the sidecar is shown, where it wants one", default="")
    tls_key: str = _setting("PEM file with the key of that certificate", default="")
    token_file: str = _setting(
        "file whose first line is the bearer token; without TLS only a sidecar on this machine is sent one", default=""
    )
    deadline_ms: float = _setting(
        "longest a request may be held for its score; later it goes on unscored",
        default=10.0,
        unit="milliseconds",
        low=0.1,
        high=60_000,
    )
    crowded_deadline_ms: float = _setting(
        "the same for a request that has to wait for its turn anyway: with more in flight than the engine runs at a time, the deadline "
        "grows with their number up to this",
        default=10_000.0,
        unit="milliseconds",
        zero="deadline_ms always",
        low=0,
        high=60_000,
    )
    tier: TierName = _setting(  # noqa: RUF009 - a string, and frozen
        "who scores; ngram is weaker and takes a fraction of a millisecond, for sidecars on a busy CPU", default="any"
    )
    shadow: bool = _setting("ask, measure and count, and leave every request as it is", default=False)
    sample_share: float = _setting(
        "share of the requests that are scored; the others count as middling", default=1.0, zero="none", low=0, high=1
    )
    gate_in_flight: int = _setting(
        "requests in flight in this API server below which nothing is asked, since nobody waits; "
        "-1: a quarter of what runs at a time where the server tells it, else 4",
        default=-1,
        unit="requests",
        zero="always ask",
        low=-1,
        high=1_000_000,
    )
    policy: PolicyName = _setting("how a priority is made, see the policies", default="ageing")  # noqa: RUF009 - as above
    window_ms: int = _setting(
        "how much later a shorter request may arrive and still go first: the starvation bound (cost; ageing too, while the queue is short)",
        default=DEFAULT_WINDOW_MS,
        unit="milliseconds",
        zero="first come, first served",
        low=0,
        high=86_400_000,
    )
    max_window_ms: int = _setting(
        f"how long the window may get: it is {WINDOW_BACKLOGS:g} times what the engine needs for the requests that wait, where that is "
        "longer; the starvation bound then (ageing)",
        default=_DEFAULT_POLICY.max_window_ms,
        unit="milliseconds",
        zero="window_ms always",
        low=0,
        high=86_400_000,
    )
    prefill_ms_per_token: float = _setting(
        "what a prompt token costs (cost)",
        default=_DEFAULT_POLICY.prefill_ms_per_token,
        unit="milliseconds",
        low=0,
        high=1_000_000,
    )
    decode_ms_per_token: float = _setting(
        "what a response token costs: one engine step (cost)",
        default=_DEFAULT_POLICY.decode_ms_per_token,
        unit="milliseconds",
        low=0,
        high=1_000_000,
    )
    stretch: float = _setting(
        "delay for each millisecond of expected cost (cost)",
        default=_DEFAULT_POLICY.stretch,
        unit="milliseconds",
        zero="first come, first served",
        low=0,
        high=1_000_000,
    )
    client_priority: ClientPriority = _setting(  # noqa: RUF009 - as above
        "what becomes of a priority the client set: kept as it is, which is before all of ours when it is small and has no "
        "starvation bound; added to ours; or overridden",
        default="keep",
    )
    client_step_ms: int = _setting(
        "what one unit of the client's priority is worth (combine)", default=1_000, unit="milliseconds", low=0, high=86_400_000
    )
    client_limit_ms: int = _setting(
        "the most a client's own priority can move it either way (combine)",
        default=20_000,
        unit="milliseconds",
        low=0,
        high=86_400_000,
    )
    classes_file: str = _setting("JSON file with traffic classes and their delays (ageing, cost); empty: none", default="")
    priority_place: PriorityPlace = _setting(  # noqa: RUF009 - as above
        "where the priority goes: the header of vLLM 0.28 and newer, the body field of any; auto asks the server",
        default="auto",
    )
    max_body_bytes: int = _setting(
        "largest body that is read for its prompt; larger ones count as middling",
        default=1_048_576,
        unit="bytes",
        low=1_024,
        high=1_073_741_824,
    )
    max_prompts: int = _setting(
        "prompts of one request that are scored; of a longer list, the first", default=16, low=1, high=256
    )
    max_asks: int = _setting(
        "questions to the sidecar that may be unanswered at a time", default=4_096, unit="questions", low=1, high=65_536
    )
    breaker_failures: int = _setting("failures in a row after which nothing is asked for a while", default=5, low=1, high=1_000)
    breaker_open_ms: int = _setting(
        "that while; then one question is tried", default=1_000, unit="milliseconds", low=1, high=3_600_000
    )
    log_interval_s: float = _setting(
        "least time between two lines of counts in the log",
        default=60.0,
        unit="seconds",
        zero="no such lines",
        low=0,
        high=86_400,
    )

    def __post_init__(self) -> None:
        kinds = get_type_hints(type(self))
        for field in dataclasses.fields(self):
            _check(field.name, getattr(self, field.name), kinds[field.name], field.metadata)
        if self.client_priority == "combine" and self.policy not in CLOCKED:
            raise HookSettingsError(
                f"client_priority is 'combine', which adds milliseconds, but policy {self.policy!r} is no clock; "
                f"choose a policy of {', '.join(sorted(CLOCKED))}, or keep or override"
            )
        try:
            self.client_config()
        except ValueError as error:
            raise HookSettingsError(str(error)) from None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "HookSettings":
        """Defaults, then PARS_HOOK_* variables. Raises HookSettingsError, for an unknown variable too: a typo would go unnoticed."""
        names = {ENV_PREFIX + field.name.upper(): field.name for field in dataclasses.fields(cls)}
        kinds = get_type_hints(cls)
        values = {}
        for variable, text in environment.items():
            if variable in names:
                values[names[variable]] = _parse(variable, kinds[names[variable]], text)
            elif variable.startswith(ENV_PREFIX) and variable != PLUGIN_VARIABLE:
                raise HookSettingsError(f"{variable} is not a setting; known are {', '.join(sorted(names))}")
        try:
            return cls(**values)
        except HookSettingsError as error:
            # The message begins with the field's name; who set a variable looks for that.
            field, _, rest = str(error).partition(" ")
            variable = ENV_PREFIX + field.upper()
            raise HookSettingsError(f"{variable} {rest}" if variable in names else str(error)) from None

    def client_config(self) -> ClientConfig:
        return ClientConfig(
            address=self.address,
            deadline_ms=self.deadline_ms,
            max_in_flight=self.max_asks,
            ranker=self.ranker,
            tls_ca=self.tls_ca,
            tls_cert=self.tls_cert,
            tls_key=self.tls_key,
            token_file=self.token_file,
        )

    def policy_settings(self) -> PolicySettings:
        return PolicySettings(
            window_ms=self.window_ms,
            max_window_ms=self.max_window_ms,
            prefill_ms_per_token=self.prefill_ms_per_token,
            decode_ms_per_token=self.decode_ms_per_token,
            stretch=self.stretch,
        )

    def asked_tier(self) -> Tier:
        return {"any": Tier.ANY, "encoder": Tier.ENCODER, "ngram": Tier.NGRAM}[self.tier]

    def traffic_classes(self) -> TrafficClasses:
        """Read `classes_file`. Raises HookSettingsError."""
        if not self.classes_file:
            return NO_CLASSES
        try:
            return read_classes(self.classes_file)
        except ValueError as error:
            raise HookSettingsError(f"{ENV_PREFIX}CLASSES_FILE: {error}") from error


def settings_table() -> str:
    """The table of docs/vllm.md: a Markdown row for each setting."""
    rows = ["| variable | meaning | default |", "|---|---|---|"]
    kinds = get_type_hints(HookSettings)
    for field in dataclasses.fields(HookSettings):
        about = field.metadata
        parts = [about["doc"]]
        if choices := get_args(kinds[field.name]):
            parts.append("one of " + ", ".join(f"`{choice}`" for choice in choices))
        if about["unit"]:
            parts.append(f"in {about['unit']}")
        if about["low"] is not None:
            parts.append(f"{about['low']:,} to {about['high']:,}")
        if about["zero"]:
            parts.append(f"0: {about['zero']}")
        rows.append(f"| `{ENV_PREFIX}{field.name.upper()}` | {'; '.join(parts)} | {_shown(field.default)} |")
    return "\n".join(rows) + "\n"


def _shown(value: Any) -> str:
    if value == "":
        return ""
    return f"`{int(value) if isinstance(value, bool) else value}`"


def _parse(variable: str, kind: Any, text: str) -> Any:
    if kind is bool:
        choices = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
        if text.lower() not in choices:
            raise HookSettingsError(f"{variable} is {text!r}, 1 or 0 is wanted")
        return choices[text.lower()]
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            raise HookSettingsError(f"{variable} is {text!r}, {_WANTED[kind]} is wanted") from None
    return text


def _check(name: str, value: Any, kind: Any, about: Mapping[str, Any]) -> None:
    if choices := get_args(kind):
        if value not in choices:
            raise HookSettingsError(f"{name} is {value!r}, one of {', '.join(choices)} is wanted")
        return
    # To Python True is a number, and "no" is true.
    if isinstance(value, bool) != (kind is bool) or not isinstance(value, (int, float) if kind is float else kind):
        raise HookSettingsError(f"{name} is {value!r}, {_WANTED[kind]} is wanted")
    # Written so that NaN fails too.
    if about["low"] is not None and not about["low"] <= value <= about["high"]:
        raise HookSettingsError(
            f"{name} is {value}, {about['low']:,} to {about['high']:,} {about['unit']} is the range".replace("  ", " ")
        )
