"""Log lines, as text or as one JSON object each, on stderr. One line per state change; calls are counted, not logged.

`key=%s` in a log call's format string becomes a field in JSON. It is read off the format string and never off the values, so that
no value, whatever it contains, can pass for a field. What native libraries write to stderr themselves (gRPC's core, ONNX Runtime)
does not come through here and stays text: it is rare, and it is what one wants to see when the process dies.
"""

import json
import logging
import math
import re
import sys
from datetime import UTC, datetime
from typing import Literal

LogFormat = Literal["text", "json"]

TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

_CONVERSION = re.compile(r"(?:([A-Za-z_]\w*)=)?(%[-#0 +]*\d*(?:\.\d+)?[a-zA-Z%])")


def configure(level: str, log_format: LogFormat) -> None:
    """Set up the root logger. Called once, by the composition root."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else logging.Formatter(TEXT))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    # What gRPC logs through Python is what broken clients sent, headers quoted, twenty lines a call. Strangers must not write into
    # our log, and a token that is no ASCII must not end up there. That its server ended by itself is raised, see Server.ended.
    logging.getLogger("grpc").setLevel(logging.CRITICAL)


def last_words(text: str) -> None:
    """Say on stderr why the process ends: a JSON line where logs are JSON, else the bare text."""
    if any(isinstance(handler.formatter, JsonFormatter) for handler in logging.root.handlers):
        logging.getLogger("sidecar").critical("%s", text)
    else:
        print(text, file=sys.stderr)


class JsonFormatter(logging.Formatter):
    """time (UTC, ISO 8601), level, logger, message, the message's fields, and exception with its traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name, value in fields_of(record):
            entry.setdefault(name, value)
        if record.exc_info:
            entry.setdefault("exception", self.formatException(record.exc_info))
        return json.dumps(entry)


def fields_of(record: logging.LogRecord) -> list[tuple[str, object]]:
    """The named values of a record, in their order. A float has the digits that the format string gives it."""
    if not isinstance(record.args, tuple) or not isinstance(record.msg, str):
        return []
    conversions = [match for match in _CONVERSION.finditer(record.msg) if match[2] != "%%"]
    if len(conversions) != len(record.args):
        return []  # a star or the like in the format string, which we do not use; others may
    return [(match[1], _value(match[2], value)) for match, value in zip(conversions, record.args, strict=True) if match[1]]


def _value(conversion: str, value: object) -> object:
    if isinstance(value, int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return float(conversion % value)
    return str(value)
