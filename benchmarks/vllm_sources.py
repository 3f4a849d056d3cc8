"""What a kept run on a real vLLM depends on among the sources: contents, not commits, so that a change of a document costs no hours."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from benchmarks.stamp import REPOSITORY

DRIVERS = (
    "oracle_ranker",
    "tiny_llama",
    "vllm_bench_serve",
    "vllm_pacing",
    "vllm_process",
    "vllm_queue",
    "vllm_rankers",
    "vllm_run",
)
"""The benchmark's modules that make a run what it is. What becomes of it afterwards, figures and report, is made anew each time;
which arms and loads there are, and what is replayed, each run says for itself."""


def content_hash(folders: Iterable[Path]) -> str:
    """Of the Python files in folders and of files, by their places in them: not of times, caches, or where the folders are."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*.py")) if folder.is_dir() else [folder]:
            place = path.relative_to(folder).as_posix() if folder.is_dir() else path.name
            digest.update(f"{folder.name}/{place}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def driver_sources(repository: Path = REPOSITORY) -> str:
    """Of what drives every run: the client library, the protocol, and DRIVERS."""
    benchmarks = [repository / "benchmarks" / f"{name}.py" for name in DRIVERS]
    return content_hash([repository / "vllm_client", repository / "proto" / "pars", *benchmarks])


def sidecar_sources(repository: Path = REPOSITORY) -> str:
    """Of what runs that ask the sidecar depend on besides."""
    return content_hash([repository / "sidecar", repository / "benchmarks" / "served.py"])
