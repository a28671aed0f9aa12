import numpy as np
import pytest

from reelserve.pipeline.quality import flicker_energy, psnr

CLIP = np.full((4, 8, 8, 3), 100, np.uint8)


def test_psnr_is_infinite_when_clips_are_equal() -> None:
    assert psnr(CLIP, CLIP) == float("inf")


def test_psnr_of_one_level_is_48_db() -> None:
    assert psnr(CLIP + 1, CLIP) == pytest.approx(48.13, abs=0.01)


def test_flicker_energy_ignores_a_constant_offset() -> None:
    assert flicker_energy(CLIP + 5, CLIP) == 0


def test_flicker_energy_is_the_squared_change_of_the_error() -> None:
    flickering = CLIP.copy()
    flickering[1::2] += 51
    assert flicker_energy(flickering, CLIP) == pytest.approx(0.2**2)


def test_flicker_energy_is_zero_when_clip_has_one_frame() -> None:
    assert flicker_energy(CLIP[:1] + 5, CLIP[:1]) == 0


@pytest.mark.parametrize("measure", [psnr, flicker_energy])
def test_measure_fails_when_shapes_differ(measure) -> None:
    with pytest.raises(ValueError, match=r"clip is \[3, 8, 8, 3\], reference \[4, 8, 8, 3\]"):
        measure(CLIP[:3], CLIP)
