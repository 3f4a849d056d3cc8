"""The Grafana dashboard asks for nothing that a sidecar does not export."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.telemetry.metrics import Metrics

DASHBOARD = Path(__file__).parents[2] / "docs" / "dashboards" / "pars-sidecar.json"

FROM_PROMETHEUS = {"instance", "job"}
"""Labels that Prometheus adds when it scrapes."""

OURS = re.compile(r"\b(?:pars|grpc_server|process|python)_\w+")
SELECTOR = re.compile(r"([a-zA-Z_]\w*)\{([^}]*)\}")
MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"[^"]*"')
GROUPING = re.compile(r"\b(?:by|on|group_left)\s*\(([^)]*)\)")


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return parsed


@pytest.fixture(scope="module")
def exported() -> dict[str, set[str]]:
    """Labels by sample name, of a sidecar that has done everything once."""
    metrics = Metrics(["default"])
    metrics.calls.watch("pars.v1.RankerService", "Score", "unary")
    metrics.serving("default", "1" * 16, "model", "CPUExecutionProvider")
    return {sample.name: set(sample.labels) for family in metrics.registry.collect() for sample in family.samples}


def panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return (panel for panel in dashboard["panels"] if panel["type"] != "row")


def expressions(dashboard: dict[str, Any]) -> list[str]:
    return [target["expr"] for panel in panels(dashboard) for target in panel["targets"]]


def test_every_metric_and_label_is_exported(dashboard: dict[str, Any], exported: dict[str, set[str]]) -> None:
    asked = expressions(dashboard)
    assert len(asked) > 20
    for expression in asked:
        selectors = SELECTOR.findall(expression)
        without_matchers = re.sub(r"\{[^}]*\}|\([a-z_, ]*\)", "", expression)
        assert {name for name, _ in selectors} == set(OURS.findall(without_matchers)) != set(), expression
        known = FROM_PROMETHEUS.union(*(exported[name] for name, _ in selectors))
        for name, matchers in selectors:
            assert set(re.findall(r"(\w+)\s*[=!]", matchers)) <= exported[name] | FROM_PROMETHEUS, expression
            assert len(MATCHER.findall(matchers)) == len(re.findall(r'"[^"]*"', matchers)), expression
        grouped = {label.strip() for labels in GROUPING.findall(expression) for label in labels.split(",")}
        assert grouped <= known, expression


def test_a_metric_that_is_renamed_would_be_noticed(dashboard: dict[str, Any], exported: dict[str, set[str]]) -> None:
    without_one = {name: labels for name, labels in exported.items() if name != "pars_waiting_prompts"}
    with pytest.raises(KeyError, match="pars_waiting_prompts"):
        test_every_metric_and_label_is_exported(dashboard, without_one)


def test_what_an_operator_asks_for_is_there(dashboard: dict[str, Any]) -> None:
    asked = " ".join(expressions(dashboard))
    for name in (
        *("grpc_server_started_total", "grpc_server_handled_total", "grpc_server_handling_seconds_bucket"),
        *("pars_answers_total", "pars_rejections_total", "pars_reloads_total", "pars_bundle_info", "pars_serving"),
        *("pars_queue_seconds_bucket", "pars_infer_seconds_bucket", "pars_batch_prompts_bucket", "pars_waiting_prompts"),
        *("pars_real_tokens_total", "pars_padded_tokens_total", "process_resident_memory_bytes", "process_open_fds"),
    ):
        assert name + "{" in asked, name


def test_grafana_can_load_it_with_any_data_source(dashboard: dict[str, Any]) -> None:
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    for part in [*panels(dashboard), *(target for panel in panels(dashboard) for target in panel["targets"])]:
        assert part["datasource"] == chosen
    used = set(re.findall(r"\$(?!__)(\w+)", " ".join(expressions(dashboard))))
    assert used == variables.keys() - {"datasource"}
    assert re.findall(r"__inputs|\$\{DS_", DASHBOARD.read_text()) == []


def test_panels_have_ids_of_their_own_and_do_not_overlap(dashboard: dict[str, Any]) -> None:
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    cells: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        covered = {(place["x"] + dx, place["y"] + dy) for dx in range(place["w"]) for dy in range(place["h"])}
        assert not covered & cells, panel["title"]
        assert max(x for x, _ in covered) < 24
        cells |= covered


def test_every_panel_says_what_it_shows(dashboard: dict[str, Any]) -> None:
    for panel in panels(dashboard):
        assert panel["title"]
        assert panel["description"].endswith(".")
