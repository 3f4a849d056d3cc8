"""Settings: defaults → environment → flags → validate; addresses and cores."""

import dataclasses
import socket
from pathlib import Path

import pytest

from pars import DEFAULT_ADDRESS
from sidecar import settings_source
from sidecar.address import check_address, clear_stale_socket, real_address
from sidecar.cores import allotted_cores
from sidecar.errors import AddressError, SettingsError
from sidecar.settings import Settings
from sidecar.settings_source import ENV_PREFIX, flag_of, help_of


def test_the_defaults_are_valid() -> None:
    settings = Settings.load(["--bundle", "b"], {})
    assert settings == Settings(bundle="b")
    assert settings.address == DEFAULT_ADDRESS
    assert settings.bundle_folders() == {"default": Path("b")}


def test_the_environment_beats_defaults_and_flags_beat_the_environment() -> None:
    environment = {"PARS_SIDECAR_BUNDLE": "env", "PARS_SIDECAR_GRACE_S": "2.5", "PARS_SIDECAR_WORKERS": "3", "PATH": "/bin"}
    settings = Settings.load(["--workers", "4", "--address=unix:/run/pars.sock"], environment)
    assert settings == Settings(bundle="env", grace_s=2.5, workers=4, address="unix:/run/pars.sock")


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        ([], {}, "no bundle: pass --bundle FOLDER or set PARS_SIDECAR_BUNDLE"),
        (["--workers", "many"], {}, "--workers is 'many', a whole number is wanted"),
        ([], {"PARS_SIDECAR_GRACE_S": "soon"}, "PARS_SIDECAR_GRACE_S is 'soon', a number is wanted"),
        ([], {"PARS_SIDECAR_WORKER": "2"}, "PARS_SIDECAR_WORKER is not a setting; known are PARS_SIDECAR_ADDRESS"),
        (["--workers", "-1"], {}, "workers is -1, 0 to 256 threads is the range"),
        (["--grace-s", "nan"], {}, "grace_s is nan"),
        (["--provider", "tpu"], {}, "provider is 'tpu', one of auto, cpu, cuda is wanted"),
        (["--bundle", "b", "--address", "nowhere"], {}, "'nowhere' is neither host:port nor unix:/path"),
        (["--bundle", "b", "--max-waiting-prompts", "100"], {}, "max_prompts_per_call 256 exceeds max_waiting_prompts 100"),
    ],
    ids=[
        "no bundle",
        "no number",
        "no number in the environment",
        "a misspelt variable",
        "out of range",
        "not a number",
        "no such choice",
        "no address",
        "two that cannot work together",
    ],
)
def test_a_wrong_setting_is_refused(arguments: list[str], environment: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Settings.load(arguments, environment)


def test_a_batch_too_small_for_the_bundle_is_refused_with_both_ways_out() -> None:
    settings = Settings(bundle="b", max_batch_tokens=64)
    settings.check_fits(64)
    with pytest.raises(SettingsError, match=r"raise it to at least 128, or export the bundle with a smaller max_tokens"):
        settings.check_fits(128)


def test_every_setting_says_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        Settings.load(["--help"], {})
    shown = " ".join(capsys.readouterr().out.split())
    for field in dataclasses.fields(Settings):
        assert flag_of(field) in shown
        assert f"[{ENV_PREFIX}{field.name.upper()}]" in help_of(field)
        assert field.metadata["doc"]
        if isinstance(field.default, int | float) and not isinstance(field.default, bool):
            assert field.metadata["unit"], f"{field.name} has no unit"
            assert field.metadata["low"] <= field.default <= field.metadata["high"]
            assert bool(field.metadata["zero"]) == (field.metadata["low"] == 0), f"{field.name} must say what 0 means"


def test_the_table_says_where_each_value_came_from() -> None:
    rows = list(settings_source.table(Settings, ["--workers", "3", "--tier-fallback", "off"], {"PARS_SIDECAR_GRACE_S": "2"}))
    cells = {row.split("|")[1].strip(): [cell.strip() for cell in row.split("|")[2:6]] for row in rows[2:]}
    assert list(cells) == [field.name for field in dataclasses.fields(Settings)]
    assert cells["workers"] == ["3", "--workers", "0", "threads"]
    assert cells["grace_s"] == ["2.0", "PARS_SIDECAR_GRACE_S", "10.0", "seconds"]
    assert cells["tier_fallback"] == ["off", "--tier-fallback", "on", ""]
    assert cells["max_batch_prompts"] == ["128", "default", "128", "prompts"]


@pytest.mark.parametrize(
    ("workers", "threads_per_worker", "expected"),
    [(0, 0, (4, 1)), (1, 0, (1, 4)), (3, 0, (3, 1)), (8, 0, (8, 1)), (2, 3, (2, 3))],
)
def test_workers_and_threads_fill_the_cores(
    monkeypatch: pytest.MonkeyPatch, workers: int, threads_per_worker: int, expected: tuple[int, int]
) -> None:
    monkeypatch.setattr("sidecar.settings.allotted_cores", lambda: 4)
    settings = Settings(bundle="b", workers=workers, threads_per_worker=threads_per_worker)
    assert settings.cpu_threads() == expected


@pytest.mark.parametrize(
    ("cpu_max", "cores"),
    [("max 100000", 8), ("250000 100000", 2), ("50000 100000", 1), ("1600000 100000", 8), ("junk", 8), (None, 8)],
    ids=["no quota", "two and a half cores", "half a core", "more than the machine", "junk", "no cgroup"],
)
def test_a_containers_quota_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cpu_max: str | None, cores: int) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)))
    if cpu_max is not None:
        (tmp_path / "cpu.max").write_text(cpu_max)
    assert allotted_cores(tmp_path / "cpu.max") == cores


@pytest.mark.parametrize("address", ["127.0.0.1:0", "localhost:50151", "[::1]:1", "unix:/run/pars.sock"])
def test_good_addresses(address: str) -> None:
    check_address(address)


@pytest.mark.parametrize(
    "address", ["", "host", "host:", ":1", "host:port", "host:65536", "host:-1", "host:²", "unix:", "unix:pars.sock"]
)
def test_bad_addresses(address: str) -> None:
    with pytest.raises(SettingsError, match="address"):
        check_address(address)


def test_the_real_address_has_the_real_port() -> None:
    assert real_address("[::1]:0", 1234) == "[::1]:1234"
    assert real_address("unix:/a", 1) == "unix:/a"


class TestStaleSocket:
    def test_one_that_nobody_listens_on_is_removed(self, tmp_path: Path) -> None:
        path = tmp_path / "s"
        with socket.socket(socket.AF_UNIX) as left_behind:
            left_behind.bind(str(path))
        clear_stale_socket(f"unix:{path}")
        assert not path.exists()

    def test_one_that_is_listened_on_is_left_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "s"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            with pytest.raises(AddressError, match="another process listens there"):
                clear_stale_socket(f"unix:{path}")
        assert path.exists()

    def test_a_file_is_left_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "precious"
        path.write_text("data")
        with pytest.raises(AddressError, match="is not a socket"):
            clear_stale_socket(f"unix:{path}")
        assert path.read_text() == "data"

    def test_nothing_there_is_fine(self, tmp_path: Path) -> None:
        clear_stale_socket(f"unix:{tmp_path / 's'}")
        clear_stale_socket("127.0.0.1:50151")
