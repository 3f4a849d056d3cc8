"""Log lines as text and as JSON: what is in them, and that no value can pass for a field."""

import json
import logging
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from sidecar_process import StartSidecar
from sidecar_rig import WAIT_S

from pars.v1 import ranker_pb2, ranker_pb2_grpc
from sidecar.telemetry import logs
from sidecar.telemetry.logs import JsonFormatter


def record(message: object, *values: object, level: int = logging.INFO, exc_info: Any = None) -> logging.LogRecord:
    return logging.LogRecord("sidecar.test", level, "file.py", 1, message, values, exc_info)


def as_json(*parts: Any, **options: Any) -> dict[str, Any]:
    line = JsonFormatter().format(record(*parts, **options))
    assert "\n" not in line
    entry: dict[str, Any] = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    return entry


def test_a_line_says_when_how_bad_who_and_what() -> None:
    entry = as_json("started", level=logging.WARNING)
    time = datetime.fromisoformat(entry.pop("time"))
    assert time.tzinfo is UTC or time.utcoffset() == UTC.utcoffset(None)
    assert abs((datetime.now(UTC) - time).total_seconds()) < WAIT_S
    assert entry == {"level": "warning", "logger": "sidecar.test", "message": "started"}


@pytest.mark.parametrize(
    ("message", "values", "fields"),
    [
        ("serving address=%s rankers=%s", ("127.0.0.1:1", "a,b"), {"address": "127.0.0.1:1", "rankers": "a,b"}),
        ("workers=%d fixed_ms=%.3f", (2, 1.23456), {"workers": 2, "fixed_ms": 1.235}),
        ("100%% of %s name=%s", ("all", "x"), {"name": "x"}),
        ("path=%s", (Path("/run"),), {"path": "/run"}),
        ("%s", ("bundle=forged",), {}),
        ("name=%s", ('x level="debug" bundle=forged\nlogger=y',), {"name": 'x level="debug" bundle=forged\nlogger=y'}),
        ("time=%s message=%s", ("never", "mine"), {}),
        ("bundle=%s, before it bundle=%s", ("new", "old"), {"bundle": "new"}),
        ("share=%g", (float("nan"),), {"share": "nan"}),
        ("width=%*d", (5, 1), {}),
        ("prompt=%r", ("\ud800",), {"prompt": "\ud800"}),
    ],
    ids=[
        "text",
        "numbers, with the digits of the text",
        "percent signs and values without a name",
        "anything else is text",
        "a value is not looked into",
        "not even an evil one",
        "what every line has stays",
        "the first of two counts",
        "not a number is no JSON number",
        "a star is left alone",
        "text that is not Unicode",
    ],
)
def test_named_values_are_fields(message: str, values: tuple[object, ...], fields: dict[str, object]) -> None:
    entry = as_json(message, *values)
    assert entry.pop("message") == message % values
    assert entry.pop("time") != "never"
    assert entry == fields | {"level": "info", "logger": "sidecar.test"}


def test_messages_that_are_no_format_strings() -> None:
    assert as_json(ValueError("a=%s"))["message"] == "a=%s"
    assert as_json("a=%(b)s", {"b": 1})["message"] == "a=1"


def test_an_exception_is_one_field() -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        entry = as_json("failed", exc_info=sys.exc_info())
    assert entry["exception"].startswith("Traceback")
    assert entry["exception"].endswith("ValueError: broken")


@contextmanager
def bare_root() -> Iterator[None]:
    """The root logger without handlers, pytest's own included, and as it was afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers[:] = []
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.getLogger("grpc").setLevel(logging.NOTSET)


class TestConfigured:
    def test_text(self, capsys: pytest.CaptureFixture[str]) -> None:
        with bare_root():
            logs.configure("info", "text")
            logging.getLogger("sidecar.x").info("swapped bundle=%s", "1234")
            logging.getLogger("sidecar.x").debug("not shown")
            logs.last_words("cannot start: no")
        line, last = capsys.readouterr().err.splitlines()
        assert re.fullmatch(r"[\d-]+ [\d:,]+ INFO sidecar\.x: swapped bundle=1234", line)
        assert last == "cannot start: no"

    def test_json(self, capsys: pytest.CaptureFixture[str]) -> None:
        with bare_root():
            logs.configure("warning", "json")
            logging.getLogger("asyncio").warning("noise of others")
            logging.getLogger("grpc._cython.cygrpc").error("what a stranger sent")
            logging.getLogger("sidecar.x").info("not shown")
            logs.last_words("cannot start: 100% no")
        lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
        assert [(line["logger"], line["level"], line["message"]) for line in lines] == [
            ("asyncio", "warning", "noise of others"),
            ("sidecar", "critical", "cannot start: 100% no"),
        ]


def test_a_life_in_json(start_sidecar: StartSidecar, tiny_bundle: Path) -> None:
    """Every line of a whole life is a JSON object; a call adds none, and no prompt is in any."""
    sidecar = start_sidecar(tiny_bundle, "--address", "127.0.0.1:0", "--log-format", "json")
    address = sidecar.wait_for(r'"address": "([^"]+)"').group(1)
    before = len(sidecar.lines)
    with grpc.insecure_channel(address) as channel:
        stub = ranker_pb2_grpc.RankerServiceStub(channel)
        for _ in range(3):
            stub.Score(ranker_pb2.ScoreRequest(prompts=["very secretprompt"]), timeout=WAIT_S)
        with pytest.raises(grpc.RpcError):
            stub.Score(ranker_pb2.ScoreRequest(prompts=["secretprompt"], ranker="nobody"), timeout=WAIT_S)
    assert len(sidecar.lines) == before
    sidecar.signal(signal.SIGTERM)
    assert sidecar.exit_code() == 0
    entries = [json.loads(line) for line in sidecar.lines]
    assert [entry["message"] for entry in entries[-2:]] == ["SIGTERM: stopping", "stopped"]
    ready = next(entry for entry in entries if entry["message"].startswith("ranker ready"))
    assert ready["name"] == "default"
    assert re.fullmatch(r"[0-9a-f]{16}", ready["bundle"])
    assert isinstance(ready["workers"], int)
    assert isinstance(ready["fixed_ms"], float)
    assert "secretprompt" not in "".join(sidecar.lines)


def test_a_start_that_fails_says_so_in_json(start_sidecar: StartSidecar, tmp_path: Path) -> None:
    sidecar = start_sidecar(tmp_path / "nothing", "--log-format", "json")
    assert sidecar.exit_code() == 1
    (entry,) = [json.loads(line) for line in sidecar.lines]
    assert entry["level"] == "critical"
    assert entry["message"].startswith("sidecar cannot start: bundle ")
