"""Draws clips as rows of frames under their prompts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from reelserve.pipeline.atomic_file import replaced_file

_FRAMES_SHOWN = 8
_ZOOM = 0.75
_TITLE_PX = 16
_COLUMNS = 2


def save_sample_sheet(path: Path, prompts: list[str], frames: Tensor) -> None:
    """Writes a picture with a row of evenly spaced frames for each clip.

    Args:
        path: PNG or JPEG to write; its folder is created.
        prompts: `N` titles.
        frames: `[N, 3, F, H, W]` in [0, 1].
    """
    shown = np.linspace(0, frames.shape[2] - 1, _FRAMES_SHOWN).round().astype(int)
    pixels = (frames[:, :, shown].permute(0, 3, 2, 4, 1) * 255).round().byte().cpu().numpy()
    n, h, f, w, _ = pixels.shape
    strips = pixels.reshape(n, h, f * w, 3)
    strip_w, strip_h = int(f * w * _ZOOM), int(h * _ZOOM)
    rows = -(-n // _COLUMNS)
    sheet = Image.new("RGB", (strip_w * _COLUMNS, (strip_h + _TITLE_PX) * rows), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (prompt, strip) in enumerate(zip(prompts, strips, strict=True)):
        left = (index % _COLUMNS) * strip_w
        top = (index // _COLUMNS) * (strip_h + _TITLE_PX)
        draw.text((left + 4, top + 2), prompt, fill="black")
        image = Image.fromarray(strip).resize((strip_w, strip_h), Image.Resampling.LANCZOS)
        sheet.paste(image, (left, top + _TITLE_PX))
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced_file(path) as partial:
        sheet.save(partial, format="png" if path.suffix == ".png" else "jpeg", quality=82)
