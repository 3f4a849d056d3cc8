"""Every knob of the sidecar, in one frozen dataclass: defaults → environment → flags → validate.

Each field carries its unit, what 0 means and its sane range; --help is made from them.
"""

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pars import DEFAULT_ADDRESS
from sidecar.address import check_address
from sidecar.cores import allotted_cores
from sidecar.errors import SettingsError
from sidecar.scorer import ProviderChoice

ENV_PREFIX = "PARS_SIDECAR_"

CUDA_WORKERS = 2
"""One run computes while the next one is prepared; the device itself runs them one after the other."""


def _setting(
    doc: str,
    *,
    default: Any,
    unit: str = "",
    zero: str = "",
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    metadata = {"doc": doc, "unit": unit, "zero": zero, "low": low, "high": high, "choices": choices}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """All settings, validated. Fields without a unit have none."""

    bundle: str = _setting("folder of the bundle to serve; required", default="")
    address: str = _setting(
        "where to listen: host:port (port 0: any free one, the log says which) or unix:/path", default=DEFAULT_ADDRESS
    )
    provider: ProviderChoice = _setting(  # noqa: RUF009 - a string, and frozen
        "execution provider; auto: CUDA where it works, else CPU; cuda: that or no start",
        default="auto",
        choices=("auto", "cpu", "cuda"),
    )
    workers: int = _setting(
        "model threads, each running its own batches",
        default=0,
        unit="threads",
        zero=f"one per core this process may use; {CUDA_WORKERS} on CUDA",
        low=0,
        high=256,
    )
    threads_per_worker: int = _setting(
        "cores one batch may use; more than 1 helps lone prompts and costs throughput",
        default=0,
        unit="threads",
        zero="the allotted cores divided by the workers",
        low=0,
        high=256,
    )
    max_prompts_per_call: int = _setting("prompts one call may bring", default=256, unit="prompts", low=1, high=65_536)
    max_waiting_prompts: int = _setting(
        "prompts admitted and unanswered, over all calls; more are refused at once",
        default=4_096,
        unit="prompts",
        low=1,
        high=1_048_576,
    )
    max_batch_prompts: int = _setting("prompts of one model run", default=128, unit="prompts", low=1, high=4_096)
    max_batch_tokens: int = _setting(
        "prompts times longest prompt of one model run; bounds its memory",
        default=8_192,
        unit="tokens",
        low=4,
        high=16_777_216,
    )
    window_prompts: int = _setting(
        "oldest waiting prompts that are sorted by length together", default=128, unit="prompts", low=1, high=1_024
    )
    max_stream_items: int = _setting(
        "unanswered items per stream; then the stream is not read on", default=64, unit="items", low=1, high=65_536
    )
    max_message_bytes: int = _setting(
        "largest message received or sent", default=4 * 1024 * 1024, unit="bytes", low=1_024, high=2**31 - 1
    )
    grace_s: float = _setting(
        "how long admitted calls may still finish after a stop signal",
        default=10.0,
        unit="seconds",
        zero="not at all",
        low=0,
        high=3_600,
    )
    log_level: str = _setting("least level logged", default="info", choices=("debug", "info", "warning", "error"))

    @classmethod
    def load(cls, arguments: Sequence[str], environment: Mapping[str, str]) -> "Settings":
        """Defaults, then PARS_SIDECAR_* variables, then flags; validated. Raises SettingsError."""
        values = from_environment(environment) | from_flags(arguments)
        settings = cls(**values)
        settings.validate()
        return settings

    def validate(self) -> None:
        """Raise SettingsError for a value out of range and for settings that cannot work together."""
        for field in dataclasses.fields(self):
            _check_range(field, getattr(self, field.name))
        if not self.bundle:
            raise SettingsError(f"no bundle: pass --bundle FOLDER or set {ENV_PREFIX}BUNDLE")
        check_address(self.address)
        if self.max_prompts_per_call > self.max_waiting_prompts:
            raise SettingsError(
                f"max_prompts_per_call {self.max_prompts_per_call} exceeds max_waiting_prompts {self.max_waiting_prompts}: "
                "such a call could never be admitted; lower the one or raise the other"
            )

    def check_fits(self, max_tokens: int) -> None:
        """Raise SettingsError when the bundle's longest prompt does not fit into a batch."""
        if self.max_batch_tokens < max_tokens:
            raise SettingsError(
                f"max_batch_tokens {self.max_batch_tokens} is below the {max_tokens} tokens the bundle reads per prompt; "
                f"raise it to at least {max_tokens}, or export the bundle with a smaller max_tokens"
            )

    @property
    def bundle_folder(self) -> Path:
        return Path(self.bundle)

    def cpu_threads(self) -> tuple[int, int]:
        """(workers, threads per worker) on a CPU, the zeros filled in from the cores this process may use."""
        cores = allotted_cores()
        workers = self.workers or cores
        return workers, self.threads_per_worker or max(cores // workers, 1)


def from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    """The settings that PARS_SIDECAR_* variables give. Raises SettingsError for an unknown one: a typo would go unnoticed."""
    fields = {ENV_PREFIX + field.name.upper(): field for field in dataclasses.fields(Settings)}
    values = {}
    for name, text in environment.items():
        if name in fields:
            values[fields[name].name] = _parse(name, fields[name], text)
        elif name.startswith(ENV_PREFIX):
            raise SettingsError(f"{name} is not a setting; known are {', '.join(sorted(fields))}")
    return values


def from_flags(arguments: Sequence[str]) -> dict[str, Any]:
    """The settings that command-line flags give."""
    flags = argparse.ArgumentParser(
        prog="python -m sidecar",
        description="Serve a bundle over gRPC. Every flag can also be set as an environment variable; the flag wins.",
        allow_abbrev=False,
    )
    for field in dataclasses.fields(Settings):
        flags.add_argument(flag_of(field), metavar=field.metadata["unit"].upper() or None, help=help_of(field))
    given = {name: text for name, text in vars(flags.parse_args(arguments)).items() if text is not None}
    return {
        field.name: _parse(flag_of(field), field, given[field.name])
        for field in dataclasses.fields(Settings)
        if field.name in given
    }


def flag_of(field: "dataclasses.Field[Any]") -> str:
    return "--" + field.name.replace("_", "-")


def help_of(field: "dataclasses.Field[Any]") -> str:
    """One line about a setting: meaning, unit, zero, range or choices, default, variable."""
    about = field.metadata
    parts = [about["doc"]]
    if about["unit"]:
        parts.append(f"in {about['unit']}")
    if about["choices"]:
        parts.append("one of " + ", ".join(about["choices"]))
    if about["low"] is not None:
        parts.append(f"{about['low']} to {about['high']}")
    if about["zero"]:
        parts.append(f"0: {about['zero']}")
    if field.default != "":
        parts.append(f"default {field.default}")
    return "; ".join(parts) + f" [{ENV_PREFIX}{field.name.upper()}]"


def _parse(source: str, field: "dataclasses.Field[Any]", text: str) -> Any:
    kind: type = type(field.default)
    try:
        return kind(text)
    except ValueError as error:
        raise SettingsError(f"{source} is {text!r}, {'a whole number' if kind is int else 'a number'} is wanted") from error


def _check_range(field: "dataclasses.Field[Any]", value: Any) -> None:
    about = field.metadata
    if about["choices"] and value not in about["choices"]:
        raise SettingsError(f"{field.name} is {value!r}, one of {', '.join(about['choices'])} is wanted")
    # Written so that NaN fails too.
    if about["low"] is not None and not about["low"] <= value <= about["high"]:
        raise SettingsError(f"{field.name} is {value}, {about['low']} to {about['high']} {about['unit']} is the range")
