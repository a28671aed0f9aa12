from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from reelserve.models.packages import package_path
from reelserve.models.upsampler import (
    MODEL,
    PACKAGE,
    Upsampler,
    halved,
    load_upsampler,
    read_upsampler,
)

WEIGHTS_IN_FILE = 621_424


@pytest.fixture(scope="module")
def upsampler() -> Upsampler:
    return load_upsampler()


def disc(side: int) -> np.ndarray:
    """A red disc on blue, `[side, side, 3]`, anti-aliased."""
    fine = side * 8
    y, x = (np.mgrid[0:fine, 0:fine] + 0.5) / fine
    inside = ((x - 0.5) ** 2 + (y - 0.45) ** 2 < 0.09)[..., None]
    image = np.where(inside, [0.85, 0.2, 0.2], [0.15, 0.25, 0.5])
    return image.reshape(side, 8, side, 8, 3).mean((1, 3))


def test_load_upsampler_consumes_every_weight(upsampler: Upsampler) -> None:
    assert sum(p.numel() for p in upsampler.parameters()) == WEIGHTS_IN_FILE
    assert upsampler.scale == 4


def test_upsampler_keeps_colours_and_sharpens_edges(upsampler: Upsampler) -> None:
    small = torch.from_numpy(disc(32)).float().permute(2, 0, 1)[None]
    with torch.no_grad():
        large = upsampler(small)[0].permute(1, 2, 0).numpy()
    truth = disc(128)
    blurred = functional.interpolate(small, scale_factor=4, mode="bilinear")[0]
    assert np.abs(large[60, 64] - truth[60, 64]).max() < 0.03
    assert np.abs(large[4:12, 4:12] - truth[4:12, 4:12]).max() < 0.03
    red_step = np.abs(np.diff(large[58, :, 0])).max()
    assert red_step > 1.5 * blurred[0, 58].diff().abs().max().item()


def test_halved_is_bicubic_interpolation() -> None:
    images = torch.rand(2, 3, 6, 10, dtype=torch.float64)
    expected = functional.interpolate(images, scale_factor=0.5, mode="bicubic")
    assert torch.allclose(halved(images), expected, atol=1e-12)


def test_load_upsampler_halves_where_its_file_says_so(upsampler: Upsampler) -> None:
    twice = load_upsampler(model="models/realesr-animevideov3-x2")
    assert (twice.scale, twice.halves) == (2, True)
    frames = torch.rand(1, 3, 6, 8)
    with torch.no_grad():
        assert torch.equal(twice(frames), halved(upsampler(frames)))


def test_read_upsampler_fails_when_it_ends_in_another_scale() -> None:
    param = package_path(PACKAGE, "models/realesr-animevideov3-x3.param")
    with pytest.raises(ValueError, match="Resize_40 does not halve"):
        read_upsampler(param, package_path(PACKAGE, f"{MODEL}.bin"))


def test_read_upsampler_fails_when_weights_are_left_over(tmp_path: Path) -> None:
    weights = tmp_path / "net.bin"
    weights.write_bytes(package_path(PACKAGE, f"{MODEL}.bin").read_bytes() + b"\0\0\0\0")
    with pytest.raises(ValueError, match="4 bytes left over"):
        read_upsampler(package_path(PACKAGE, f"{MODEL}.param"), weights)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("106 0=4", "106 0=2", "not added nearest-upsampled"),
        ("0=1 1=4.000000e+00", "0=2 1=4.000000e+00", "not added nearest-upsampled"),
        ("PReLU                    PRelu_3 ", "ReLU                     PRelu_3 ", "not a compact"),
        ("1 1 59 60", "1 1 54 60", "Conv_4 does not read the output of PRelu_3"),
        ("0=64 1=3 4=1 5=1 6=1728", "0=64 1=5 4=1 5=1 6=1728", "layer Conv_0: outputs, kernel"),
    ],
)
def test_read_upsampler_fails_when_graph_differs(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    text = package_path(PACKAGE, f"{MODEL}.param").read_text()
    assert old in text
    param = tmp_path / "net.param"
    param.write_text(text.replace(old, new))
    with pytest.raises(ValueError, match=message):
        read_upsampler(param, package_path(PACKAGE, f"{MODEL}.bin"))


def test_package_path_fails_when_package_is_missing() -> None:
    with pytest.raises(FileNotFoundError, match="'no_such_package' is not installed"):
        package_path("no_such_package")


def test_package_path_fails_when_file_is_missing() -> None:
    with pytest.raises(FileNotFoundError, match="has no models/nothing"):
        package_path(PACKAGE, "models", "nothing")
