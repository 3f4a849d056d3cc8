"""`python -m vllm_client`: score prompts from a terminal, and list the hook's settings.

Exit codes: 0 done; 1 the sidecar could not answer, with one line on stderr; 2 wrong usage, an unreadable prompt file included;
130 interrupted.
"""

import argparse
import io
import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence

from pars import DEFAULT_ADDRESS
from vllm_client import commands
from vllm_client.client import RankerClient
from vllm_client.config import ClientConfig
from vllm_client.errors import RankerClientError
from vllm_client.priority import DEFAULT_WINDOW_MS
from vllm_client.prompt_files import PromptFileError, read_prompts
from vllm_client.scores import Tier
from vllm_client.table import one_line

ADDRESS_VARIABLE = "PARS_ADDRESS"

DEADLINE_MS = 30_000
"""A person at a terminal would rather wait than be told to: a full call of 256 prompts takes a CPU a second or more."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # A terminal that is not UTF-8 still gets its table.
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        if options.command == "hook-settings":
            _show(commands.hook_settings())
            return 0
        return _ask(parser, options)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough. Python would flush once more at exit and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _ask(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    try:
        config = ClientConfig(
            address=options.address or _address_from_environment(),
            deadline_ms=options.deadline_ms,
            ranker=options.ranker,
            tls_ca=options.tls_ca,
            tls_cert=options.tls_cert,
            tls_key=options.tls_key,
            token_file=options.token_file,
        )
        prompts = _prompts(options) if options.command == "score" else []
    except ValueError as error:
        parser.error(one_line(str(error)))
    try:
        with RankerClient(config) as client:
            if options.wait_s:
                client.wait_until_serving(options.wait_s)
            _show(_lines(client, prompts, options))
    except RankerClientError as error:
        print(f"vllm_client: {config.address}: {one_line(str(error))}", file=sys.stderr)
        return 1
    return 0


def _show(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)
    sys.stdout.flush()


def _lines(client: RankerClient, prompts: Sequence[str], options: argparse.Namespace) -> Iterator[str]:
    # Without a terminal, as in a pipe or a log, 120 cells; COLUMNS overrides.
    max_cells = None if options.json else shutil.get_terminal_size(fallback=(120, 24)).columns
    if options.command == "bundle":
        return commands.bundle(client, options.json)
    tier = Tier[options.tier.upper()]
    if options.command == "compare":
        return commands.compare(client, options.prompt_a, options.prompt_b, tier, max_cells)
    return commands.score(client, prompts, tier, options.window_ms, time.time() * 1000, max_cells)


def _prompts(options: argparse.Namespace) -> list[str]:
    prompts: list[str] = list(options.prompts)
    if options.file is not None:
        prompts += read_prompts(options.file)
    if not prompts:
        raise PromptFileError("no prompts: give some as arguments, or a --file that holds some")
    return prompts


def _address_from_environment() -> str:
    return os.environ.get(ADDRESS_VARIABLE) or DEFAULT_ADDRESS


def _parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--address", help=f"host:port or unix:/path of the sidecar (default: ${ADDRESS_VARIABLE}, else {DEFAULT_ADDRESS})"
    )
    shared.add_argument("--deadline-ms", type=float, default=DEADLINE_MS, help="time for each call (default: %(default)s)")
    shared.add_argument(
        "--wait-s", type=float, default=0.0, help="first wait this long for the sidecar to answer (default: not at all)"
    )
    shared.add_argument("--ranker", default="", help="name of the ranker to ask (default: the sidecar's own)")
    shared.add_argument("--tls-ca", default="", help="PEM file with the CA of the sidecar's certificate (default: plaintext)")
    shared.add_argument("--tls-cert", default="", help="PEM file with the certificate to show, where the sidecar wants one")
    shared.add_argument("--tls-key", default="", help="PEM file with that certificate's key")
    shared.add_argument("--token-file", default="", help="file whose first line is the bearer token")
    shared.add_argument("--json", action="store_true", help="print one JSON object per line instead of a table")
    tiered = argparse.ArgumentParser(add_help=False)
    tiered.add_argument(
        "--tier", choices=[tier.name.lower() for tier in Tier], default="any", help="who scores (default: the server's choice)"
    )

    parser = argparse.ArgumentParser(prog="python -m vllm_client", description="Ask a PARS sidecar from a terminal.")
    subcommands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    score = subcommands.add_parser("score", parents=[shared, tiered], help="rank prompts, shortest expected response first")
    score.add_argument("prompts", nargs="*", metavar="PROMPT", help="prompts to score")
    score.add_argument("--file", help="more prompts: one per line, or JSON per line in a .jsonl file; - is standard input")
    score.add_argument(
        "--window-ms",
        type=_window_ms,
        default=DEFAULT_WINDOW_MS,
        help="ageing window of the priority; nobody is overtaken by who comes later than this (default: %(default)s)",
    )
    compare = subcommands.add_parser("compare", parents=[shared, tiered], help="which of two prompts has the longer response")
    compare.add_argument("prompt_a", metavar="A")
    compare.add_argument("prompt_b", metavar="B")
    subcommands.add_parser("bundle", parents=[shared], help="what the sidecar scores with")
    subcommands.add_parser("hook-settings", help="every setting of the hook in vLLM, as a Markdown table")
    return parser


def _window_ms(text: str) -> int:
    window_ms = int(text)  # argparse turns a ValueError into a usage error.
    if window_ms < 0:
        raise argparse.ArgumentTypeError("must not be negative")
    return window_ms


if __name__ == "__main__":
    sys.exit(main())
