"""Does each peer start, score as the bundle does and stop again? `python -m benchmarks.peers --bundle … --checkpoint … [--peers …]`.

It measures nothing but differences, memory and what a peer takes while it has nothing to do; benchmarks compare the rest.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.jobs import Contender
from benchmarks.leaving import signals_leave
from benchmarks.peers.registry import Peer, PeerError, chosen
from benchmarks.peers.same_scores import largest_difference
from benchmarks.peers.served import ServedPeer
from benchmarks.process import LineProcess, ProcessError
from benchmarks.process_tree import tree_of
from benchmarks.report import aligned
from benchmarks.workload import made_up, write_prompts

PROMPTS = 512
IDLE_S = 5.0

HEADER = ("", "largest difference", "starts in s", "processes", "RSS MiB", "PSS MiB", "idle cores", "stops in s")


def _bundle_sample(bundle: Path) -> tuple[list[str], list[float]]:
    """Prompts and the bare session's scores of them."""
    with tempfile.TemporaryDirectory(prefix="pars-peers-") as folder:
        prompts = Path(folder) / "prompts.jsonl"
        write_prompts(prompts, made_up(PROMPTS, seed=0).prompts)
        command = [sys.executable, "-m", "benchmarks.bare", "--bundle", str(bundle.resolve()), "--provider", "cpu"]
        with LineProcess([*command, "--prompts", str(prompts)], merge_stderr=False) as process:
            sample = Contender(process).about["sample"]
    return sample["prompts"], sample["scores"]


def _row(peer: Peer, checkpoint: Path, sample: tuple[list[str], list[float]]) -> tuple[str, ...]:
    began_s = time.monotonic()
    with ServedPeer(peer, checkpoint) as served:
        started_s = time.monotonic()
        difference = largest_difference(served.url, peer, *sample)
        memory, processes = served.process.memory(), len(tree_of(served.process.process.pid))
        idle_cpu_s = -served.process.cpu_s()
        time.sleep(IDLE_S)
        idle_cpu_s += served.process.cpu_s()
        stops_s = time.monotonic()
    took_s = (started_s - began_s, time.monotonic() - stops_s)
    figures = (
        f"{took_s[0]:.0f}",
        f"{processes}",
        f"{memory.rss_mib:.0f}",
        f"{memory.pss_mib:.0f}",
        f"{idle_cpu_s / IDLE_S:.2f}",
    )
    return (peer.name, f"{difference:.1e}", *figures, f"{took_s[1]:.0f}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0: all of them do."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__.split("\n\n")[0])
    parser.add_argument("--bundle", type=Path, required=True, help="fp32 bundle of the checkpoint")
    parser.add_argument("--checkpoint", type=Path, required=True, help="what the peers serve")
    parser.add_argument("--peers", default="all", help="comma-separated names (default all)")
    flags = parser.parse_args(arguments)
    rows, failed = [], False
    try:
        peers = chosen(flags.peers)
        sample = _bundle_sample(flags.bundle)
    except (PeerError, ProcessError) as error:
        print(f"peers: {error}", file=sys.stderr)
        return 1
    for peer in peers:
        try:
            rows.append(_row(peer, flags.checkpoint, sample))
        except (PeerError, ProcessError) as error:
            print(f"peers: {error}", file=sys.stderr)
            failed = True
    print("\n".join(aligned(HEADER, rows)))
    return 1 if failed else 0


if __name__ == "__main__":
    with signals_leave():
        sys.exit(main())
