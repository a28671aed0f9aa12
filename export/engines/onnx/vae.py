"""The autoencoder's decoder in 2-D convolutions over single frames.

ONNX Runtime has no blocked kernels for 3-D convolutions: it copies every neighbourhood first,
on one thread. A kernel of three frames is the same as a 2-D kernel over the channels of the
three frames, so only those are put together, and the fast 2-D convolution does the rest.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from reelserve.export.stages import to_uint8
from reelserve.models.video_vae import ClipEnds, Decoder, ResidualBlock, SpaceTimeConv, VideoVAE

_WHITE = 255.0


class FrameConv(nn.Module):
    """A 3-D convolution of one or three frames as a 2-D one; `x` is `[B, F, C, H, W]`."""

    def __init__(self, source: nn.Conv3d) -> None:
        super().__init__()
        outputs, inputs, frames, *kernel = source.weight.shape
        assert frames in (1, 3) and source.bias is not None
        self.frames = frames
        self.conv = nn.Conv2d(inputs * frames, outputs, kernel[0], padding=kernel[0] // 2)
        # [O, I, T, h, w] to [O, T·I, h, w]: the channels of the frame before come first.
        self.conv.weight.data = source.weight.transpose(1, 2).flatten(1, 2).clone()
        self.conv.bias.data = source.bias.data.clone()

    def forward(self, x: Tensor) -> Tensor:
        """Returns `[B, F, O, H, W]`."""
        batch, count, _, height, width = x.shape
        if self.frames == 3:
            # Each frame with its neighbours; the outermost frames are their own.
            neighbours = torch.arange(count)[:, None] + torch.tensor([-1, 0, 1])
            x = x.index_select(1, neighbours.clamp(0, count - 1).flatten())
        out = self.conv(x.reshape(batch * count, -1, height, width))
        return out.reshape(batch, count, -1, height, width)


class FrameResidualBlock(nn.Module):
    """A residual block of frame convolutions; `x` is `[B, F, C, H, W]`."""

    def __init__(self, source: ResidualBlock) -> None:
        super().__init__()
        self.convs = nn.ModuleList(frame_conv(conv) for conv in source.convs)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        hidden = x
        for conv in self.convs:
            hidden = conv(functional.silu(hidden))
        return x + hidden


class FrameClipEnds(nn.Module):
    """`ClipEnds` on `[B, F, C, H, W]`."""

    def __init__(self, source: ClipEnds) -> None:
        super().__init__()
        self.first, self.last = _frame_end(source.first), _frame_end(source.last)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        pad = x.shape[1] - 1
        first = self.first(torch.cat([x[:, :1], x[:, :2][:, -1:]], dim=2))
        last = self.last(torch.cat([x[:, -1:], x[:, -2:][:, :1]], dim=2))
        first = functional.pad(first, (0, 0, 0, 0, 0, 0, 0, pad))
        return x + first + functional.pad(last, (0, 0, 0, 0, 0, 0, pad, 0))


def _frame_end(source: nn.Sequential) -> nn.Sequential:
    return nn.Sequential(
        *(frame_conv(layer) if isinstance(layer, nn.Conv3d) else nn.SiLU() for layer in source)
    )


def frame_conv(source: nn.Module) -> FrameConv:
    """The frame convolution of one of the decoder's convolutions."""
    conv = source.conv if isinstance(source, SpaceTimeConv) else source
    assert isinstance(conv, nn.Conv3d)
    return FrameConv(conv)


def unfold_frames(x: Tensor, frames: int, space: int) -> Tensor:
    """`models.video_vae.unfold` on `[B, F, C, H, W]`."""
    b, f, c, h, w = x.shape
    x = x.reshape(b, f, c // (frames * space * space), frames, space, space, h, w)
    x = x.permute(0, 1, 3, 2, 6, 4, 7, 5)
    return x.reshape(b, f * frames, -1, h * space, w * space)


class FrameVAEDecoderStage(nn.Module):
    """LATENTS `[B, C, F, H, W]` to FRAMES, uint8 `[B, F, H, W, 3]`.

    Args:
        vae: Its decoder's weights are copied.
    """

    def __init__(self, vae: VideoVAE) -> None:
        super().__init__()
        self.latents_mean, self.latents_std = vae.latents_mean, vae.latents_std
        self.patch = vae.config.patch
        decoder: Decoder = vae.decoder
        self.low = nn.Sequential(frame_conv(decoder.embed), FrameClipEnds(decoder.low_ends))
        self.low.extend([*_blocks(decoder.low), frame_conv(decoder.to_middle)])
        self.middle = nn.Sequential(*_blocks(decoder.middle), frame_conv(decoder.to_high))
        self.high = nn.Sequential(*_blocks(decoder.high), FrameClipEnds(decoder.high_ends))
        self.high.append(frame_conv(decoder.to_frames))

    def forward(self, latents: Tensor) -> Tensor:
        """Decodes a batch of clips."""
        x = (latents * self.latents_std + self.latents_mean).transpose(1, 2)
        x = x.to(self.low[0].conv.weight.dtype)
        x = self.middle(unfold_frames(self.low(x), 2, 2))
        x = self.high(unfold_frames(x, 2, 2)).float()
        frames = to_uint8(x * (_WHITE / 2) + _WHITE / 2)
        return unfold_frames(frames, 1, self.patch).permute(0, 1, 3, 4, 2)


def _blocks(source: nn.Sequential) -> list[FrameResidualBlock]:
    return [FrameResidualBlock(block) for block in source]
