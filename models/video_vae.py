"""The video autoencoder: ×4 in time and, by its patch, ×8 or more in space, without norms.

Pixels go into channels a `P × P` patch at a time, so a clip becomes `F/4 × H/4P × W/4P` latents.
Convolutions pad time by replication, so the first and last frames see no black neighbours.
Residual branches start at zero, which lets the network train without normalisation and keeps
every output local: decoding a longer clip changes nothing away from its ends.

Source: residual blocks without normalisation as in EDSR (arXiv 1707.02921).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


@dataclass(frozen=True)
class VideoVAEConfig:
    """Size of a video autoencoder.

    Args:
        latent_channels: `C` of the latents.
        channels: Widths at 1/P, 1/2P and 1/4P of the clip's height.
        encoder_blocks: Residual blocks at each of them.
        decoder_blocks: Residual blocks at each of them.
        end_channels: Hidden widths of what the first and last frame get at 1/P and at 1/4P.
        patch: `P`, rows and columns of pixels that one location at full width holds.
    """

    latent_channels: int
    channels: tuple[int, int, int]
    encoder_blocks: tuple[int, int, int]
    decoder_blocks: tuple[int, int, int]
    end_channels: tuple[int, int]
    patch: int = 2

    @property
    def spatial_compression(self) -> int:
        """Rows or columns of pixels for each row or column of latents."""
        return 4 * self.patch


WORLD = VideoVAEConfig(
    latent_channels=32,
    channels=(96, 128, 192),
    encoder_blocks=(1, 1, 1),
    decoder_blocks=(2, 2, 1),
    end_channels=(32, 64),
    patch=4,
)


class SpaceTimeConv(nn.Module):
    """3-D convolution that keeps the size: zeros around the frame, replication in time."""

    def __init__(self, in_channels: int, out_channels: int, kernel: tuple[int, int, int]) -> None:
        super().__init__()
        self.pad_frames = kernel[0] // 2
        padding = (0, kernel[1] // 2, kernel[2] // 2)
        self.conv = nn.Conv3d(in_channels, out_channels, kernel, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        if self.pad_frames:
            x = torch.cat([x[:, :, :1], x, x[:, :, -1:]], dim=2)
        return self.conv(x)


class ResidualBlock(nn.Module):
    """Two convolutions around a residual; split into space and time where `factorised`."""

    def __init__(self, channels: int, *, factorised: bool) -> None:
        super().__init__()
        kernels = [(1, 3, 3), (3, 1, 1)] * 2 if factorised else [(3, 3, 3)] * 2
        self.convs = nn.ModuleList(SpaceTimeConv(channels, channels, kernel) for kernel in kernels)
        nn.init.zeros_(self.convs[-1].conv.weight)
        nn.init.zeros_(self.convs[-1].conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        hidden = x
        for conv in self.convs:
            hidden = conv(F.silu(hidden))
        return x + hidden


class ClipEnds(nn.Module):
    """Corrects the first and the last frame, each by a small network that sees two frames.

    A frame inside a clip has latents on both sides, one at an end on one side only. A convolution
    that replicates the ends cannot tell an end from an object at rest.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.first, self.last = _end(channels, hidden), _end(channels, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, F, H, W]`, same shape; a clip of one frame is first and last."""
        pad = x.shape[2] - 1
        first = self.first(torch.cat([x[:, :, :1], x[:, :, :2][:, :, -1:]], dim=1))
        last = self.last(torch.cat([x[:, :, -1:], x[:, :, -2:][:, :, :1]], dim=1))
        return x + F.pad(first, (0, 0, 0, 0, 0, pad)) + F.pad(last, (0, 0, 0, 0, pad, 0))


def _end(channels: int, hidden: int) -> nn.Sequential:
    kernel, padding = (1, 3, 3), (0, 1, 1)
    out = nn.Conv3d(hidden, channels, kernel, padding=padding)
    nn.init.zeros_(out.weight)
    nn.init.zeros_(out.bias)
    middle = nn.Conv3d(hidden, hidden, kernel, padding=padding)
    return nn.Sequential(nn.Conv3d(2 * channels, hidden, 1), nn.SiLU(), middle, nn.SiLU(), out)


def fold(x: Tensor, frames: int, space: int) -> Tensor:
    """Moves neighbouring frames and pixels into channels.

    `[B, C, F, H, W]` to `[B, C·frames·space², F/frames, H/space, W/space]`.
    """
    b, c, f, h, w = x.shape
    x = x.reshape(b, c, f // frames, frames, h // space, space, w // space, space)
    x = x.permute(0, 1, 3, 5, 7, 2, 4, 6)
    return x.reshape(b, c * frames * space * space, f // frames, h // space, w // space)


def unfold(x: Tensor, frames: int, space: int) -> Tensor:
    """The inverse of `fold`."""
    b, c, f, h, w = x.shape
    x = x.reshape(b, c // (frames * space * space), frames, space, space, f, h, w)
    x = x.permute(0, 1, 5, 2, 6, 3, 7, 4)
    return x.reshape(b, -1, f * frames, h * space, w * space)


def _residual_blocks(channels: int, count: int, *, factorised: bool) -> list[nn.Module]:
    return [ResidualBlock(channels, factorised=factorised) for _ in range(count)]


class Encoder(nn.Module):
    """Frames `[B, 3, F, H, W]` to latents `[B, C, F/4, H/4P, W/4P]`, not yet normalised."""

    def __init__(self, config: VideoVAEConfig) -> None:
        super().__init__()
        high, middle, low = config.channels
        blocks = config.encoder_blocks
        self.patch = config.patch
        self.embed = SpaceTimeConv(3 * config.patch**2, high, (1, 3, 3))
        self.high_ends = ClipEnds(high, config.end_channels[0])
        self.high = nn.Sequential(*_residual_blocks(high, blocks[0], factorised=True))
        self.to_middle = nn.Conv3d(8 * high, middle, 1)
        self.middle = nn.Sequential(*_residual_blocks(middle, blocks[1], factorised=False))
        self.to_low = nn.Conv3d(8 * middle, low, 1)
        self.low = nn.Sequential(*_residual_blocks(low, blocks[2], factorised=False))
        self.low_ends = ClipEnds(low, config.end_channels[1])
        self.to_latents = SpaceTimeConv(low, config.latent_channels, (3, 3, 3))

    def forward(self, frames: Tensor) -> Tensor:
        x = self.high(self.high_ends(self.embed(fold(frames, 1, self.patch))))
        x = self.middle(self.to_middle(fold(x, 2, 2)))
        x = self.low(self.to_low(fold(x, 2, 2)))
        return self.to_latents(self.low_ends(x))


class Decoder(nn.Module):
    """Latents `[B, C, F, H, W]`, not normalised, to frames `[B, 3, 4F, 4PH, 4PW]`."""

    def __init__(self, config: VideoVAEConfig) -> None:
        super().__init__()
        high, middle, low = config.channels
        blocks = config.decoder_blocks
        self.patch = config.patch
        self.embed = SpaceTimeConv(config.latent_channels, low, (3, 3, 3))
        self.low_ends = ClipEnds(low, config.end_channels[1])
        self.low = nn.Sequential(*_residual_blocks(low, blocks[2], factorised=False))
        self.to_middle = nn.Conv3d(low, 8 * middle, 1)
        self.middle = nn.Sequential(*_residual_blocks(middle, blocks[1], factorised=False))
        self.to_high = nn.Conv3d(middle, 8 * high, 1)
        self.high = nn.Sequential(*_residual_blocks(high, blocks[0], factorised=True))
        self.high_ends = ClipEnds(high, config.end_channels[0])
        self.to_frames = SpaceTimeConv(high, 3 * config.patch**2, (1, 3, 3))

    def forward(self, latents: Tensor) -> Tensor:
        x = self.low(self.low_ends(self.embed(latents)))
        x = self.middle(unfold(self.to_middle(x), 2, 2))
        x = self.high(unfold(self.to_high(x), 2, 2))
        return unfold(self.to_frames(self.high_ends(x)), 1, self.patch)


class VideoVAE(nn.Module):
    """Encodes clips to latents of unit variance and decodes them."""

    config_class = VideoVAEConfig

    latents_mean: Tensor
    latents_std: Tensor

    def __init__(self, config: VideoVAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.register_buffer("latents_mean", torch.zeros(config.latent_channels, 1, 1, 1))
        self.register_buffer("latents_std", torch.ones(config.latent_channels, 1, 1, 1))

    def encode(self, frames: Tensor) -> Tensor:
        """Encodes a clip.

        Args:
            frames: `[B, 3, F, H, W]` in [-1, 1]; `F` a multiple of 4, `H` and `W` of `4P`.

        Returns:
            `[B, C, F/4, H/4P, W/4P]`, unit variance per channel over the training clips.
        """
        return (self.encoder(frames) - self.latents_mean) / self.latents_std

    def decode(self, latents: Tensor) -> Tensor:
        """Decodes `[B, C, F, H, W]` latents of unit variance to `[B, 3, 4F, 4PH, 4PW]`."""
        latents = latents * self.latents_std + self.latents_mean
        return self.decoder(latents.to(self.decoder.to_middle.weight.dtype))
