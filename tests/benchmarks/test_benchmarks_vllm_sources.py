"""What a kept run depends on among the sources, and how the queue is watched while it lasts."""

import http.server
import json
import shutil
import sys
import threading
import time
from pathlib import Path

import pytest

from benchmarks.bench_vllm.process import VllmInstallation
from benchmarks.bench_vllm.queue import QueueSampler
from benchmarks.bench_vllm.site import what_scores
from benchmarks.bench_vllm.sources import DRIVERS, content_hash, driver_sources, sidecar_sources
from benchmarks.process import ProcessError
from benchmarks.stamp import REPOSITORY
from pars.v1 import bundle_pb2
from sidecar.bundle import open_bundle


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """What runs depend on, and a little more, in another place."""
    ignored = shutil.ignore_patterns("__pycache__", "peers", "quality", "results", "simulator")
    for name in ("vllm_client", "proto/pars", "sidecar", "benchmarks"):
        shutil.copytree(REPOSITORY / name, tmp_path / name, ignore=ignored)
    return tmp_path


def test_only_what_drives_a_run_matters(copied: Path) -> None:
    """1. not where it is 2. not documents, results, caches, other benchmarks 3. not what is done with runs afterwards 4. the rest."""
    drivers, sidecar = driver_sources(), sidecar_sources()
    assert (driver_sources(copied), sidecar_sources(copied)) == (drivers, sidecar)

    (copied / "vllm_client" / "README.md").write_text("text")
    (copied / "vllm_client" / "__pycache__").mkdir()
    (copied / "vllm_client" / "__pycache__" / "x.cpython-311.pyc").write_bytes(b"x")
    for name in ("figures", "rows", "report", "plan", "arms", "new"):
        (copied / "benchmarks" / "bench_vllm" / f"{name}.py").write_text("changed = True\n")
    assert (driver_sources(copied), sidecar_sources(copied)) == (drivers, sidecar)

    seen = {drivers}
    changed = [
        *(f"benchmarks/bench_vllm/{name}.py" for name in DRIVERS),
        "benchmarks/replay.py",
        "vllm_client/priority.py",
        "vllm_client/new.py",
        "proto/pars/text.py",
    ]
    for place in changed:
        path = copied / place
        path.write_text((path.read_text() if path.exists() else "") + "\nchanged = True\n")
        seen.add(driver_sources(copied))
    assert len(seen) == 1 + len(changed)
    assert sidecar_sources(copied) == sidecar
    driven = driver_sources(copied)
    for place in ("sidecar/batching.py", "proto/pars/v1/bundle_pb2.py"):
        before = sidecar_sources(copied)
        (copied / place).write_text("changed = True\n")
        assert sidecar_sources(copied) != before
    assert driver_sources(copied) == driven


def test_a_bundle_is_what_it_scores_and_not_who_exported_it(tiny_bundle: Path) -> None:
    """What the exporting machine measured has the last digits of its CPU. The rest makes scores what they are."""
    manifest = open_bundle(tiny_bundle).manifest
    elsewhere, other = bundle_pb2.BundleManifest(), bundle_pb2.BundleManifest()
    elsewhere.CopyFrom(manifest)
    elsewhere.golden_prompts[0].score += 1e-6
    elsewhere.parity.max_score_difference *= 2
    elsewhere.bundle_id = "another"
    assert what_scores(elsewhere) == what_scores(manifest)
    other.CopyFrom(manifest)
    other.files[0].sha256 = "0" * 64
    assert what_scores(other) != what_scores(manifest)
    other.CopyFrom(manifest)
    other.encoder_calibration.expected_tokens[0] += 1
    assert what_scores(other) != what_scores(manifest)


def test_words_do_not_matter_and_strings_that_are_used_do(tmp_path: Path) -> None:
    path = tmp_path / "one.py"

    def hash_of(source: str) -> str:
        path.write_text(source)
        return content_hash([path])

    plain = hash_of('LIMIT = 1\ndef f(x: int) -> str:\n    return "text"\n')
    worded = '"""A file."""\n\nLIMIT = 1  # low\n"""In prompts."""\n\n\ndef f(\n    x: int,\n) -> str:\n    """Text."""\n'
    worded += '    return "text"\n'
    assert hash_of(worded) == plain
    assert hash_of(worded.replace('return "text"', 'return "other"')) != plain
    assert hash_of(worded.replace("LIMIT = 1", "LIMIT = 2")) != plain


def test_a_file_that_moves_or_is_renamed_matters(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "one.py").write_text("same = True")
    before = content_hash([folder])
    (folder / "one.py").rename(folder / "two.py")
    assert content_hash([folder]) != before


def test_a_hook_that_is_not_this_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for vLLM's Python says where it would load the hook from."""
    folder = tmp_path / "bin"
    folder.mkdir()
    python = folder / "python"

    def loads_from(hook: Path) -> None:
        said = json.dumps({"hook": str(hook), "versions": {"vllm": "1"}})
        python.write_text(f"#!{sys.executable}\nprint({said!r})\n")
        python.chmod(0o755)

    vllm = VllmInstallation(folder, tmp_path, tmp_path, 0.0)
    loads_from(REPOSITORY / "vllm_client")
    assert vllm.versions() == {"vllm": "1"}
    shutil.copytree(REPOSITORY / "vllm_client", tmp_path / "vllm_client")
    loads_from(tmp_path / "vllm_client")
    assert vllm.versions() == {"vllm": "1"}
    (tmp_path / "vllm_client" / "priority.py").write_text("older = True\n")
    with pytest.raises(ProcessError, match="another vllm_client than this one"):
        vllm.versions()


def test_the_queue_is_looked_at_until_the_run_is_over() -> None:
    """1. both gauges, summed over engines 2. a look without an answer is counted 3. afterwards nobody looks any more."""
    looks = 0

    class Metrics(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            nonlocal looks
            looks += 1
            self.send_response(503 if looks == 2 else 200)
            self.end_headers()
            gauges = (
                'num_requests_waiting{engine="0"} 3.0',
                'num_requests_waiting{engine="1"} 4.0',
                "num_requests_running{} 2.0",
            )
            self.wfile.write("".join(f"vllm:{line}\n" for line in ("other 9", *gauges)).encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Metrics) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        began_s = time.perf_counter()
        give_up_s = time.monotonic() + 20
        with QueueSampler(f"http://127.0.0.1:{server.server_port}", pause_s=0.01) as queue:
            while looks < 4 and time.monotonic() < give_up_s:
                time.sleep(0.01)
        after = looks
        time.sleep(0.05)
        server.shutdown()
    assert looks == after >= 4
    samples = queue.samples(began_s)
    at_s = samples.pop("at_s")
    assert samples == {"pause_s": 0.01, "waiting": [7] * (after - 1), "running": [2] * (after - 1), "missed": 1}
    assert isinstance(at_s, list)
    assert len(at_s) == after - 1
    assert at_s == sorted(at_s)
    assert 0 < at_s[0] < at_s[-1] < time.perf_counter() - began_s
