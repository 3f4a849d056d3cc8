"""Every knob of the sidecar, in one frozen dataclass, and which of them can work together.

How values get here and how they are listed: settings_source.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from pars import DEFAULT_ADDRESS
from pars.address import UNIX
from sidecar import settings_source
from sidecar.access.limits import MAX_CONNECTIONS, MAX_STREAMS_PER_CONNECTION
from sidecar.access.socket_access import DEFAULT_MODE, SocketAccess
from sidecar.address import check_address, check_exposure
from sidecar.cores import allotted_cores
from sidecar.errors import SettingsError
from sidecar.scorer import ProviderChoice
from sidecar.settings_source import setting
from sidecar.telemetry.logs import LogFormat

CUDA_WORKERS = 2
"""One run computes while the next one is prepared; the device itself runs them one after the other."""


DEFAULT_RANKER = "default"
"""The name of the ranker that answers requests which name none."""

_RANKER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}")
"""Room for what LLMs are called, such as meta-llama/Llama-3.1-8B-Instruct."""


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """All settings, validated. Fields without a unit have none."""

    bundle: str = setting("folder of the default ranker's bundle; required. Read again on SIGHUP", default="")
    rankers: str = setting(
        "further rankers, one per LLM ranked for: name=folder,name=folder; a request chooses one by its name", default=""
    )
    address: str = setting(
        "where to listen: host:port (port 0: any free one, the log says which) or unix:/path", default=DEFAULT_ADDRESS
    )
    tls_cert: str = setting(
        "PEM file with the server's certificate and those that lead to its CA; with tls_key: TLS. Rotated files hold from the "
        "next connection on",
        default="",
    )
    tls_key: str = setting("PEM file with the certificate's key, not readable by everybody and without a password", default="")
    tls_client_ca: str = setting(
        "PEM file with the CAs of clients; with it every client must show a certificate of theirs", default=""
    )
    token_file: str = setting(
        "file with bearer tokens, one per line, not readable by everybody; with it every call but health needs one of them. "
        "Read again when it changes",
        default="",
    )
    insecure: bool = setting("listen without TLS on an address that can be reached from other machines", default=False)
    socket_mode: str = setting("mode of the unix socket; who may write to it may connect", default=DEFAULT_MODE)
    socket_owner: str = setting(
        "owner of the unix socket: user:group, user or :group, by name or number; empty: the process's", default=""
    )
    max_connections: int = setting(
        "connections at a time; more are closed at once", default=MAX_CONNECTIONS, unit="connections", low=1, high=1_048_576
    )
    max_streams_per_connection: int = setting(
        "calls and streams of one connection at a time; clients hold more back",
        default=MAX_STREAMS_PER_CONNECTION,
        unit="streams",
        low=1,
        high=1_048_576,
    )
    provider: ProviderChoice = setting(  # noqa: RUF009 - a string, and frozen
        "execution provider; auto: CUDA where it works, else CPU; cuda: that or no start",
        default="auto",
        choices=("auto", "cpu", "cuda"),
    )
    workers: int = setting(
        "model threads, each running its own batches",
        default=0,
        unit="threads",
        zero=f"one per core this process may use; {CUDA_WORKERS} on CUDA",
        low=0,
        high=256,
    )
    threads_per_worker: int = setting(
        "cores one batch may use; more than 1 helps lone prompts and costs throughput",
        default=0,
        unit="threads",
        zero="the allotted cores divided by the workers",
        low=0,
        high=256,
    )
    max_prompts_per_call: int = setting("prompts one call may bring", default=256, unit="prompts", low=1, high=65_536)
    max_waiting_prompts: int = setting(
        "prompts admitted and unanswered per tier, over all calls; more go to the n-gram tier or are refused, at once",
        default=4_096,
        unit="prompts",
        low=1,
        high=1_048_576,
    )
    max_waiting_chars: int = setting(
        "characters of the prompts admitted and unanswered per tier; bounds the memory that waiting text holds",
        default=64 * 1024 * 1024,
        unit="characters",
        low=1_024,
        high=2**40,
    )
    tier_fallback: bool = setting(
        "answer with the n-gram scorer, flagged as such, what the encoder cannot answer in time; off: refuse it at once",
        default=True,
    )
    reserve_ms: float = setting(
        "how long before a caller's deadline its answer must leave: network both ways, and a caller short of cores; at most half of the "
        "call's time. What this process itself lags is added",
        default=10.0,
        unit="milliseconds",
        zero="no time for the way back",
        low=0,
        high=10_000,
    )
    max_wait_s: float = setting(
        "longest a call may wait: the deadline of a call that has none, or a longer one",
        default=30.0,
        unit="seconds",
        low=0.01,
        high=3_600,
    )
    max_batch_prompts: int = setting("prompts of one model run", default=128, unit="prompts", low=1, high=4_096)
    max_batch_tokens: int = setting(
        "prompts times longest prompt of one model run; bounds its memory",
        default=8_192,
        unit="tokens",
        low=4,
        high=16_777_216,
    )
    window_prompts: int = setting(
        "oldest waiting prompts that are sorted by length together", default=128, unit="prompts", low=1, high=1_024
    )
    max_stream_items: int = setting(
        "unanswered items per stream; then the stream is not read on", default=1_024, unit="items", low=1, high=65_536
    )
    max_message_bytes: int = setting(
        "largest message received or sent", default=4 * 1024 * 1024, unit="bytes", low=1_024, high=2**31 - 1
    )
    grace_s: float = setting(
        "how long admitted calls may still finish after a stop signal",
        default=10.0,
        unit="seconds",
        zero="not at all",
        low=0,
        high=3_600,
    )
    log_level: str = setting("least level logged", default="info", choices=("debug", "info", "warning", "error"))
    log_format: LogFormat = setting(  # noqa: RUF009 - a string, and frozen
        "text for people, json for machines: one object a line, on stderr", default="text", choices=("text", "json")
    )
    metrics_address: str = setting(
        "where Prometheus reads /metrics: host:port (port 0: any free one); plain HTTP for whoever can reach it, without any prompt; "
        "empty: no metrics",
        default="",
    )
    tracing: bool = setting(
        "send OpenTelemetry traces, whither OTEL_EXPORTER_OTLP_ENDPOINT says; needs the extra otel", default=False
    )

    @classmethod
    def load(cls, arguments: Sequence[str], environment: Mapping[str, str]) -> "Settings":
        """Defaults, then PARS_SIDECAR_* variables, then flags; validated. Raises SettingsError."""
        settings = cls(**settings_source.given(cls, arguments, environment))
        settings.validate()
        return settings

    def validate(self) -> None:
        """Raise SettingsError for a value out of range and for settings that cannot work together."""
        for field in dataclasses.fields(self):
            settings_source.check_range(field, getattr(self, field.name))
        if not self.bundle:
            raise SettingsError(f"no bundle: pass --bundle FOLDER or set {settings_source.ENV_PREFIX}BUNDLE")
        parse_rankers(self.rankers)
        check_address(self.address)
        if self.metrics_address:
            check_address(self.metrics_address)
            if self.metrics_address.startswith(UNIX):
                raise SettingsError("metrics_address is a unix socket, and Prometheus reads from host:port only")
        if bool(self.tls_cert) != bool(self.tls_key) or (self.tls_client_ca and not self.tls_cert):
            raise SettingsError("tls_cert and tls_key need each other, and tls_client_ca needs both")
        check_exposure(self.address, tls=bool(self.tls_cert), token=bool(self.token_file), insecure=self.insecure)
        SocketAccess.parse(self.socket_mode, self.socket_owner)
        if self.max_prompts_per_call > self.max_waiting_prompts:
            raise SettingsError(
                f"max_prompts_per_call {self.max_prompts_per_call} exceeds max_waiting_prompts {self.max_waiting_prompts}: "
                "such a call could never be admitted; lower the one or raise the other"
            )

        if self.max_message_bytes > self.max_waiting_chars:
            raise SettingsError(
                f"max_message_bytes {self.max_message_bytes} exceeds max_waiting_chars {self.max_waiting_chars}: the largest message "
                "could never be admitted; lower the one or raise the other"
            )

    def check_fits(self, max_tokens: int) -> None:
        """Raise SettingsError when the bundle's longest prompt does not fit into a batch."""
        if self.max_batch_tokens < max_tokens:
            raise SettingsError(
                f"max_batch_tokens {self.max_batch_tokens} is below the {max_tokens} tokens the bundle reads per prompt; "
                f"raise it to at least {max_tokens}, or export the bundle with a smaller max_tokens"
            )

    def bundle_folders(self) -> dict[str, Path]:
        """Each ranker's bundle folder by the ranker's name, the default ranker first."""
        return {DEFAULT_RANKER: Path(self.bundle)} | parse_rankers(self.rankers)

    def cpu_threads(self) -> tuple[int, int]:
        """(workers, threads per worker) on a CPU, the zeros filled in from the cores this process may use."""
        cores = allotted_cores()
        workers = self.workers or cores
        return workers, self.threads_per_worker or max(cores // workers, 1)


def parse_rankers(text: str) -> dict[str, Path]:
    """Folders by name from `name=folder,name=folder`. Raises SettingsError."""
    folders: dict[str, Path] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, folder = part.partition("=")
        if not (equals and folder and _RANKER_NAME.fullmatch(name)):
            raise SettingsError(
                f"rankers: {part!r} is not name=folder; a name has letters, digits and ._/- and at most 128 of them"
            )
        if name in folders or name == DEFAULT_RANKER:
            raise SettingsError(f"rankers: the name {name!r} is taken twice")
        folders[name] = Path(folder)
    return folders
