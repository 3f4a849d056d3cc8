"""What the hook learns from its host, from objects shaped like vLLM's and from objects that are not."""

import logging
import sys
import types
from types import SimpleNamespace

import pytest

from vllm_client.hook.host import TESTED_MAX, TESTED_MIN, Host, hook_logger, inspect_host, tell_about, version_numbers
from vllm_client.hook.settings import HookSettings


def app_scope(policy="priority", max_num_seqs=64, api_servers=1):
    config = SimpleNamespace(
        scheduler_config=SimpleNamespace(policy=policy, max_num_seqs=max_num_seqs),
        parallel_config=SimpleNamespace(_api_process_count=api_servers),
    )
    return {"type": "lifespan", "app": SimpleNamespace(state=SimpleNamespace(vllm_config=config))}


@pytest.fixture
def vllm(monkeypatch):
    module = types.ModuleType("vllm")
    module.__version__ = "0.32.0+cpu"
    monkeypatch.setitem(sys.modules, "vllm", module)
    return module


@pytest.fixture
def no_vllm(monkeypatch):
    monkeypatch.delitem(sys.modules, "vllm", raising=False)


def test_a_vllm_of_today(vllm):
    assert inspect_host(app_scope(api_servers=2)) == Host(
        engine_obeys=True, max_num_seqs=64, api_servers=2, knows_header=True, version="0.32.0+cpu"
    )
    assert inspect_host(app_scope(policy="fcfs")).engine_obeys is False


@pytest.mark.parametrize(
    ("version", "knows_header", "tested"),
    [
        ("0.27.0", False, False),
        (TESTED_MIN, False, True),
        ("0.27.1.dev3+g1234", False, True),
        ("0.28.0rc1", True, True),
        ("0.28", True, True),
        (TESTED_MAX, True, True),
        ("0.32.1", True, False),
        ("1.0.0", True, False),
        ("0.1.dev1+g1234", None, None),
        ("dev", None, None),
        ("", None, None),
        (None, None, None),
        (32, None, None),
        ("9" * 5000, None, None),
    ],
)
def test_what_a_version_tells(vllm, version, knows_header, tested):
    vllm.__version__ = version
    host = inspect_host(app_scope())
    assert (host.knows_header, host.is_tested()) == (knows_header, tested)


def test_the_bounds_themselves_are_versions():
    assert version_numbers(TESTED_MIN) < version_numbers(TESTED_MAX)


class Thorny:
    """Raises at any attribute."""

    def __getattr__(self, name):
        raise RuntimeError(name)


@pytest.mark.parametrize(
    "scope",
    [
        {},
        {"app": None},
        {"app": SimpleNamespace()},
        {"app": SimpleNamespace(state=SimpleNamespace())},
        {"app": SimpleNamespace(state=SimpleNamespace(vllm_config=None))},
        {"app": Thorny()},
        {"app": SimpleNamespace(state=SimpleNamespace(vllm_config=Thorny()))},
        app_scope(policy=None, max_num_seqs="64", api_servers=None),
        app_scope(policy=3, max_num_seqs=0, api_servers=True),
        app_scope(policy=Thorny(), max_num_seqs=-1, api_servers=2.0),
    ],
)
def test_any_surprise_reads_as_unknown(no_vllm, scope):
    assert inspect_host(scope) == Host()


def test_a_vllm_without_a_version(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", Thorny())
    assert inspect_host({}) == Host()


@pytest.mark.parametrize(
    ("setting", "max_num_seqs", "api_servers", "gate"),
    [
        (-1, None, None, 4),
        (-1, 256, None, 64),
        (-1, 256, 4, 16),
        (-1, 8, 4, 1),
        (-1, 1, 1, 1),
        (0, 256, 1, 0),
        (7, 256, 4, 7),
    ],
)
def test_the_load_gate(setting, max_num_seqs, api_servers, gate):
    assert Host(max_num_seqs=max_num_seqs, api_servers=api_servers).gate_in_flight(setting) == gate


def test_the_logger_is_one_that_shows(vllm, monkeypatch):
    assert hook_logger().name == "vllm.vllm_client"
    monkeypatch.delitem(sys.modules, "vllm")
    assert hook_logger().name == "vllm_client"


def told(host, caplog, **settings):
    with caplog.at_level(logging.INFO, logger="test"):
        tell_about(host, HookSettings(**settings), logging.getLogger("test"))
    return [(record.levelname, record.getMessage()) for record in caplog.records]


def test_a_host_that_fits_gets_one_line(caplog):
    host = Host(engine_obeys=True, max_num_seqs=64, api_servers=1, knows_header=True, version=TESTED_MAX)
    ((level, line),) = told(host, caplog, address="unix:/run/pars.sock")
    assert level == "INFO"
    assert "unix:/run/pars.sock" in line
    assert "16 requests" in line


@pytest.mark.parametrize(
    ("host", "settings", "level", "words"),
    [
        pytest.param(Host(engine_obeys=False, knows_header=True), {}, "ERROR", "--scheduling-policy priority", id="fcfs"),
        pytest.param(Host(engine_obeys=False, knows_header=True), {"shadow": True}, "WARNING", "Shadow mode", id="fcfs in shadow"),
        pytest.param(Host(knows_header=True, version="0.99.0"), {}, "WARNING", "0.99.0", id="too new"),
        pytest.param(Host(knows_header=False, version="0.20.2"), {}, "WARNING", "0.20.2", id="too old"),
        pytest.param(Host(), {}, "WARNING", "X-Vllm-Priority", id="unknown version"),
        pytest.param(
            Host(knows_header=False, version=TESTED_MIN), {"priority_place": "header"}, "WARNING", "PRIORITY_PLACE", id="wrong place"
        ),
    ],
)  # fmt: skip
def test_what_an_operator_must_know_is_one_more_line(host, settings, level, words, caplog):
    _, (found_level, line) = told(host, caplog, **settings)
    assert found_level == level
    assert words in line
