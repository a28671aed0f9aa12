import numpy as np
from PIL import Image, ImageDraw

from reelserve.training.scene.make_sprites import fit_sprite, lay_out
from reelserve.training.scene.sprites import PER_ROW, SPRITE_SIDE


def test_a_drawing_is_scaled_and_centred() -> None:
    drawing = Image.new("RGBA", (512, 512))
    ImageDraw.Draw(drawing).rectangle((100, 40, 199, 239), fill=(200, 30, 10, 255))
    sprite = np.asarray(fit_sprite(drawing))
    rows, columns = np.nonzero(sprite[..., 3] > 128)
    assert [rows.min(), rows.max(), columns.min(), columns.max()] == [2, 125, 33, 94]


def test_what_is_transparent_has_the_colour_of_the_drawing() -> None:
    drawing = Image.new("RGBA", (512, 512))
    ImageDraw.Draw(drawing).ellipse((100, 40, 199, 239), fill=(200, 30, 10, 255))
    sprite = np.asarray(fit_sprite(drawing)).astype(int)
    near = np.abs(sprite[..., :3] - (200, 30, 10)).max(axis=-1)
    assert near[:, 20:108].max() <= 12


def test_sprites_lie_in_rows() -> None:
    sprites = [Image.new("RGBA", (SPRITE_SIDE,) * 2, (k, 0, 0, 255)) for k in range(PER_ROW + 2)]
    sheet = lay_out(sprites)
    assert sheet.size == (PER_ROW * SPRITE_SIDE, 2 * SPRITE_SIDE)
    assert sheet.getpixel((SPRITE_SIDE + 5, SPRITE_SIDE + 5)) == (PER_ROW + 1, 0, 0, 255)
