"""A sidecar under soak: its log as it comes, what it holds of the machine, and the swaps it is told to make."""

import re
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import grpc

from benchmarks.process import LineProcess, ProcessError
from benchmarks.served import ServedSidecar
from benchmarks.soak.bundles import point
from benchmarks.soak.mix import GET_BUNDLE, SECOND_RANKER
from benchmarks.soak.verdict import Sample
from pars.v1 import ranker_pb2

DEFAULT = "default"
"""What the log calls the ranker that needs no name."""

RELOAD_S = 120.0
"""For a reload of both rankers under a burst on two cores: loading takes a second or two there, when it is quiet."""

ANSWER_S = 30.0

STOP_S = 60.0
"""The grace is 10 s."""

_LEVEL = re.compile(r"^\d{4}-\d\d-\d\d \S+ (DEBUG|INFO|WARNING|ERROR|CRITICAL) ")


def unexpected_records(lines: Sequence[str]) -> list[str]:
    """A record is a line with a level and the lines without one below it."""
    records: list[list[str]] = []
    for line in lines:
        if _LEVEL.match(line) or not records:
            records.append([])
        records[-1].append(line)
    return [" … ".join((record[0], record[-1])[: len(record)]) for record in records if _is_unexpected(record)]


def _is_unexpected(record: Sequence[str]) -> bool:
    level = _LEVEL.match(record[0])
    if level is None or len(record) > 1:
        return True
    return level.group(1) in ("ERROR", "CRITICAL") and "reload refused" not in record[0]


class Log:
    """Every line a process says, read as it comes."""

    def __init__(self, process: LineProcess) -> None:
        self._process = process
        self._changed = threading.Condition()
        self._lines: list[str] = []
        self._ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __len__(self) -> int:
        return len(self._lines)

    def wait_for(self, pattern: str, count: int, since: int, within_s: float) -> list[re.Match[str]]:
        """The first `count` matches from line number `since` on. Raises ProcessError when they do not come in time."""
        give_up_s = time.monotonic() + within_s
        with self._changed:
            while True:
                matches = [match for line in self._lines[since:] if (match := re.search(pattern, line))]
                if len(matches) >= count:
                    return matches[:count]
                left_s = give_up_s - time.monotonic()
                if self._ended or left_s <= 0:
                    raise ProcessError(f"the sidecar's log has {len(matches)} of {count} lines like {pattern!r}")
                self._changed.wait(left_s)

    def matches(self, pattern: str) -> list[re.Match[str]]:
        """All matches so far."""
        return [match for line in list(self._lines) if (match := re.search(pattern, line))]

    def last_lines(self) -> list[str]:
        """What was said last."""
        return self._lines[-5:]

    def levels(self) -> dict[str, int]:
        """Lines by level; `other` is what our logging did not write."""
        counts = Counter(match.group(1) if (match := _LEVEL.match(line)) else "other" for line in list(self._lines))
        return dict(sorted(counts.items()))

    def unexpected(self) -> list[str]:
        """First and last line of what tells of a bug: tracebacks, errors other than a refused bundle, what our logging did not write."""
        return unexpected_records(list(self._lines))

    def close(self) -> None:
        """Wait until everything said is read; the process must have ended."""
        self._reader.join(STOP_S)

    def _read(self) -> None:
        while True:
            try:
                line: str | None = self._process.line(threading.TIMEOUT_MAX)
            except ProcessError:
                line = None
            with self._changed:
                if line is None:
                    self._ended = True
                else:
                    self._lines.append(line)
                self._changed.notify_all()
            if line is None:
                return


