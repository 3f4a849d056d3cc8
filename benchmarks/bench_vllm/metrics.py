"""Pure: Prometheus' text format → numbers, as far as vLLM's and the hook's own metrics need it."""

from collections.abc import Mapping

Samples = Mapping[str, float]
"""Values by name and labels, as they are written: `vllm:num_preemptions_total{engine="0"}`."""


def parse_metrics(text: str) -> dict[str, float]:
    """The samples of a page of /metrics."""
    samples = {}
    for line in text.splitlines():
        name, _, value = line.rpartition(" ")
        if name and not line.startswith("#"):
            samples[name] = float(value)
    return samples


def total(samples: Samples, name: str) -> float:
    """A metric summed over all its labels; 0 when it is not there."""
    return sum(value for key, value in samples.items() if key.partition("{")[0] == name)


def by_label(samples: Samples, name: str, label: str) -> dict[str, float]:
    """A metric by the values of one label, summed over the others. For values that hold no quotes."""
    found: dict[str, float] = {}
    for key, value in samples.items():
        own_name, _, labels = key.partition("{")
        if own_name == name and f'{label}="' in labels:
            place = labels.split(f'{label}="', 1)[1].partition('"')[0]
            found[place] = found.get(place, 0.0) + value
    return found


def difference(after: Samples, before: Samples) -> dict[str, float]:
    """What was added to each sample in between."""
    return {name: value - before.get(name, 0.0) for name, value in after.items()}
