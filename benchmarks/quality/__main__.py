"""`python -m benchmarks.quality run EXPERIMENT --data FOLDER`, then `report`, then `page`. Each has its own --help."""

from __future__ import annotations

import sys

from benchmarks.quality import page, report, run

COMMANDS = {"run": run.main, "report": report.main, "page": page.main}


def main(arguments: list[str]) -> int:
    command = COMMANDS.get(arguments[0]) if arguments else None
    if command is None:
        print(f"{__doc__}\ncommands: {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    return command(arguments[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
