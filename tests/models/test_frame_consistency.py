import numpy as np
import pytest
import torch

from reelserve.models.frame_consistency import FrameConsistency, _quantile
from reelserve.pipeline.quality import flicker_energy, psnr
from reelserve.training.measure_consistency import add_flicker, apply_filter

FRAMES, SIDE = 40, 64


def moving_disc(speed: float, background: float = 0.4) -> np.ndarray:
    """A bright disc over a gradient, `[F, H, W, 3]` uint8."""
    y, x = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
    ramp = background + 0.3 * y / SIDE
    clip = []
    for frame in range(FRAMES):
        distance = np.hypot(x - 10 - speed * frame, y - 30) - 8
        alpha = np.clip(0.5 - distance, 0, 1)
        clip.append(ramp * (1 - alpha) + 0.95 * alpha)
    return (np.stack(clip)[..., None] * [255, 230, 200]).astype(np.uint8)


def rain() -> np.ndarray:
    """Low-contrast streaks one pixel wide that fall two pixels a frame."""
    rng = np.random.default_rng(3)
    clip = np.full((FRAMES, SIDE, SIDE, 3), 100, np.uint8)
    for x, y in rng.integers(0, SIDE, (40, 2)):
        for frame in range(FRAMES):
            clip[frame, np.arange(y + 2 * frame, y + 2 * frame + 4) % SIDE, x] += 25
    return clip


@pytest.fixture(scope="module")
def consistency() -> FrameConsistency:
    return FrameConsistency()


@pytest.mark.parametrize("clip", [moving_disc(0.8), moving_disc(2.0), rain()])
def test_flicker_falls_when_clip_is_disturbed(
    consistency: FrameConsistency, clip: np.ndarray
) -> None:
    disturbed = add_flicker(clip, np.random.default_rng(5))
    steady = apply_filter(consistency, disturbed)
    assert flicker_energy(steady, clip) < 0.3 * flicker_energy(disturbed, clip)
    assert psnr(steady, clip) > psnr(disturbed, clip) + 3


@pytest.mark.parametrize("clip", [moving_disc(0.8), moving_disc(2.0), rain()])
def test_clip_passes_when_it_is_undisturbed(
    consistency: FrameConsistency, clip: np.ndarray
) -> None:
    assert psnr(apply_filter(consistency, clip), clip) > 55


def test_brightness_jitter_alone_is_removed(consistency: FrameConsistency) -> None:
    clip = moving_disc(1.0)
    gain = 1 + np.random.default_rng(6).uniform(-0.03, 0.03, (FRAMES, 1, 1, 1))
    jittered = (clip * gain).clip(0, 255).astype(np.uint8)
    steady = apply_filter(consistency, jittered)
    assert flicker_energy(steady, clip) < 0.1 * flicker_energy(jittered, clip)


def test_fade_is_kept(consistency: FrameConsistency) -> None:
    fade = np.linspace(0.5, 1.0, FRAMES)[:, None, None, None]
    clip = (moving_disc(1.0) * fade).astype(np.uint8)
    assert psnr(apply_filter(consistency, clip), clip) > 45


@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 16, 8), (3, 9, 21), (7, 33, 40)])
def test_any_size_is_filtered(consistency: FrameConsistency, shape: tuple[int, int, int]) -> None:
    frames, height, width = shape
    clip = torch.rand(1, frames, 3, height, width)
    out = consistency(clip)
    assert out.shape == clip.shape
    assert torch.isfinite(out).all()


def test_single_frame_is_unchanged(consistency: FrameConsistency) -> None:
    clip = torch.rand(1, 1, 3, 16, 16)
    torch.testing.assert_close(consistency(clip), clip)


def test_black_clip_stays_black(consistency: FrameConsistency) -> None:
    assert consistency(torch.zeros(1, 5, 3, 16, 16)).abs().max() == 0


def test_rows_of_a_batch_do_not_meet(consistency: FrameConsistency) -> None:
    clips = torch.rand(3, 6, 3, 16, 24)
    alone = torch.cat([consistency(clip[None]) for clip in clips])
    torch.testing.assert_close(consistency(clips), alone)


@pytest.mark.parametrize("share", [0.01, 0.4, 0.99])
def test_quantile_is_that_of_sorted_samples(share: float) -> None:
    torch.manual_seed(0)
    samples = torch.stack([torch.rand(1001), torch.rand(1001) * 1e-3, torch.zeros(1001)])
    exact = samples.sort(1).values[:, round(share * 100) * 1001 // 100]
    found = _quantile(samples, share, 1.0)[:, 0]
    assert ((found >= exact) & (found - exact <= 2**-15)).all()


def test_quantile_is_the_bound_when_it_lies_above() -> None:
    assert _quantile(torch.full((1, 9), 3.0), 0.4, 1.0).item() == 1.0
