"""Counts the front end's metrics, and joins them with Triton's for Prometheus."""

from __future__ import annotations

import itertools
import re
import socket
from collections.abc import Callable, Mapping
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

from reelserve.server.metric_table import OF_FRONT_END, PREFIX, Metric

KINDS: dict[str, Any] = {"counter": Counter, "gauge": Gauge, "histogram": Histogram}
TRITON_TIMEOUT_S = 2.0
SAMPLE = re.compile(r"^(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>.*)\})? (?P<value>\S+)$")


class Recorder:
    """Counts what happens to requests and clips.

    Args:
        gauges: What gives the value of each gauge, now.
    """

    def __init__(self, gauges: Mapping[Metric, Callable[[], float]]) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._known: dict[Metric, Any] = {}
        for metric in OF_FRONT_END:
            options = {"buckets": metric.buckets} if metric.buckets else {}
            known = KINDS[metric.kind](
                PREFIX + metric.name, metric.text, metric.labels, registry=self.registry, **options
            )
            if metric.kind == "gauge":
                known.set_function(gauges[metric])
            # At 0 from the start, so that a first increase is seen as one.
            for values in itertools.product(*metric.labels.values()) if metric.labels else ():
                known.labels(*values)
            self._known[metric] = known

    def count(self, metric: Metric, amount: float = 1, **labels: str) -> None:
        """Adds to a counter of the table; a label with one value only need not be given."""
        self._child(metric, labels).inc(amount)

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        """Adds a value to a histogram of the table, labels as for `count`."""
        self._child(metric, labels).observe(value)

    def _child(self, metric: Metric, labels: Mapping[str, str]) -> Any:
        if not metric.labels:
            return self._known[metric]
        only = {name: values[0] for name, values in metric.labels.items() if len(values) == 1}
        return self._known[metric].labels(**only, **labels)


def exposition(registry: CollectorRegistry, sockets: Mapping[str, Path | None]) -> bytes:
    """Our metrics and those of every Triton, in Prometheus' text format.

    Args:
        registry: Metrics of the front end.
        sockets: Where each Triton shows its metrics, by its name; None while it does not run.
    """
    texts = {name: _read(path) for name, path in sockets.items() if path}
    # By how many there are, not by how many answer: a series keeps its labels.
    if len(sockets) == 1 and texts:
        return generate_latest(registry) + next(iter(texts.values())).encode()
    return generate_latest(registry) + merged(texts).encode()


def merged(texts: Mapping[str, str]) -> str:
    """The metrics of several Tritons, told apart by the label `triton`."""
    families: dict[str, list[str]] = {}
    for name, text in texts.items():
        family: list[str] = []
        for line in text.splitlines():
            if line.startswith("# HELP "):
                family = families.setdefault(line.split(" ", 3)[2], [])
            if line.startswith("#"):
                if line not in family:
                    family.append(line)
            elif match := SAMPLE.match(line):
                labels = ",".join(filter(None, (match["labels"], f'triton="{name}"')))
                family.append(f"{match['name']}{{{labels}}} {match['value']}")
    return "".join(f"{line}\n" for family in families.values() for line in family)


class _SocketConnection(HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TRITON_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _read(path: Path) -> str:
    try:
        with closing(_SocketConnection(path)) as connection:
            connection.request("GET", "/metrics")
            return connection.getresponse().read().decode(errors="replace")
    except (OSError, HTTPException):
        # It is being started again.
        return ""
