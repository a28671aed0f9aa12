"""NVIDIA's load tool measures the server as it measures any ensemble, and agrees with it."""

from __future__ import annotations

import csv
import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tritonclient.grpc import InferenceServerClient

from tests.perf_analyzer import perf_analyzer_command
from tests.tool_output import ToolError

pytestmark = pytest.mark.server

FOLDER = Path(__file__).parents[2] / "build" / "perf_analyzer"
REQUEST_COUNT = re.compile(r"Client:\s+Request count: (\d+)")
COMPOSING_MODEL = re.compile(r"^ *(\w+), version: ", re.MULTILINE)
SHORT_CLIP = {"prompt": "a red star", "seed": 7, "num_inference_steps": 4}
# So long that what a call costs beside it does not count.
LONG_CLIP = {
    "prompt": "a blue circle moves slowly",
    "seed": 7,
    "num_inference_steps": 50,
    "guidance_scale": 2.5,
    "num_frames": 64,
    "height": 128,
    "width": 128,
}
DEADLINE_S = 240


@dataclass(frozen=True)
class Measured:
    """What `perf_analyzer` reports of one load.

    Args:
        requests: Those answered; a single failed one ends it with an error.
        latency_ms: Mean over them.
        stages: Its "composing models".
    """

    requests: int
    latency_ms: float
    stages: set[str]


@pytest.fixture(scope="session")
def perf_analyzer() -> list[str]:
    try:
        return perf_analyzer_command(FOLDER)
    except ToolError as error:
        pytest.skip(f"no perf_analyzer: {error}")


def measure(
    command: list[str], url: str, folder: Path, concurrency: int, requests: int, **fields: Any
) -> Measured:
    """Sends equal requests, `concurrency` at a time; `fields` in lower case."""
    tensors = {name.upper(): {"content": [value], "shape": [1]} for name, value in fields.items()}
    (folder / "in.json").write_text(json.dumps({"data": [tensors]}))
    arguments = (
        f"-m text_to_video -i grpc -u {url} --input-data in.json -f out.csv --verbose-csv "
        f"--concurrency-range {concurrency} --request-count {requests}"
    ).split()
    done = subprocess.run(
        [*command, *arguments], cwd=folder, capture_output=True, text=True, timeout=DEADLINE_S
    )
    # Its error comes first, a page of usage after it.
    assert done.returncode == 0, done.stderr[:1000]
    count = REQUEST_COUNT.search(done.stdout)
    assert count, done.stdout
    (row,) = csv.DictReader((folder / "out.csv").read_text().splitlines())
    assert int(row["Concurrency"]) == concurrency
    _, _, composing = done.stdout.partition("Composing models:")
    return Measured(
        int(count[1]), float(row["Avg latency"]) / 1000, set(COMPOSING_MODEL.findall(composing))
    )


@pytest.fixture
def triton(tiny_server):
    with InferenceServerClient(tiny_server.grpc_url) as client:
        yield client


def ensemble_statistics(triton):
    return triton.get_inference_statistics("text_to_video").model_stats[0].inference_stats


@pytest.mark.parametrize("concurrency", [1, 2, 4])
def test_perf_analyzer_measures_every_stage(
    perf_analyzer, tiny_server, triton, tmp_path, concurrency
):
    config = triton.get_model_config("text_to_video").config
    stages = {step.model_name for step in config.ensemble_scheduling.step}
    failed = ensemble_statistics(triton).fail.count
    requests = 4 * concurrency
    measured = measure(
        perf_analyzer, tiny_server.grpc_url, tmp_path, concurrency, requests, **SHORT_CLIP
    )
    assert measured.requests == requests
    assert measured.latency_ms > 0
    assert stages
    assert measured.stages == stages
    assert ensemble_statistics(triton).fail.count == failed


def test_triton_counts_the_time_that_callers_wait(perf_analyzer, tiny_server, triton, tmp_path):
    before = ensemble_statistics(triton).success
    measured = measure(perf_analyzer, tiny_server.grpc_url, tmp_path, 1, 6, **LONG_CLIP)
    after = ensemble_statistics(triton).success
    clips = after.count - before.count
    assert clips == measured.requests == 6
    assert (after.ns - before.ns) / clips / 1e6 == pytest.approx(measured.latency_ms, rel=0.05)
