"""The examples of docs/clients as commands: what to run for a call, and what it came back with."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
EXAMPLES = REPOSITORY / "docs" / "clients"
BUILT = REPOSITORY / ".clients"
LANGUAGES = ("go", "cpp", "node", "reflection")
WAIT_S = 60.0
"""A call takes a fraction of a second; the bound is for a busy machine, and longer than any deadline the tests give a client."""
DEADLINE_MS = 30_000

_COMMANDS = {
    "go": [str(BUILT / "go" / "client")],
    "cpp": [str(BUILT / "cpp" / "client")],
    "node": ["node", str(EXAMPLES / "node" / "client.js")],
    "reflection": [sys.executable, "-W", "error", str(EXAMPLES / "reflection" / "client.py")],
}
_METHODS = {
    "score": "pars.v1.RankerService/Score",
    "compare": "pars.v1.RankerService/Compare",
    "health": "grpc.health.v1.Health/Check",
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one run of a client ended."""

    exit_code: int
    out: str
    err: str

    def reply(self) -> dict[str, Any]:
        """The reply it printed; fails the test when it printed an error."""
        assert (self.exit_code, self.err) == (0, ""), self
        reply: dict[str, Any] = json.loads(self.out)
        return reply


def command_line(language: str, address: str, deadline_ms: int, call: str, texts: Sequence[str]) -> list[str]:
    """The command for one call. The reflection client knows no calls of ours, so it gets the method's name and the request."""
    if language != "reflection":
        return [*_COMMANDS[language], address, str(deadline_ms), call, *texts]
    request: dict[str, Any] = {}
    if call == "score":
        request = {"prompts": list(texts)}
    elif call == "compare":
        request = {"pairs": [{"prompt_a": texts[0], "prompt_b": texts[1]}]}
    return [*_COMMANDS[language], address, str(deadline_ms), _METHODS[call], json.dumps(request, ensure_ascii=False)]


def start(command: Sequence[str]) -> subprocess.Popen[str]:
    """Run a client. The one of Node.js is run where it lies, with the packages that `make clients-env` installed elsewhere."""
    environment = os.environ | {"NODE_PATH": str(BUILT / "node" / "node_modules")}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> Outcome:
    """Wait for the end of a client. Kills it, and fails the test, when that takes too long."""
    with process:
        try:
            out, err = process.communicate(timeout=WAIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return Outcome(process.returncode, out, err)


def run(language: str, address: str, call: str, *texts: str, deadline_ms: int = DEADLINE_MS) -> Outcome:
    """One call by the client of a language."""
    return ended(start(command_line(language, address, deadline_ms, call, texts)))
