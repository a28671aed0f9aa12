"""Stages that hold one resource never run at the same time."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tritonclient.grpc import InferenceServerClient

from reelserve.server.launch.triton_process import SCHEDULING
from tests.server.bare import bare_triton
from tests.server.grpc_requests import infer_input

ALONE = '''"""Fails where another model of this kind runs already."""

import os
import time

import triton_python_backend_utils as pb_utils

PLACE = {place!r}


class TritonPythonModel:
    def execute(self, requests):
        os.mkdir(PLACE)
        time.sleep(0.02)
        os.rmdir(PLACE)
        return [pb_utils.InferenceResponse([]) for _ in requests]
'''
CONFIG = """name: "{name}"
backend: "python"
input [ {{ name: "X", data_type: TYPE_FP32, dims: [ 1 ] }} ]
output [ {{ name: "Y", data_type: TYPE_FP32, dims: [ 1 ] }} ]
instance_group [ {{
  count: 1, kind: KIND_CPU
  rate_limiter {{ resources [ {{ name: "peak_memory", count: 1 }} ] }}
}} ]
"""


@pytest.fixture
def repository(tiny_repository: Path, tmp_path: Path):
    """Two models beside those of the tiny repository."""
    folder = Path(shutil.copytree(tiny_repository, tmp_path / "model_repository"))
    for name in ("first", "second"):
        (folder / name / "1").mkdir(parents=True)
        (folder / name / "config.pbtxt").write_text(CONFIG.format(name=name))
        model = ALONE.format(place=str(tmp_path / "running"))
        (folder / name / "1" / "model.py").write_text(model)
    return folder


@pytest.mark.server
def test_models_that_share_a_resource_run_one_at_a_time(repository):
    # The front end lets nobody call them.
    with bare_triton(repository, *SCHEDULING) as server:

        def call(number: int) -> None:
            with InferenceServerClient(server.grpc_url) as client:
                client.infer(("first", "second")[number % 2], [infer_input("X", 0.0, "FP32")])

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(call, range(40)))
