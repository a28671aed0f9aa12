from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from reelserve.tools.demo.contact_sheet import (
    COLUMNS,
    GAP_PX,
    ROWS,
    TITLE_PX,
    evenly_spaced_frames,
    save_contact_sheet,
)


@pytest.mark.parametrize("num_frames", [1, 5, 12, 23])
def test_evenly_spaced_frames_go_from_first_to_last(make_mp4, num_frames):
    frames = evenly_spaced_frames(make_mp4(num_frames), 12)
    greys = [int(np.asarray(frame).mean()) for frame in frames]
    assert len(greys) == 12
    assert greys == sorted(greys)
    assert greys[0] <= 3
    assert abs(greys[-1] - 10 * (num_frames - 1)) <= 3


def test_save_contact_sheet_draws_a_grid_under_a_title(make_mp4, tmp_path):
    path = tmp_path / "sheet.png"
    save_contact_sheet(make_mp4(12), "a title, ein Titel, 标题", path)
    sheet = np.asarray(Image.open(path))
    cell = 32 + GAP_PX
    assert sheet.shape == (ROWS * cell + TITLE_PX, COLUMNS * cell + GAP_PX, 3)
    assert sheet[:TITLE_PX].min() < 100
    last = sheet[TITLE_PX + 2 * cell + 16, GAP_PX + 3 * cell + 16]
    assert abs(int(last[0]) - 110) <= 3


def test_evenly_spaced_frames_raises_when_there_is_none():
    with pytest.raises((ValueError, OSError)):
        evenly_spaced_frames(b"no mp4", 12)
