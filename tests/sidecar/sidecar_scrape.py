"""Reading a metrics page as Prometheus does: over HTTP, parsed by prometheus_client's own parser."""

import urllib.request

from prometheus_client.parser import text_string_to_metric_families
from sidecar_rig import WAIT_S

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]
"""Value by sample name and labels."""


def page_of(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=WAIT_S) as reply:
        assert reply.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        page: str = reply.read().decode()
    return page


def series_of(page: str) -> Series:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def value(series: Series, name: str, **labels: str) -> float:
    """Of the one series with exactly these labels."""
    return series[name, frozenset(labels.items())]


def label_sets(series: Series, name: str) -> list[dict[str, str]]:
    return [dict(labels) for each, labels in series if each == name]
