"""Frames that come by DLPack; torch's on the CPU stand in for those on a GPU."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from av.video.reformatter import VideoReformatter

from reelserve.server.stages.clip_output import finish_clip
from reelserve.server.stages.device_video import FRAMES_AT_ONCE, encode_device_mp4, warm_up, yuv420
from reelserve.server.stages.video import DEFAULT, EncoderSettings, _yuv_frame
from tests.server.stages.decoded import decoded
from tests.server.stages.test_clip_output import inputs
from tests.server.stages.test_video import moving_square
from tests.server.tiny_repository import SPEC

NOISE = np.random.default_rng(0).integers(0, 256, (3, 66, 34, 3), np.uint8)


@dataclass
class TritonTensor:
    """What Triton hands a stage for a tensor on a GPU."""

    tensor: torch.Tensor

    def to_dlpack(self) -> Any:
        return self.tensor.__dlpack__()


def swscale(frames: np.ndarray) -> np.ndarray:
    reformatter = VideoReformatter()
    planes = [_yuv_frame(frame, reformatter).to_ndarray(format="yuv420p") for frame in frames]
    return np.stack(planes)


@pytest.mark.parametrize("frames", [NOISE, moving_square(3)], ids=["noise-66x34", "square-64x64"])
def test_yuv420_is_swscales_within_a_level(frames):
    error = yuv420(torch.from_numpy(frames)).numpy().astype(int) - swscale(frames)
    assert np.abs(error).max() <= 1
    assert (error != 0).mean() < 0.05


@pytest.mark.parametrize("num_frames", [1, FRAMES_AT_ONCE, 2 * FRAMES_AT_ONCE + 3])
def test_encode_device_mp4_keeps_every_frame_in_order(num_frames):
    frames = moving_square(num_frames)
    found = decoded(encode_device_mp4(torch.from_numpy(frames), fps=8, settings=DEFAULT)).astype(
        int
    )
    assert found.shape == frames.shape
    assert np.abs(found - frames).mean() < 4


def test_encode_device_mp4_refuses_when_rows_are_odd():
    with pytest.raises(ValueError, match="FRAMES has 63 rows and 64 columns; both must be even"):
        encode_device_mp4(torch.zeros(2, 63, 64, 3, dtype=torch.uint8), fps=8, settings=DEFAULT)


def test_finish_clip_takes_frames_by_dlpack():
    frames = moving_square(16)
    tensor = TritonTensor(torch.from_numpy(frames[None]))
    outputs = finish_clip({**inputs(), "FRAMES": tensor}, SPEC, {}, EncoderSettings(threads=2))
    assert np.abs(decoded(outputs["VIDEO"].item()).astype(int) - frames).mean() < 4


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a PyTorch that finds no GPU")
def test_warm_up_does_nothing_where_pytorch_finds_no_gpu(monkeypatch):
    monkeypatch.setattr("reelserve.server.stages.device_video.encode_device_mp4", pytest.fail)
    warm_up(DEFAULT)
