"""The metrics and labels that PromQL expressions refer to."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import promql_parser
import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD = DEPLOY / "grafana" / "reelserve.json"
ALERTS = DEPLOY / "prometheus" / "alerts.yml"
OF_PROMETHEUS = {"job", "instance"}
"""Labels that Prometheus adds to every series that it scrapes."""
OF_GRAFANA = {"$__rate_interval": "5m", "$instance": ".*"}
"""What Grafana puts in place of its variables, for one choice of them."""
LABEL_VALUES = re.compile(r"label_values\((\w+), (\w+)\)")


@dataclass(frozen=True)
class Reference:
    """A metric in an expression.

    Args:
        metric: Its name on the endpoint, such as `x_seconds_bucket`.
        labels: What the expression matches or groups by, without the labels of Prometheus.
        matchers: Label, operator and value.
    """

    metric: str
    labels: frozenset[str]
    matchers: tuple[tuple[str, str, str], ...]


def references(expression: str) -> list[Reference]:
    """Every metric of an expression; raises `ValueError` if it is no PromQL."""
    found: list[Reference] = []
    _collect(promql_parser.parse(expression), frozenset(), found)
    return found


def _collect(node: Any, grouped: frozenset[str], found: list[Reference]) -> None:
    """Adds what a part of an expression refers to, grouped by these labels around it."""
    if isinstance(node, promql_parser.VectorSelector):
        matchers = tuple((m.name, str(m.op), m.value) for m in node.matchers.matchers)
        labels = grouped | {name for name, _, _ in matchers}
        found.append(Reference(node.name, frozenset(labels - OF_PROMETHEUS), matchers))
    elif isinstance(node, promql_parser.MatrixSelector):
        _collect(node.vector_selector, grouped, found)
    elif isinstance(node, promql_parser.AggregateExpr):
        _collect(node.expr, grouped | set(node.modifier.labels if node.modifier else ()), found)
    elif isinstance(node, promql_parser.Call):
        for argument in node.args:
            _collect(argument, grouped, found)
    elif isinstance(node, promql_parser.BinaryExpr):
        for side in (node.lhs, node.rhs):
            _collect(side, grouped, found)
    elif isinstance(node, promql_parser.ParenExpr):
        _collect(node.expr, grouped, found)
    else:
        assert isinstance(node, promql_parser.NumberLiteral), f"{node!r} is not looked into"


def dashboard() -> dict[str, Any]:
    return json.loads(DASHBOARD.read_text())


def panels() -> list[dict[str, Any]]:
    """Panels that draw something."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def alerts() -> list[dict[str, Any]]:
    return [
        rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]
    ]


def expressions() -> dict[str, str]:
    """Every expression of both files by where it stands."""
    found = {f"alert {rule['alert']}": rule["expr"] for rule in alerts()}
    for panel in panels():
        for target in panel["targets"]:
            found[f"panel {panel['title']} {target['refId']}"] = _filled(target["expr"])
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            query = LABEL_VALUES.fullmatch(variable["query"]["query"])
            assert query is not None
            found[f"variable {variable['name']}"] = f"count by ({query[2]}) ({query[1]})"
    return found


def _filled(expression: str) -> str:
    for name, value in OF_GRAFANA.items():
        expression = expression.replace(name, value)
    assert "$" not in expression, expression
    return expression
