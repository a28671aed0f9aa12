"""AOTInductor packages on a GPU, alone and through the real server."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from reelserve.client import Client, InternalError
from reelserve.export.engines import get_engine
from reelserve.export.exporter import Exporter
from reelserve.export.families.bundled import BundledFamily
from reelserve.export.families.layout import Checkpoint
from reelserve.export.parity import ParityCase
from reelserve.export.repository import ModelRepository
from reelserve.server.engines import aoti_session
from reelserve.server.engines.aoti_session import AotiSession
from reelserve.server.launch.running_server import Server
from reelserve.server.launch.tritons import ServeOptions
from tests.export.conftest import LATENTS, TINY_TEXT, write_tiny_checkpoint
from tests.export.engines.test_aot_inductor_served import session_of
from tests.server.probes import insert_code

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
SHORT, LONG = 16, 240
"""Frames; the graphs are tuned for the former."""
REQUEST = {"num_inference_steps": 2, "seed": 3}
WATCHFUL = '''"""An encoder that takes no frames on the host from the stages that it leads."""

from reelserve.server import triton_io

FRAMES = ("FRAMES", "CONSISTENT_FRAMES", "UPSAMPLED_FRAMES")
seen = triton_io._read


def on_the_gpu(tensor):
    if tensor.name() in FRAMES and tensor.is_cpu():
        raise AssertionError(f"{tensor.name()} has left the GPU")
    return seen(tensor)


triton_io._read = on_the_gpu

'''


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> ModelRepository:
    """A tiny checkpoint in bf16, for short and long clips, with heads that the kernel takes."""
    checkpoint = write_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny", width=128)
    limits = {"num_frames": {"low": SHORT, "high": LONG, "default": SHORT}}
    family = BundledFamily(Checkpoint.open(checkpoint), limits)
    repository = ModelRepository(tmp_path_factory.mktemp("gpu") / "model_repository")
    case = ParityCase(num_frames=SHORT, num_inference_steps=1)
    engine = get_engine("pytorch")
    Exporter(family, engine, repository, case=case, precision="bf16").run()
    return repository


def set_parameter(folder: Path, stage: str, key: str, value: str) -> None:
    config = folder / stage / "configs" / "pytorch.pbtxt"
    line = f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'
    config.write_text(config.read_text() + line)


def denoiser_inputs(seed: int, frames: int = 4) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "LATENTS": rng.normal(size=(1, LATENTS["channels"], frames, 8, 8)).astype(np.float32),
        "TIMESTEP": np.full((1, 1), 500, np.float32),
        "PROMPT_EMBEDS": rng.normal(size=(1, 64, TINY_TEXT.embed_dim)).astype(np.float32),
        "ATTENTION_MASK": np.ones((1, 64), np.int64),
    }


def test_kernel_is_inside_the_package_of_the_denoiser(repository):
    path = repository.version_folder("denoiser") / "model.pt2"
    with zipfile.ZipFile(path) as package:
        sources = [name for name in package.namelist() if name.endswith(".cpp")]
        text = "".join(package.read(name).decode() for name in sources)
    assert "temporal_attention_fwd_kernel" in text or "temporal_attention_pipelined" in text


def test_cuda_graph_equals_eager(repository):
    recorded = session_of(repository, "denoiser", cuda_graphs="1")
    eager = session_of(repository, "denoiser", cuda_graphs="0")
    assert recorded._recording is not None and eager._recording is None
    inputs = [denoiser_inputs(seed) for seed in range(3)]
    # All at the end: a replay must not write over what was handed out.
    found = [recorded.run(each)["VELOCITY"] for each in inputs]
    for each, velocity in zip(inputs, found, strict=True):
        np.testing.assert_array_equal(velocity, eager.run(each)["VELOCITY"])
    assert not np.array_equal(found[0], found[1])

    other = denoiser_inputs(5, frames=7)
    np.testing.assert_array_equal(recorded.run(other)["VELOCITY"], eager.run(other)["VELOCITY"])


def test_cuda_graph_hands_out_tensors_of_their_own(repository):
    session = session_of(repository, "frame_consistency", cuda_graphs="1", output_device="gpu")
    clips = np.random.default_rng(0).integers(0, 256, (2, 1, SHORT, 128, 128, 3), np.uint8)
    first = session.run({"FRAMES": clips[0]})["CONSISTENT_FRAMES"]
    before = first.cpu()
    second = session.run({"FRAMES": clips[1]})["CONSISTENT_FRAMES"]
    assert first.is_cuda and second.is_cuda
    assert torch.equal(first.cpu(), before) and not torch.equal(first, second)


def test_session_gives_memory_back_when_the_gpu_is_full(repository, monkeypatch):
    monkeypatch.setattr(aoti_session, "FULL_BELOW", 2)
    session = session_of(repository, "upsampler", release_memory="1", output_device="cpu")
    before = torch.cuda.memory_reserved()
    session.run({"FRAMES": np.zeros((1, 64, 128, 128, 3), np.uint8)})
    assert torch.cuda.memory_reserved() <= before


@pytest.mark.server
def test_frames_stay_on_the_gpu_from_stage_to_stage(repository, tmp_path):
    folder = Path(shutil.copytree(repository.folder, tmp_path / "model_repository"))
    file = folder / "video_encoder" / "1" / "model.py"
    insert_code(file, WATCHFUL)
    with Server(ServeOptions(folder)) as server, Client(server.grpc_url) as client:
        video = client.generate("a red star", num_frames=SHORT, **REQUEST)
        again = client.generate("a red star", num_frames=SHORT, **REQUEST)
        events = list(client.stream("a red star", num_frames=SHORT, **REQUEST))
    assert video.mp4 == again.mp4 == events[-1].video.mp4
    assert "preview" in {event.kind for event in events}


@pytest.mark.server
def test_out_of_memory_fails_one_request_alone(repository, tmp_path):
    folder = Path(shutil.copytree(repository.folder, tmp_path / "model_repository"))
    limit = memory_between(session_of(repository, "upsampler"))
    set_parameter(folder, "upsampler", "gpu_memory_limit_bytes", str(limit))
    with Server(ServeOptions(folder)) as server, Client(server.grpc_url) as client:
        expected = client.generate("a red star", num_frames=SHORT, **REQUEST)
        with pytest.raises(InternalError, match=r"upsampler: out of GPU memory .* fewer frames"):
            client.generate("a red star", num_frames=LONG, **REQUEST)
        assert client.generate("a red star", num_frames=SHORT, **REQUEST).mp4 == expected.mp4


def memory_between(session: AotiSession) -> int:
    """Bytes that suffice for a short clip and not for a long one."""
    peaks = []
    for frames in (SHORT, LONG):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        session.run({"FRAMES": np.zeros((1, frames, 128, 128, 3), np.uint8)})
        peaks.append(torch.cuda.max_memory_reserved())
    assert peaks[1] > 2 * peaks[0]
    return (peaks[0] + peaks[1]) // 2
