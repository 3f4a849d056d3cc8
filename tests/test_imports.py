"""What each package really loads, in a new interpreter. The linter sees import statements; this sees what they bring along."""

import subprocess
import sys

import pytest

OURS = {"pars", "trainer", "exporter", "sidecar", "vllm_client", "benchmarks"}

ALLOWED = {
    # grpc picks up its companions when they are installed.
    "vllm_client": {
        "grpc",
        "google",
        "cython_runtime",
        "typing_extensions",
        "grpc_health",
        "grpc_reflection",
        "grpc_tools",
        "_upb",
    },
    "sidecar.__main__": {
        *{"grpc", "google", "cython_runtime", "typing_extensions", "grpc_health", "grpc_reflection", "grpc_tools", "_upb"},
        *{"numpy", "onnxruntime", "tokenizers"},
        # What onnxruntime and tokenizers bring along themselves.
        *{"packaging", "flatbuffers", "coloredlogs", "humanfriendly", "sympy", "mpmath", "huggingface_hub"},
    },
}
OWN = {"vllm_client": {"pars", "vllm_client"}, "sidecar.__main__": {"pars", "sidecar"}}

PROBE = """
import importlib, sys
before = set(sys.modules)
importlib.import_module(sys.argv[1])
loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
print(*sorted(name for name in loaded if name not in sys.stdlib_module_names and not name.startswith(("_cython", "_pytest", "__"))))
"""


@pytest.mark.parametrize("package", ALLOWED)
def test_importing_loads_nothing_else(package: str) -> None:
    answer = subprocess.run([sys.executable, "-c", PROBE, package], capture_output=True, text=True, timeout=60, check=True)
    loaded = set(answer.stdout.split())
    assert loaded & OURS == OWN[package]
    assert loaded - OURS <= ALLOWED[package]


def test_the_guard_would_notice() -> None:
    """The probe sees what a package brings along, not only what it names."""
    answer = subprocess.run(
        [sys.executable, "-c", PROBE, "trainer.checkpoint"], capture_output=True, text=True, timeout=60, check=True
    )
    assert {"torch", "transformers", "trainer", "pars"} <= set(answer.stdout.split())