class SoakedSidecar:
    """One process with two rankers, each led to its bundle by a link."""

    def __init__(self, folder: Path, over: str, bundles: tuple[Path, Path], provider: str) -> None:
        folder.mkdir()
        self.over = over
        self._links = {DEFAULT: folder / "default", SECOND_RANKER: folder / "second"}
        self.serves = dict(zip(self._links, bundles, strict=True))
        for name, link in self._links.items():
            point(link, self.serves[name])
        address = f"unix:{folder / 'pars.sock'}" if over == "unix" else "127.0.0.1:0"
        flags = ("--rankers", f"{SECOND_RANKER}={self._links[SECOND_RANKER]}")
        self.served = ServedSidecar(self._links[DEFAULT], address, provider, flags)
        self.process = self.served.process
        self.log = Log(self.process)
        self._channel = grpc.insecure_channel(self.served.address)
        self._get_bundle = self._channel.unary_unary(
            GET_BUNDLE, ranker_pb2.GetBundleRequest.SerializeToString, ranker_pb2.GetBundleResponse.FromString
        )
        self.samples: list[Sample] = []
        self.reloads: Counter[str] = Counter()
        self.longest_reload_s = 0.0
        self.faults: list[str] = []

    def cost_models(self) -> list[list[float]]:
        """[fixed_ms, per_token_ms] as measured for the default ranker at start, then for every bundle that went live later."""
        found = self.log.matches(r"ranker ready .*\bfixed_ms=(\S+) per_token_ms=(\S+)")
        # What was said at start was said before this log began; ServedSidecar keeps the first ranker's.
        first = list(self.served.cost_model.values())
        return [first, *([float(each) for each in match.groups()] for match in found)]

    def sample(self, at_s: float) -> None:
        """Note what the process holds now. Raises ProcessError when it has died."""
        if (code := self.process.process.poll()) is not None:
            raise ProcessError(f"the sidecar died with code {code}; its last words: {self.log.last_lines()}")
        proc = Path("/proc") / str(self.process.process.pid)
        status = dict(line.split(":", 1) for line in (proc / "status").read_text(encoding="utf-8").splitlines())
        rss_mib = int(status["VmRSS"].split()[0]) / 1024
        self.samples.append(Sample(at_s, rss_mib, sum(1 for _ in (proc / "fd").iterdir()), int(status["Threads"])))

    def swap(self, bundle_ids: dict[Path, str]) -> None:
        """Let the two rankers change places, and look whether they did. bundle_ids: of all valid bundles."""
        default, second = self.serves[DEFAULT], self.serves[SECOND_RANKER]
        self._reload({DEFAULT: second, SECOND_RANKER: default}, "swapped", bundle_ids)

    def swap_to_broken(self, ranker: str, broken: Path, bundle_ids: dict[Path, str]) -> None:
        """Lead one ranker to a bundle that may not serve, and look whether it is refused; then lead it back."""
        self._reload(self.serves | {ranker: broken}, "refused", bundle_ids)
        point(self._links[ranker], self.serves[ranker])

    def stop(self) -> int:
        """SIGTERM; its exit code. Raises ProcessError when it does not end."""
        self.process.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.process.wait(STOP_S)
        except subprocess.TimeoutExpired as error:
            raise ProcessError("the sidecar did not stop") from error
        self.log.close()
        return code

    def close(self) -> None:
        self._channel.close()
        self.process.close()

    def _reload(self, targets: dict[str, Path], outcome: str, bundle_ids: dict[Path, str]) -> None:
        for name, target in targets.items():
            if target != self.serves[name]:
                point(self._links[name], target)
        since, began_s = len(self.log), time.monotonic()
        self.process.process.send_signal(signal.SIGHUP)
        pattern = r"(swapped) ranker=(\S+)|reload (refused), .* ranker=(\S+):|reload found the (same) bundle=\S+ ranker=(\S+)"
        said = self.log.wait_for(pattern, len(targets), since, RELOAD_S)
        self.longest_reload_s = max(self.longest_reload_s, time.monotonic() - began_s)
        outcomes = dict(list(filter(None, match.groups()))[::-1] for match in said)
        self.reloads.update(outcomes.values())
        for name, target in targets.items():
            changed = target != self.serves[name]
            wanted = outcome if changed else "same"
            if outcomes.get(name) != wanted:
                self.faults.append(f"reload of {name} to {target.name!r}: {outcomes.get(name)}, wanted {wanted}")
            if changed and outcomes.get(name) == "swapped":
                self.serves[name] = target
        for name, target in self.serves.items():
            if (serves := self._bundle_id(name)) != bundle_ids[target]:
                self.faults.append(f"after a reload {name} serves bundle {serves}, wanted {bundle_ids[target]}")

    def _bundle_id(self, ranker: str) -> str:
        request = ranker_pb2.GetBundleRequest(ranker="" if ranker == DEFAULT else ranker)
        try:
            return str(self._get_bundle(request, timeout=ANSWER_S).manifest.bundle_id)
        except grpc.RpcError as error:
            return str(error)
