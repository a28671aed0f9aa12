from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reelserve.training.scene import sprites
from reelserve.training.scene.sprites import (
    PER_ROW,
    SHEET_FILE,
    SPRITE_SIDE,
    all_sprites,
    cache_sprites,
    load_sprites,
    render_shapes,
)
from reelserve.training.scene.vocabulary import SHAPES, thing_names


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    return all_sprites()


def test_every_name_has_a_sprite_that_fills_it(pictures: torch.Tensor) -> None:
    assert pictures.shape == (len(thing_names()), 4, SPRITE_SIDE, SPRITE_SIDE)
    for name, alpha in zip(thing_names(), pictures[:, 3], strict=True):
        assert 0.08 < alpha.mean() < 0.95, name
        rows, columns = torch.nonzero(alpha > 0.02).unbind(1)
        longer = max(rows.max() - rows.min(), columns.max() - columns.min()) + 1
        assert 122 <= longer <= 126, name


def test_the_sheet_has_no_empty_row() -> None:
    with Image.open(SHEET_FILE) as sheet:
        size = sheet.size
    rows = -(-(len(thing_names()) - len(SHAPES)) // PER_ROW)
    assert size == (PER_ROW * SPRITE_SIDE, rows * SPRITE_SIDE)


def test_colours_are_multiplied_by_alpha(pictures: torch.Tensor) -> None:
    assert (pictures[:, :3] <= pictures[:, 3:] + 1e-6).all()


def test_edges_have_the_colour_of_the_inside(pictures: torch.Tensor) -> None:
    red, _, blue, alpha = pictures[thing_names().index("tomato")]
    edge = (alpha > 0.3) & (alpha < 0.7)
    assert (red[edge] / alpha[edge]).mean() > 0.6
    assert (blue[edge] / alpha[edge]).mean() < 0.4


def test_shapes_are_grey_and_darker_on_the_left() -> None:
    shapes = render_shapes(64)
    assert torch.equal(shapes[:, 0], shapes[:, 2])
    circle = shapes[SHAPES.index("circle"), :, 32]
    assert circle[3, 32] == 1
    assert circle[0, 6] < 0.75 < 0.99 < circle[0, 57]


def test_a_machine_without_pillow_reads_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = load_sprites()
    cache_sprites(tmp_path / "new" / "sprites.npy")

    def no_pillow() -> np.ndarray:
        raise ModuleNotFoundError

    monkeypatch.setattr(sprites, "CACHE_FILE", tmp_path / "new" / "sprites.npy")
    monkeypatch.setattr(sprites, "_read_sheet", no_pillow)
    assert torch.equal(load_sprites(), expected)
    np.save(sprites.CACHE_FILE, np.zeros((3, 4, SPRITE_SIDE, SPRITE_SIDE), np.uint8))
    with pytest.raises(ValueError, match="3 sprites"):
        load_sprites()
