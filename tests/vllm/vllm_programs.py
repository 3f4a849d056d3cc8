"""Programs that run inside vLLM's environment and write what they saw as JSON, for tests to judge."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from vllm_server import ENVIRONMENT, START_S

HERE = Path(__file__).parent


def run_program(vllm_bin: Path, name: str, model: Path, folder: Path, *arguments: str, **environment: str) -> dict[str, Any]:
    """Run `name` MODEL RESULT *arguments in `folder`; return the result with the program's output beside it, as "log"."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PARS_", "VLLM_", "PYTHON"))}
    result = folder / "result.json"
    answer = subprocess.run(
        [str(vllm_bin / "python"), str(HERE / name), str(model), str(result), *arguments],
        cwd=folder,  # Not the repository: vLLM must find the installed wheel.
        env=kept | ENVIRONMENT | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=START_S,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout[-8000:]
    found: dict[str, Any] = json.loads(result.read_text())
    return found | {"log": answer.stdout}
