"""AOTInductor packages through the real server, and the session that runs them there."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2 as protos

from reelserve.client import Client, InvalidArgumentError
from reelserve.export.engines import get_engine
from reelserve.export.parity import ParityCase, ParityCheck, torch_runner
from reelserve.pipeline.contract import STAGES
from reelserve.pipeline.quality import psnr
from reelserve.server.engines.aoti_session import AotiSession, AotiSettings, check_package
from reelserve.server.launch.running_server import Server
from reelserve.server.launch.tritons import ServeOptions
from reelserve.server.stages.video import encode_mp4
from tests.server.stages.decoded import decoded

pytestmark = pytest.mark.compile

ENGINE = get_engine("pytorch")
MIN_ENCODED_PSNR_DB = 28.0
"""Random weights draw noise, which the encoder gives back only so alike where a level differs."""
PROMPT = "a red circle moves across a plain background"
KIND = "GPU" if torch.cuda.is_available() else "CPU"


@pytest.fixture(scope="module")
def server(compiled) -> Iterator[Server]:
    repository, _ = compiled
    with Server(ServeOptions(repository.folder)) as running:
        yield running


def config_of(repository, stage: str) -> dict:
    """The config as Triton hands it to a stage."""
    text = (repository.folder / stage / "configs" / "pytorch.pbtxt").read_text()
    config = json_format.MessageToDict(
        text_format.Parse(text, protos.ModelConfig()), preserving_proto_field_name=True
    )
    parameters = config.pop("parameters")
    for tensor in (*config["input"], *config["output"]):
        tensor["dims"] = [int(dim) for dim in tensor["dims"]]
    return {**config, "max_batch_size": 0, "parameters": parameters}


def session_of(repository, stage: str, **parameters: str) -> AotiSession:
    config = config_of(repository, stage)
    config["parameters"].update({key: {"string_value": v} for key, v in parameters.items()})
    settings = AotiSettings.from_config(config, KIND, 0)
    return AotiSession(repository.version_folder(stage) / "model.pt2", config, settings)


@pytest.mark.server
def test_served_frames_are_those_of_torch(server, compiled_family):
    case = ParityCase(num_frames=20, num_inference_steps=2, seed=11)
    stages = ("text_encoder", "denoiser", "vae_decoder", "frame_consistency", "upsampler")
    runners = {
        name: torch_runner(compiled_family.build(name, ENGINE.target("fp32"))) for name in stages
    }
    check = ParityCheck(compiled_family.spec(), compiled_family.tokenizer(), case)
    expected = check.generate(runners)["upsampler"].output[0]
    with Client(server.grpc_url) as client:
        video = client.generate(PROMPT, seed=11, num_frames=20, num_inference_steps=2)
    assert (video.info.engine, video.info.num_frames) == ("pytorch", 20)
    assert "torch" in video.info.versions
    found = decoded(video.mp4)
    assert found.shape == expected.shape
    # To the last level they are compared at the end of an export.
    assert psnr(found, decoded(encode_mp4(expected, video.info.fps))) >= MIN_ENCODED_PSNR_DB


@pytest.mark.server
def test_clip_is_drawn_by_a_stream(server):
    with Client(server.grpc_url) as client:
        events = list(client.stream("a blue star", seed=1, num_frames=24, num_inference_steps=2))
        with pytest.raises(InvalidArgumentError, match="NUM_FRAMES is 28; the limits are 16 to 24"):
            client.generate("a red star", num_frames=28)
    assert {event.kind for event in events} >= {"step", "preview", "clip"}
    assert events[-1].video.info.num_frames == 24


@pytest.mark.server
def test_clip_is_the_same_beside_others_that_step_at_their_own_pace(server):
    def drawn(seed: int) -> bytes:
        with Client(server.grpc_url) as client:
            return client.generate(
                "a red star", seed=seed, num_frames=16, num_inference_steps=5
            ).mp4

    def left(seed: int) -> str:
        with Client(server.grpc_url) as client:
            for event in client.stream("a blue star", seed=seed, num_inference_steps=50):
                if event.kind == "step":
                    return event.kind
        return "never stepped"

    alone = drawn(0)
    with ThreadPoolExecutor(4) as pool:
        leaving = [pool.submit(left, seed) for seed in (10, 11)]
        together = list(pool.map(drawn, range(2)))
    assert [clip.result() for clip in leaving] == ["step", "step"]
    assert together[0] == alone != together[1]


@pytest.mark.parametrize("stage", [name for name, stage in STAGES.items() if stage.engine])
def test_configs_fit_their_packages(compiled, stage):
    repository, _ = compiled
    session = session_of(repository, stage)
    assert [spec.name for spec in session.spec.inputs] == [
        spec.name for spec in STAGES[stage].inputs
    ]


def test_session_takes_tensors_by_dlpack(compiled):
    repository, _ = compiled
    session = session_of(repository, "frame_consistency", output_device="cpu")
    frames = np.random.default_rng(0).integers(0, 256, (1, 18, 64, 64, 3), np.uint8)
    on_device = torch.from_numpy(frames).to(session.device)
    expected = session.run({"FRAMES": frames})["CONSISTENT_FRAMES"]
    found = session.run({"FRAMES": on_device.__dlpack__()})["CONSISTENT_FRAMES"]
    np.testing.assert_array_equal(found, expected)


def test_session_refuses_when_a_size_is_out_of_range(compiled):
    repository, _ = compiled
    session = session_of(repository, "upsampler")
    with pytest.raises(ValueError, match=r"FRAMES has shape \[1, 40, 64, 64, 3\]; its dimension 1"):
        session.run({"FRAMES": np.zeros((1, 40, 64, 64, 3), np.uint8)})
    with pytest.raises(ValueError, match="FRAMES is float32; the graph takes UINT8"):
        session.run({"FRAMES": np.zeros((1, 16, 64, 64, 3), np.float32)})


def test_check_package_names_every_difference(compiled):
    repository, _ = compiled
    config, spec = config_of(repository, "vae_decoder"), session_of(repository, "vae_decoder").spec
    with pytest.raises(ValueError, match="max_batch_size is 4; a package has a batch of 1"):
        check_package({**config, "max_batch_size": 4}, spec)
    config["input"][0]["dims"] = [1, 16, 9, 4, 4]
    config["output"][0]["data_type"] = "TYPE_FP32"
    config["output"].append({"name": "MORE", "data_type": "TYPE_FP32", "dims": [1]})
    with pytest.raises(ValueError) as raised:
        check_package(config, spec)
    for part in (
        "the graph takes 4 to 6 in dimension 2",
        "output FRAMES is TYPE_FP32 in the config and UINT8 in the graph",
        "output MORE is in the config but not in the graph",
    ):
        assert part in str(raised.value)


@pytest.mark.parametrize(
    ("parameter", "value", "message"),
    [
        ("cuda_graphs", "yes", "parameter cuda_graphs is 'yes'; it must be 0 or 1"),
        ("output_device", "tpu", r"parameter output_device is 'tpu'; it must be one of \['cpu'"),
        ("gpu_memory_limit_bytes", "80G", "must be a whole number, 0 or more"),
    ],
)
def test_settings_refuse_when_a_parameter_is_unknown(compiled, parameter, value, message):
    repository, _ = compiled
    config = config_of(repository, "denoiser")
    config["parameters"][parameter] = {"string_value": value}
    with pytest.raises(ValueError, match=message):
        AotiSettings.from_config(config, "GPU", 0)
