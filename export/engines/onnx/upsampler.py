"""The upsampler in a form that ONNX Runtime's CPU provider keeps in its blocked layout.

ONNX Runtime lays images out in blocks of channels for its fast convolutions, but not for
PReLU: each one costs two changes of layout and runs on one thread. With slope `a ≤ 1`,
`PReLU(y) = a·y + relu((1 − a)·y)`: two depthwise 1x1 convolutions, which stay in blocks. A
channel with `a > 1` is computed with its sign flipped, and the next convolution flips it back.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from reelserve.export.stages import to_uint8
from reelserve.models.upsampler import RGB, Upsampler, halved

_WHITE = 255.0


class BlockedPReLU(nn.Module):
    """PReLU out of two depthwise convolutions, for slopes up to 1 in the flipped sign."""

    def __init__(self, slopes: Tensor) -> None:
        super().__init__()
        self.linear = nn.Parameter(slopes.view(-1, 1, 1, 1).clone(), requires_grad=False)
        self.rectified = nn.Parameter(1 - self.linear, requires_grad=False)
        # A convolution without a bias is exported with one computed at run time, which keeps it
        # out of the blocked layout.
        self.no_bias = nn.Parameter(torch.zeros_like(slopes), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        groups = len(self.linear)
        rectified = functional.conv2d(x, self.rectified, self.no_bias, groups=groups).relu()
        return functional.conv2d(x, self.linear, self.no_bias, groups=groups) + rectified


class BlockedUpsamplerStage(nn.Module):
    """FRAMES to UPSAMPLED_FRAMES, both uint8 `[B, F, H, W, 3]`.

    The chain runs on 0 to 255, which saves the CPU two passes over the frames; in 16 bits on 0 to
    1, since on 0 to 255 noise leaves the range of fp16.

    Args:
        upsampler: Its weights are copied.
    """

    def __init__(self, upsampler: Upsampler) -> None:
        super().__init__()
        self.scale, self.halves = upsampler.drawn_scale, upsampler.halves
        self.unit = 1.0 if upsampler.body[0].weight.dtype == torch.float32 else _WHITE
        self.body = nn.Sequential(*_blocked_layers(upsampler, _WHITE / self.unit))

    def forward(self, frames: Tensor) -> Tensor:
        batch, count, height, width, _ = frames.shape
        planes = frames.permute(0, 1, 4, 2, 3).reshape(batch * count, RGB, height, width).float()
        scale = self.scale
        # [N, colour, row in a pixel, column in a pixel, H, W], before the pixels are shuffled.
        given = planes if self.unit == 1 else planes / self.unit
        residual = self.body(given.to(self.body[0].weight.dtype)).float()
        residual = residual if self.unit == 1 else residual * self.unit
        residual = residual.reshape(batch * count, RGB, scale, scale, height, width)
        pixels = residual + planes[:, :, None, None]
        if self.halves:
            shuffled = pixels.permute(0, 1, 4, 2, 5, 3)
            drawn = shuffled.reshape(batch * count, RGB, height * scale, width * scale)
            frames = to_uint8(halved(drawn)).permute(0, 2, 3, 1)
            return frames.reshape(batch, count, height * scale // 2, width * scale // 2, RGB)
        shuffled = to_uint8(pixels).permute(0, 4, 2, 5, 3, 1)
        return shuffled.reshape(batch, count, height * scale, width * scale, RGB)


def _blocked_layers(upsampler: Upsampler, white: float) -> list[nn.Module]:
    """The chain with signs folded into its convolutions, on the scale of 0 to `white`."""
    layers: list[nn.Module] = []
    signs = torch.ones(RGB, dtype=upsampler.body[0].weight.dtype)
    for index, layer in enumerate(upsampler.body):
        if isinstance(layer, nn.PReLU):
            layers.append(BlockedPReLU(layer.weight))
            continue
        assert isinstance(layer, nn.Conv2d) and layer.bias is not None
        last = index + 1 == len(upsampler.body)
        slopes = torch.zeros(layer.out_channels) if last else upsampler.body[index + 1].weight
        flips = torch.where(slopes > 1, -1.0, 1.0).to(layer.weight.dtype)
        folded = nn.Conv2d(layer.in_channels, layer.out_channels, 3, padding=1)
        folded.weight.data = layer.weight * flips[:, None, None, None] * signs[None, :, None, None]
        # The chain is linear up to its biases: scaling those scales the brightness.
        folded.bias.data = layer.bias * flips * white
        signs = flips
        layers.append(folded)
    return layers
