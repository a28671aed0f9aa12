"""Ways to install the chart; `python -m tests.deploy.chart_ways` writes the manifests of some."""

from __future__ import annotations

from pathlib import Path

import yaml

from tests.deploy.chart_tools import CHART, rendered

GOLDEN = Path(__file__).parent / "golden"
READ = ("least", "closed", "h100")
"""Of `WAYS`, those whose manifests are kept to be read."""
ANONYMOUS = ("--set", "server.allowAnonymous=true")
IN_IMAGE = ("--set", "models.inImage=true")
LEAST = (*ANONYMOUS, *IN_IMAGE)
CLOSED = (
    *("--set", "server.apiKeys.secret=keys,server.tls.secret=tls,server.tls.clientCa=true"),
    *("--set", "models.claim.name=models,models.claim.subPath=bundled"),
)
FETCHED = (*ANONYMOUS, "--values", str(CHART / "values-s3.yaml"))
ALL_ON = (
    *("--set", "autoscaling.kind=keda,monitoring.serviceMonitor.enabled=true"),
    *("--set", "monitoring.prometheusRule.enabled=true,monitoring.dashboard.enabled=true"),
    *("--set", "gpu.count=2,priorityClassName=high,runtimeClassName=nvidia"),
)
TRACED = (
    *(*LEAST, "--set", "server.otlpEndpoint=http://otel-collector.observability:14317"),
    *("--set", "networkPolicy.collectors[0].namespaceSelector.matchLabels.name=observability"),
)
WAYS = {
    "least": LEAST,
    "closed": CLOSED,
    "fetched": FETCHED,
    "traced": TRACED,
    "keda": (*LEAST, *ALL_ON),
    "hpa": (*LEAST, "--set", "autoscaling.kind=hpa"),
    **{
        profile: (*CLOSED, "--values", str(CHART / f"values-{profile}.yaml"))
        for profile in ("cpu", "h100", "mig")
    },
}


def write() -> None:
    """Writes the manifests that a review reads and a test compares."""
    GOLDEN.mkdir(exist_ok=True)
    for way in READ:
        (GOLDEN / f"{way}.yaml").write_text(yaml.safe_dump_all(rendered(*WAYS[way])))


if __name__ == "__main__":
    write()
