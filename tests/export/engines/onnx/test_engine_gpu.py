"""ONNX graphs on a GPU, through the real server: ONNX Runtime's CUDA provider."""

from __future__ import annotations

import onnxruntime
import pytest

from reelserve.client import Client
from reelserve.export.engines import get_engine
from reelserve.export.exporter import Exporter
from reelserve.export.parity import ParityCase, ParityCheck, torch_runner
from reelserve.export.parity_limits import MIN_GRAPH_PSNR_DB
from reelserve.export.repository import ModelRepository
from reelserve.pipeline.contract import STAGES
from reelserve.pipeline.quality import psnr
from reelserve.runtimes.onnx_graph import CUDA_PROVIDER
from reelserve.server.launch.running_server import Server
from reelserve.server.launch.tritons import ServeOptions
from tests.export.families import served
from tests.server.bare import bare_triton

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.server,
    pytest.mark.skipif(
        CUDA_PROVIDER not in onnxruntime.get_available_providers(),
        reason="needs onnxruntime-gpu and an NVIDIA GPU",
    ),
]
ENGINE = get_engine("onnxruntime-gpu")
CLIP = ParityCase(num_frames=20, num_inference_steps=2, seed=11)
PROMPT = "a red circle moves across a plain background"


@pytest.mark.parametrize(("precision", "least_db"), [("fp32", MIN_GRAPH_PSNR_DB), ("fp16", 40)])
def test_served_frames_are_those_of_torch_in_fp32(family, tmp_path, precision, least_db):
    repository = ModelRepository(tmp_path / "model_repository")
    Exporter(family, ENGINE, repository, case=CLIP, precision=precision).run()

    stages = [name for name, stage in STAGES.items() if stage.engine]
    runners = {name: torch_runner(family.build(name, ENGINE.target("fp32"))) for name in stages}
    check = ParityCheck(family.spec(), family.tokenizer(), CLIP)
    expected = check.generate(runners)["upsampler"].output[0]

    request = {"seed": CLIP.seed, "num_frames": 20, "num_inference_steps": 2}
    with bare_triton(repository.folder) as stages:
        found = served.frames(stages.grpc_url, prompt=PROMPT, **request)
    with Server(ServeOptions(repository.folder)) as server, Client(server.grpc_url) as client:
        video, again = (client.generate(PROMPT, **request) for _ in range(2))
    assert found.shape == expected.shape
    assert psnr(found, expected) >= least_db
    assert video.mp4 == again.mp4
    assert video.info.engine == ENGINE.name
