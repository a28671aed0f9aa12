"""Draws the sheet of sprites from an icon set of Noto emoji.

    python -m reelserve.training.scene.make_sprites --icons DIRECTORY

`DIRECTORY` is the unpacked npm package `@iconify-json/noto`, of which `icons.json` and `chars.json`
are read. This command alone needs `resvg-py` (0.5.0 drew the committed sheet); whoever trains
reads the sheet and needs neither.
"""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from reelserve.training.scene.sprites import PER_ROW, SHEET_FILE, SPRITE_SIDE
from reelserve.training.scene.vocabulary import THINGS_FILE

_DRAWN_SIDE = 4 * SPRITE_SIDE
_LONGER_SIDE = 124
_QUALITY = 93


def main() -> None:
    """Writes the sheet of all things of `things.json`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--icons", type=Path, required=True, help="the unpacked icon package")
    parser.add_argument("--to", type=Path, default=SHEET_FILE)
    arguments = parser.parse_args()
    icons = json.loads((arguments.icons / "icons.json").read_text())
    names = json.loads((arguments.icons / "chars.json").read_text())
    things = json.loads(THINGS_FILE.read_text())
    sprites = [fit_sprite(_draw_icon(icons, names[thing["code"]])) for thing in things]
    sheet = lay_out(sprites)
    sheet.save(arguments.to, quality=_QUALITY, alpha_quality=100, method=6, exact=True)


def _draw_icon(icons: dict[str, Any], name: str) -> Image.Image:
    """One icon as RGBA, `_DRAWN_SIDE` pixels a side."""
    import resvg_py

    while name not in icons["icons"]:
        name = icons["aliases"][name]["parent"]
    icon = icons["icons"][name]
    width, height = (icon.get(side, icons[side]) for side in ("width", "height"))
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {width} {height}">{icon["body"]}</svg>'
    )
    drawn = resvg_py.svg_to_bytes(svg_string=svg, width=_DRAWN_SIDE, height=_DRAWN_SIDE)
    return Image.open(io.BytesIO(bytes(drawn))).convert("RGBA")


def fit_sprite(drawing: Image.Image) -> Image.Image:
    """Scales what is drawn to fill a sprite and centres it.

    The colour is carried on into the transparent surroundings, so that neither the lossy sheet
    nor a blend of neighbours mixes a dark fringe into the edge.

    Args:
        drawing: RGBA of any size, partly transparent.

    Returns:
        RGBA, `SPRITE_SIDE` pixels a side.
    """
    box = drawing.getchannel("A").point(lambda alpha: 255 * (alpha > 8)).getbbox()
    if box is None:
        raise ValueError("An empty drawing cannot become a sprite.")
    # "RGBa" is Pillow's name for colour multiplied by alpha.
    cut = drawing.crop(box).convert("RGBa")
    scale = _LONGER_SIDE / max(cut.size)
    size = tuple(max(1, round(side * scale)) for side in cut.size)
    small = cut.resize((size[0], size[1]), Image.Resampling.BOX)
    sprite = Image.new("RGBa", (SPRITE_SIDE, SPRITE_SIDE))
    sprite.paste(small, ((SPRITE_SIDE - size[0]) // 2, (SPRITE_SIDE - size[1]) // 2))
    return _bleed(sprite)


def _bleed(sprite: Image.Image) -> Image.Image:
    """Undoes the multiplication by alpha and fills what is transparent with colours from nearby."""
    alpha = np.asarray(sprite)[..., 3]
    known = np.zeros(alpha.shape, bool)
    multiplied = np.asarray(sprite, np.float32).reshape(-1, 4).sum(axis=0)
    filled = np.full((*alpha.shape, 3), 255 * multiplied[:3] / multiplied[3], np.float32)
    for radius in (0, 1, 2, 4, 8, 16):
        blurred = np.asarray(sprite.filter(ImageFilter.BoxBlur(radius)), np.float32)
        # Eight bits multiplied by less leave too few levels to tell the colour by.
        new = ~known & (blurred[..., 3] >= 32)
        filled[new] = 255 * blurred[new][:, :3] / blurred[new][:, 3:]
        known |= new
    colour = filled.clip(0, 255).round().astype(np.uint8)
    return Image.fromarray(np.dstack([colour, alpha]), "RGBA")


def lay_out(sprites: list[Image.Image]) -> Image.Image:
    """The sheet: sprites in rows of `PER_ROW`, from the top left."""
    rows = -(-len(sprites) // PER_ROW)
    sheet = Image.new("RGBA", (PER_ROW * SPRITE_SIDE, rows * SPRITE_SIDE))
    for index, sprite in enumerate(sprites):
        row, column = divmod(index, PER_ROW)
        sheet.paste(sprite, (column * SPRITE_SIDE, row * SPRITE_SIDE))
    return sheet


if __name__ == "__main__":
    main()
