"""What every part is given."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gpu.plan import Plan
from benchmarks.gpu.sessions import Device


@dataclass(frozen=True, slots=True)
class Job:
    """bundles: folder by precision, fp32 first. device: where the model runs. prompts: of the workload, in the order to send them."""

    bundles: Mapping[str, Path]
    device: Device
    plan: Plan
    prompts: tuple[str, ...]
