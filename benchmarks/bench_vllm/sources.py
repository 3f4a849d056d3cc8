"""What a kept run on a real vLLM depends on among the sources: what they do, not commits, so that a change of words costs no hours."""

import ast
import hashlib
from collections.abc import Iterable
from pathlib import Path

from benchmarks.stamp import REPOSITORY

DRIVERS = ("bench_serve", "metrics", "oracle_ranker", "pacing", "process", "queue", "rankers", "requests", "run", "tiny_llama")
"""The benchmark's modules that make a run what it is and say what is kept of it. What becomes of that afterwards, figures and report, is
made anew each time; which arms and loads there are, and what is replayed, each run says for itself."""

MANIFEST = "proto/pars/v1/bundle_pb2.py"
"""The protocol's part about bundles: in a run nobody reads one but the sidecar."""


def content_hash(folders: Iterable[Path], without: Path | None = None) -> str:
    """Of the Python files in folders and of files, by their places in them: not of times, caches, or where the folders are.

    Nor of comments, docstrings and layout. Another version of Python may see another hash in the same files. without: a file that does
    not count.
    """
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(set(folder.rglob("*.py")) - {without}) if folder.is_dir() else [folder]:
            place = path.relative_to(folder).as_posix() if folder.is_dir() else path.name
            digest.update(f"{folder.name}/{place}\0".encode())
            digest.update(hashlib.sha256(_without_words(path.read_bytes()).encode()).digest())
    return digest.hexdigest()


class _Docstrings(ast.NodeTransformer):
    """Takes out strings that stand alone: of modules, classes and functions, and below constants."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        alone = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if alone else node


def _without_words(source: bytes) -> str:
    return ast.dump(_Docstrings().visit(ast.parse(source)))


def driver_sources(repository: Path = REPOSITORY) -> str:
    """Of what drives every run: the client library, the protocol but for bundles, and DRIVERS."""
    benchmarks = [repository / "benchmarks" / "bench_vllm" / f"{name}.py" for name in DRIVERS]
    replay = repository / "benchmarks" / "replay.py"
    return content_hash(
        [repository / "vllm_client", repository / "proto" / "pars", *benchmarks, replay], without=repository / MANIFEST
    )


def sidecar_sources(repository: Path = REPOSITORY) -> str:
    """Of what runs that ask the sidecar depend on besides."""
    return content_hash([repository / "sidecar", repository / "benchmarks" / "served.py", repository / MANIFEST])
