"""The dashboard and the alerts against the documented metrics, and against a live endpoint."""

from __future__ import annotations

import itertools
import re
import time
import urllib.request
from pathlib import Path

import pytest
import yaml

from reelserve.client import Client
from tests.deploy.promql import (
    ALERTS,
    Reference,
    alerts,
    dashboard,
    expressions,
    panels,
    references,
)

PAGE = Path(__file__).parents[2] / "docs" / "serving.md"
METRIC = re.compile(r"`((?:reelserve|nv)_\w+)`")
ROW = re.compile(
    r"^\| (?P<names>`[^|]*`) \| ?(?P<labels>[^|]*) \| (?P<meaning>.*) \|$", re.MULTILINE
)
SERIES = re.compile(r"^(?P<name>\w+)(?:\{(?P<labels>.*)\})? \S+$")
HISTOGRAM_ENDINGS = ("_bucket", "_count", "_sum")
EXPRESSIONS = expressions()


def documented() -> dict[str, set[str]]:
    """Name of a series to its labels, as the page has them."""
    found: dict[str, set[str]] = {}
    for row in ROW.finditer(PAGE.read_text()):
        labels = set(re.findall(r"`(\w+)`", row["labels"]))
        for name in METRIC.findall(row["names"]):
            if row["meaning"].startswith("Histogram"):
                found |= {name + ending: labels for ending in HISTOGRAM_ENDINGS}
                found[f"{name}_bucket"] = labels | {"le"}
            else:
                found[name] = labels
    return found


@pytest.mark.parametrize("place", EXPRESSIONS)
def test_expression_refers_to_documented_metrics_and_labels(place):
    known = documented()
    found = references(EXPRESSIONS[place])
    assert found
    for reference in found:
        assert reference.metric in known, reference
        assert reference.labels <= known[reference.metric], reference


def test_every_metric_of_ours_is_on_the_dashboard():
    drawn = {one.metric for text in EXPRESSIONS.values() for one in references(text)}
    ours = {name.removesuffix(ending) for name in drawn for ending in ("", *HISTOGRAM_ENDINGS)}
    assert set(METRIC.findall(PAGE.read_text())) <= ours


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("up", [Reference("up", frozenset(), ())]),
        (
            'sum by (a, job) (rate(x{b=~"c", instance="d"}[5m])) / 1e6 > 0',
            [
                Reference(
                    "x",
                    frozenset({"a", "b"}),
                    (("b", "MatchOp.Re", "c"), ("instance", "MatchOp.Equal", "d")),
                )
            ],
        ),
        ("x unless (y offset 5m)", [Reference(name, frozenset(), ()) for name in "xy"]),
    ],
)
def test_references_finds_metrics_and_labels(expression, expected):
    assert references(expression) == expected


def test_references_raises_when_it_is_no_promql():
    with pytest.raises(ValueError, match="expected type"):
        references("sum(x[5m])")


def test_every_alert_says_how_bad_it_is_and_what_to_do():
    names = [rule["alert"] for rule in alerts()]
    assert len(set(names)) == len(names)
    for rule in alerts():
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert set(rule["annotations"]) == {"summary", "description"}
        assert re.fullmatch(r"\d+m", rule["for"])


@pytest.mark.parametrize("file", ["prometheus.yml", "alerts_test.yml"])
def test_prometheus_loads_the_alerts(file):
    config = yaml.safe_load((ALERTS.parent / file).read_text())
    assert config["rule_files"] == [ALERTS.name]


def test_alerts_test_names_alerts_that_exist():
    suites = yaml.safe_load((ALERTS.parent / "alerts_test.yml").read_text())["tests"]
    tested = {case["alertname"] for suite in suites for case in suite["alert_rule_test"]}
    assert tested <= {rule["alert"] for rule in alerts()}


def test_panels_have_ids_of_their_own_and_do_not_overlap():
    placed = dashboard()["panels"]
    assert len({panel["id"] for panel in placed}) == len(placed)
    boxes = [panel["gridPos"] for panel in placed]
    for one, other in itertools.combinations(boxes, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above, (one, other)
    assert max(box["x"] + box["w"] for box in boxes) == 24


def test_every_panel_asks_the_data_source_that_was_chosen():
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    assert "datasource" in [one["name"] for one in dashboard()["templating"]["list"]]
    for panel in panels():
        assert panel["datasource"] == chosen and panel["description"]
        assert all(target["datasource"] == chosen for target in panel["targets"])


def live_series(url: str) -> dict[str, list[dict[str, str]]]:
    """Name to the labels of every series."""
    with urllib.request.urlopen(url, timeout=10) as reply:
        lines = [SERIES.match(line) for line in reply.read().decode().splitlines()]
    found: dict[str, list[dict[str, str]]] = {}
    for line in filter(None, lines):
        labels = dict(re.findall(r'(\w+)="([^"]*)"', line["labels"] or ""))
        found.setdefault(line["name"], []).append(labels)
    return found


@pytest.mark.server
def test_every_metric_and_label_is_on_the_live_endpoint(tiny_server):
    with Client(tiny_server.grpc_url) as client:
        client.generate("a red star")
    # The clip is counted after it was sent.
    deadline = time.monotonic() + 30
    while "reelserve_request_seconds_bucket" not in live_series(tiny_server.metrics_url):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    live = live_series(tiny_server.metrics_url)
    for place, text in EXPRESSIONS.items():
        for reference in references(text):
            assert reference.metric in live, place
            for labels in live[reference.metric]:
                assert reference.labels <= set(labels), place
            for name, operator, value in reference.matchers:
                seen = {labels.get(name, "") for labels in live[reference.metric]}
                if operator == "MatchOp.Equal":
                    assert value in seen, place
                else:
                    assert operator == "MatchOp.Re" and any(
                        re.fullmatch(value, one) for one in seen
                    ), place
