"""Frames of a clip side by side in one picture."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFont

COLUMNS, ROWS = 4, 3
GAP_PX = 4
TITLE_PX = 28
TITLE_FONT_PX = 16
BACKGROUND = "white"


def save_contact_sheet(mp4: bytes, title: str, path: Path) -> None:
    """Writes a PNG of frames evenly spaced over a clip, under a title.

    Args:
        mp4: The bytes of an MP4 file.
        title: Cut at the edge of the picture.
        path: Of the PNG; its folder exists.

    Raises:
        ValueError: If the file holds no frame.
    """
    frames = evenly_spaced_frames(mp4, COLUMNS * ROWS)
    width, height = frames[0].size
    cell_w, cell_h = width + GAP_PX, height + GAP_PX
    sheet = Image.new("RGB", (COLUMNS * cell_w + GAP_PX, ROWS * cell_h + TITLE_PX), BACKGROUND)
    font = ImageFont.load_default(TITLE_FONT_PX)
    ImageDraw.Draw(sheet).text((GAP_PX, GAP_PX), title, fill="black", font=font)
    for index, frame in enumerate(frames):
        row, column = divmod(index, COLUMNS)
        sheet.paste(frame, (GAP_PX + column * cell_w, TITLE_PX + row * cell_h))
    sheet.save(path)


def evenly_spaced_frames(mp4: bytes, count: int) -> list[Image.Image]:
    """`count` frames from first to last; a short clip repeats some.

    Raises:
        ValueError: If the file holds no frame.
    """
    with av.open(io.BytesIO(mp4), "r") as container:
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    if not decoded:
        raise ValueError("the MP4 file holds no frame")
    chosen = np.linspace(0, len(decoded) - 1, count).round().astype(int)
    return [Image.fromarray(decoded[index]) for index in chosen]
