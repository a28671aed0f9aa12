import pytest
import torch

from reelserve.models.denoiser import (
    BUNDLED,
    SIZE_3B,
    SIZE_10B,
    DenoiserConfig,
    SpaceTimeDenoiser,
)

SMALL = DenoiserConfig(
    in_channels=3, text_dim=10, width=32, num_heads=2, num_blocks=2, num_refiner_blocks=1
)


@pytest.fixture
def denoiser() -> SpaceTimeDenoiser:
    torch.manual_seed(0)
    module = SpaceTimeDenoiser(SMALL).eval()
    # A fresh model predicts zero; random weights everywhere make every path count.
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return module


def inputs(batch: int, frames: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(batch, 3, frames, 4, 5, generator=generator),
        torch.linspace(100, 900, batch),
        torch.randn(batch, 7, 10, generator=generator),
        torch.ones(batch, 7, dtype=torch.int64),
    )


@pytest.mark.parametrize(
    ("config", "low", "high"),
    [
        pytest.param(BUNDLED, 12e6, 15e6, id="bundled"),
        pytest.param(SIZE_3B, 2.9e9, 3.5e9, id="3B"),
        pytest.param(SIZE_10B, 9.5e9, 10.5e9, id="10B"),
    ],
)
def test_denoiser_has_the_size_it_is_named_for(config, low, high):
    with torch.device("meta"):
        module = SpaceTimeDenoiser(config)
    assert low <= sum(parameter.numel() for parameter in module.parameters()) <= high


def test_denoiser_raises_when_width_does_not_split_into_heads():
    with pytest.raises(ValueError, match="width 30"):
        DenoiserConfig(3, 10, width=30, num_heads=4, num_blocks=1, num_refiner_blocks=0)


@pytest.mark.parametrize("frames", [1, 3, 6])
def test_denoiser_keeps_the_shape_of_latents(denoiser, frames):
    latents, *rest = inputs(2, frames)
    assert denoiser(latents, *rest).shape == latents.shape


@torch.no_grad()
def test_denoiser_treats_batch_rows_apart(denoiser):
    rows = inputs(3, 4)
    together = denoiser(*rows)
    for row in range(3):
        alone = denoiser(*(tensor[row : row + 1] for tensor in rows))
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_denoiser_ignores_masked_tokens(denoiser):
    latents, timestep, embeds, mask = inputs(1, 4)
    mask[:, 4:] = 0
    changed = embeds.clone()
    changed[:, 4:] += 10
    torch.testing.assert_close(
        denoiser(latents, timestep, embeds, mask), denoiser(latents, timestep, changed, mask)
    )


@torch.no_grad()
@pytest.mark.parametrize("which", [0, 1, 2])
def test_denoiser_answers_to_every_input(denoiser, which):
    arguments = list(inputs(1, 4))
    before = denoiser(*arguments)
    arguments[which] = arguments[which] + 0.5
    assert (denoiser(*arguments) - before).abs().max() > 1e-4
