"""Where settings come from: defaults → environment → flags. How one is described, parsed, held to its range and listed.

Knows nothing of any single setting: everything is read off the dataclass's fields.
"""

import argparse
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sidecar.errors import SettingsError

ENV_PREFIX = "PARS_SIDECAR_"

PRINT_FLAG = "--print-settings"

_SWITCH = {"on": True, "true": True, "1": True, "off": False, "false": False, "0": False}


def setting(
    doc: str,
    *,
    default: Any,
    unit: str = "",
    zero: str = "",
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """A dataclass field with its description. zero: what 0 means. low, high: the sane range, both ends included."""
    metadata = {"doc": doc, "unit": unit, "zero": zero, "low": low, "high": high, "choices": choices}
    return dataclasses.field(default=default, metadata=metadata)


def given(settings: type[Any], arguments: Sequence[str], environment: Mapping[str, str]) -> dict[str, Any]:
    """The values that differ from the defaults because somebody said so; a flag beats a variable. Raises SettingsError."""
    return from_environment(settings, environment) | from_flags(settings, arguments)


def from_environment(settings: type[Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """The settings that PARS_SIDECAR_* variables give. Raises SettingsError for an unknown one: a typo would go unnoticed."""
    fields = {variable_of(field): field for field in dataclasses.fields(settings)}
    values = {}
    for name, text in environment.items():
        if name in fields:
            values[fields[name].name] = _parse(name, fields[name], text)
        elif name.startswith(ENV_PREFIX):
            raise SettingsError(f"{name} is not a setting; known are {', '.join(sorted(fields))}")
    return values


def from_flags(settings: type[Any], arguments: Sequence[str]) -> dict[str, Any]:
    """The settings that command-line flags give."""
    flags = argparse.ArgumentParser(
        prog="python -m sidecar",
        description="Serve a bundle over gRPC. Every flag can also be set as an environment variable; the flag wins.",
        allow_abbrev=False,
    )
    flags.add_argument(
        PRINT_FLAG, action="store_true", help="list every setting with its value, where that came from, and stop"
    )
    for field in dataclasses.fields(settings):
        flags.add_argument(flag_of(field), metavar=field.metadata["unit"].upper() or None, help=help_of(field))
    texts = vars(flags.parse_args(arguments))
    return {
        field.name: _parse(flag_of(field), field, texts[field.name])
        for field in dataclasses.fields(settings)
        if texts[field.name] is not None
    }


def table(settings: type[Any], arguments: Sequence[str], environment: Mapping[str, str]) -> Iterator[str]:
    """Every setting as one row of a Markdown table: its value here, where that came from, its default and what it means."""
    from_variables, from_arguments = from_environment(settings, environment), from_flags(settings, arguments)
    yield "| setting | value | source | default | unit | meaning |"
    yield "|---|---|---|---|---|---|"
    for field in dataclasses.fields(settings):
        value, source = field.default, "default"
        if field.name in from_variables:
            value, source = from_variables[field.name], variable_of(field)
        if field.name in from_arguments:
            value, source = from_arguments[field.name], flag_of(field)
        cells = (field.name, _shown(value), source, _shown(field.default), field.metadata["unit"], _meaning(field))
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def flag_of(field: "dataclasses.Field[Any]") -> str:
    return "--" + field.name.replace("_", "-")


def variable_of(field: "dataclasses.Field[Any]") -> str:
    return ENV_PREFIX + field.name.upper()


def help_of(field: "dataclasses.Field[Any]") -> str:
    """One line about a setting: meaning, unit, zero, range or choices, default, variable."""
    parts = [_meaning(field)]
    if field.metadata["unit"]:
        parts.insert(1, f"in {field.metadata['unit']}")
    if field.default != "":
        parts.append(f"default {_shown(field.default)}")
    return "; ".join(parts) + f" [{variable_of(field)}]"


def check_range(field: "dataclasses.Field[Any]", value: Any) -> None:
    """Raise SettingsError for a value that is none of the choices or out of range."""
    about = field.metadata
    if about["choices"] and value not in about["choices"]:
        raise SettingsError(f"{field.name} is {value!r}, one of {', '.join(about['choices'])} is wanted")
    # Written so that NaN fails too.
    if about["low"] is not None and not about["low"] <= value <= about["high"]:
        raise SettingsError(f"{field.name} is {value}, {about['low']} to {about['high']} {about['unit']} is the range")


def _meaning(field: "dataclasses.Field[Any]") -> str:
    about = field.metadata
    parts = [about["doc"]]
    if about["choices"]:
        parts.append("one of " + ", ".join(about["choices"]))
    if about["low"] is not None:
        parts.append(f"{about['low']} to {about['high']}")
    if about["zero"]:
        parts.append(f"0: {about['zero']}")
    return "; ".join(parts)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)


def _parse(source: str, field: "dataclasses.Field[Any]", text: str) -> Any:
    kind: type = type(field.default)
    if kind is bool:
        if text.lower() not in _SWITCH:
            raise SettingsError(f"{source} is {text!r}, on or off is wanted")
        return _SWITCH[text.lower()]
    try:
        return kind(text)
    except ValueError as error:
        raise SettingsError(f"{source} is {text!r}, {'a whole number' if kind is int else 'a number'} is wanted") from error
