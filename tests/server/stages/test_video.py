import io

import av
import numpy as np
import pytest

from reelserve.pipeline.quality import psnr
from reelserve.server.stages.video import CRF, LOSSLESS_CRF, EncoderSettings, encode_mp4
from reelserve.tools.bench.tensorrt.stage import moving_frames
from tests.server.stages.decoded import decoded


def moving_square(num_frames: int = 24, size: int = 64) -> np.ndarray:
    """A red square that crosses a blue picture."""
    frames = np.zeros((num_frames, size, size, 3), np.uint8)
    frames[..., 2] = 200
    for index in range(num_frames):
        frames[index, 20:36, 2 * (index % 24) : 2 * (index % 24) + 16] = (220, 30, 20)
    return frames


def test_encode_mp4_gives_h264_that_a_browser_plays():
    video = encode_mp4(moving_square(), fps=8)
    with av.open(io.BytesIO(video)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert (stream.width, stream.height) == (64, 64)
        assert (float(stream.average_rate), stream.frames) == (8.0, 24)
        assert stream.codec_context.colorspace == 1


def test_encode_mp4_puts_the_index_before_the_frames():
    video = encode_mp4(moving_square(), fps=8)

    assert video[4:8] == b"ftyp"
    assert video.index(b"moov") < video.index(b"mdat")


def test_encode_mp4_keeps_the_pictures():
    frames = moving_square()
    with av.open(io.BytesIO(encode_mp4(frames, fps=8))) as container:
        decoded = np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])
    error = np.abs(decoded.astype(int) - frames)

    assert decoded.shape == frames.shape
    assert error.mean() < 4
    # Inside the square and the plain: colours, not only shapes.
    assert error[0, 24:32, 4:12].max() < 12 and error[0, 50:, 50:].max() < 12


@pytest.mark.parametrize("num_frames", [1, 80])
def test_encode_mp4_gives_the_same_bytes_when_repeated(num_frames):
    frames = np.random.default_rng(0).integers(0, 256, (num_frames, 64, 96, 3), np.uint8)

    assert encode_mp4(frames, fps=30) == encode_mp4(frames, fps=30)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((0, 64, 64, 3), r"FRAMES has shape \[0, 64, 64, 3\]"),
        ((4, 64, 64), r"FRAMES has shape \[4, 64, 64\]"),
        ((4, 64, 64, 4), r"FRAMES has shape \[4, 64, 64, 4\]"),
        ((4, 63, 64, 3), "63 rows and 64 columns; both must be even"),
    ],
)
def test_encode_mp4_refuses_when_frames_have_another_shape(shape, message):
    with pytest.raises(ValueError, match=message):
        encode_mp4(np.zeros(shape, np.uint8), fps=8)


def test_a_clip_of_the_best_quality_loses_nothing_but_colour_that_is_halved():
    frames = np.repeat(np.random.default_rng(0).integers(0, 256, (3, 32, 48, 1), np.uint8), 3, -1)

    grey = decoded(encode_mp4(frames, fps=8, settings=EncoderSettings(crf=LOSSLESS_CRF)))

    # 219 levels of brightness for 256.
    assert np.abs(grey.astype(int) - frames).max() <= 1
    assert psnr(decoded(encode_mp4(frames, fps=8)), frames) < 40


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"crf": 52}, "encoder_crf is 52; it must be 0 to 51"),
        ({"threads": 0}, "encoder_threads is 0; it must be 1 or more"),
    ],
)
def test_encoder_settings_out_of_range_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        EncoderSettings(**setting)


def test_encoder_drives_clips_apart_that_differ_by_a_level_and_lossless_ones_far_less():
    """Why clips that are compared are lossless."""
    frames = moving_frames((1, 24, 128, 128, 3))[0]
    flips = np.random.default_rng(0).choice([-1, 0, 1], p=[0.06, 0.88, 0.06], size=frames.shape)
    other = (frames.astype(int) + flips).clip(0, 255).astype(np.uint8)

    usual, lossless = (
        psnr(*(decoded(encode_mp4(clip, 8, EncoderSettings(crf=crf))) for clip in (frames, other)))
        for crf in (CRF, LOSSLESS_CRF)
    )

    assert psnr(frames, other) > 57
    assert usual < 45 and lossless > 50
