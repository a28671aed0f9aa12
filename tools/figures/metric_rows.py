"""The table of our metrics, from the server's own table of them."""

from __future__ import annotations

from reelserve.pipeline.contract import ENSEMBLE_STAGES
from reelserve.server.metric_table import OF_FRONT_END, OF_STEPS, Metric

BLOCK_NAME = "metrics"


def metric_rows() -> str:
    """A Markdown table: series, labels with their values, meaning."""
    rows = [_row(metric) for metric in (*OF_FRONT_END, *OF_STEPS)]
    return "\n".join(["| Metric | Labels | Meaning |", "| --- | --- | --- |", *rows])


def _row(metric: Metric) -> str:
    labels = ", ".join(_label(name, values) for name, values in metric.labels.items())
    text = metric.text
    if metric.kind == "histogram":
        text = f"Histogram: {text[0].lower()}{text[1:]}"
    return f"| `{metric.series}` |{f' {labels}' if labels else ''} | {text} |"


def _label(name: str, values: tuple[str, ...]) -> str:
    few = len(values) > 1 and values != ENSEMBLE_STAGES
    return f"`{name}` ({', '.join(values)})" if few else f"`{name}`"
