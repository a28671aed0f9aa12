"""Decoding in parts against diffusers' decoder, which takes a clip at once."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("diffusers", reason="diffusers is not installed: pip install '.[families]'")

from diffusers import AutoencoderKLLTXVideo

from reelserve.export.families import ltx_streamed
from reelserve.export.families.ltx import LTXDecoderStage
from reelserve.export.families.ltx_streamed import StreamedDecoder, needs_parts

FIRST: dict[str, Any] = {
    "latent_channels": 8,
    "block_out_channels": (8, 8, 8, 8),
    "layers_per_block": (1, 1, 1, 1, 1),
    "decoder_block_out_channels": (8, 8, 16, 8),
    "decoder_layers_per_block": (2, 1, 2, 1, 1),
}
"""As of version 0.9.0."""
RESIDUAL: dict[str, Any] = {
    **FIRST,
    "decoder_block_out_channels": (8, 16, 32),
    "decoder_layers_per_block": (1, 2, 1, 2),
    "decoder_spatio_temporal_scaling": (True, True, True),
    "decoder_inject_noise": (False, False, False, False),
    "upsample_residual": (True, True, True),
    "upsample_factor": (2, 2, 2),
    "timestep_conditioning": True,
}
"""As of version 0.9.1, without its noise."""
KINDS = {"first": FIRST, "causal": {**FIRST, "decoder_causal": True}, "residual": RESIDUAL}


def autoencoder(kind: str) -> AutoencoderKLLTXVideo:
    torch.manual_seed(0)
    vae = AutoencoderKLLTXVideo(**KINDS[kind]).eval().requires_grad_(False)
    vae.latents_mean.normal_()
    vae.latents_std.uniform_(0.5, 2.0)
    return vae


@pytest.mark.parametrize("part_values", [1, 60_000])
@pytest.mark.parametrize("frames", [1, 2, 7])
@pytest.mark.parametrize("kind", KINDS)
def test_parts_are_the_frames_of_the_whole(kind, frames, part_values):
    vae = autoencoder(kind)
    latents = torch.randn(2, 8, frames, 2, 3)
    timestep = torch.zeros(2) if vae.config.timestep_conditioning else None
    whole = vae.decode(latents, timestep).sample
    parts = list(StreamedDecoder(vae.decoder, timestep, part_values).parts(latents))
    assert len(parts) > 1 or frames == 1 or part_values > 1 or kind == "first"
    torch.testing.assert_close(torch.cat(parts, dim=2), whole, atol=2e-5, rtol=0)


def test_no_block_is_given_more_than_a_part(monkeypatch):
    vae, limit = autoencoder("first"), 20_000
    given = []
    for block in vae.decoder.up_blocks:
        conv = block.resnets[0].conv1.conv
        conv.register_forward_hook(lambda _module, _inputs, output: given.append(output.numel()))
    latents = torch.randn(1, 8, 9, 2, 3)
    assert needs_parts(vae.decoder, latents, limit)
    list(StreamedDecoder(vae.decoder, None, limit).parts(latents))
    streamed = max(given)
    given.clear()
    vae.decode(latents)
    # The end of a clip brings the few frames that a convolution had held back.
    assert streamed < 2 * limit < max(given) / 4


def test_stage_decodes_a_large_clip_in_parts_and_exports_so(monkeypatch):
    stage = LTXDecoderStage(autoencoder("first"))
    latents = torch.randn(1, 8, 4, 2, 3)
    whole = stage(latents)
    monkeypatch.setattr(ltx_streamed.needs_parts, "__defaults__", (20_000,))
    monkeypatch.setattr(ltx_streamed.StreamedDecoder.__init__, "__defaults__", (20_000,))
    parts = stage(latents)
    assert (parts.int() - whole.int()).abs().max() <= 1
    program = torch.export.export(stage, (latents,), strict=False)
    exported = program.module()(latents)
    assert torch.equal(exported, parts)
    convolutions = sum("conv3d" in str(node.target) for node in program.graph.nodes)
    assert convolutions > 40


def test_a_clip_of_free_length_is_decoded_at_once(monkeypatch):
    monkeypatch.setattr(ltx_streamed.needs_parts, "__defaults__", (1,))
    frames = torch.export.Dim.DYNAMIC(min=2, max=16)
    program = torch.export.export(
        LTXDecoderStage(autoencoder("first")),
        (torch.randn(1, 8, 4, 2, 3),),
        dynamic_shapes=({2: frames},),
        strict=False,
    )
    assert program.module()(torch.randn(1, 8, 6, 2, 3)).shape == (1, 41, 64, 96, 3)
