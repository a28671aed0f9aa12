import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reelserve.pipeline.windows import (
    blend_windows,
    split_windows,
    window_starts,
    window_weights,
)


@st.composite
def layouts(draw):
    window = draw(st.integers(2, 24))
    return draw(st.integers(1, 120)), window, draw(st.integers(0, window - 1))


def test_window_starts_is_one_window_when_the_clip_fits():
    assert window_starts(20, 20, 8) == (0,)
    assert window_starts(4, 20, 8) == (0,)


def test_window_starts_spread_evenly_when_the_clip_is_longer():
    assert window_starts(21, 20, 8) == (0, 1)
    assert window_starts(32, 20, 8) == (0, 12)
    assert window_starts(60, 20, 8) == (0, 10, 20, 30, 40)


@given(layouts())
def test_windows_cover_the_clip_and_overlap_enough(layout):
    num_frames, window, overlap = layout
    starts = window_starts(num_frames, window, overlap)
    length = min(window, num_frames)

    assert starts[0] == 0
    assert starts[-1] + length == num_frames
    for start, following in itertools.pairwise(starts):
        assert start < following <= start + window - overlap


@given(layouts())
def test_window_weights_sum_to_one_at_every_frame(layout):
    num_frames, window, overlap = layout
    starts = window_starts(num_frames, window, overlap)
    weights = window_weights(num_frames, starts, window, overlap)
    total = np.zeros(num_frames)
    for start, row in zip(starts, weights, strict=True):
        total[start : start + len(row)] += row

    assert weights.dtype == np.float32
    assert np.all(weights > 0) and np.all(weights <= 1)
    np.testing.assert_allclose(total, 1, atol=1e-6)


def test_window_weights_fade_smoothly_over_the_overlap():
    weights = window_weights(32, (0, 12), 20, 8)

    assert np.all(weights[0, :12] == 1) and np.all(weights[1, 8:] == 1)
    assert np.all(np.diff(weights[0, 12:]) < 0)
    np.testing.assert_allclose(weights[0, 12:], weights[1, :8][::-1], atol=1e-6)


@given(layouts())
def test_blend_windows_undoes_split_windows(layout):
    num_frames, window, overlap = layout
    clip = np.random.default_rng(num_frames).standard_normal((3, num_frames, 2, 1), np.float32)
    starts = window_starts(num_frames, window, overlap)
    weights = window_weights(num_frames, starts, window, overlap)
    windows = split_windows(clip, starts, window)

    assert windows.shape == (len(starts), 3, min(window, num_frames), 2, 1)
    np.testing.assert_allclose(blend_windows(windows, starts, weights, num_frames), clip, atol=1e-5)


def test_blend_windows_is_exact_when_there_is_one_window():
    clip = np.random.default_rng(0).standard_normal((16, 20, 8, 8), np.float32)
    weights = window_weights(20, (0,), 20, 8)

    np.testing.assert_array_equal(blend_windows(clip[None], (0,), weights, 20), clip)


@pytest.mark.parametrize("overlap", [-1, 20, 25])
def test_window_starts_refuse_when_the_overlap_is_no_part_of_a_window(overlap):
    with pytest.raises(ValueError, match=f"window_overlap is {overlap}; the limits are 0 to 19"):
        window_starts(40, 20, overlap)
