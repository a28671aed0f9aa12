import torch

from reelserve.models.denoiser import DenoiserConfig, SpaceTimeDenoiser
from reelserve.training.sampling import sample_latents

SMALL = DenoiserConfig(
    in_channels=3, text_dim=10, width=32, num_heads=2, num_blocks=1, num_refiner_blocks=1
)


class ConstantFlow(SpaceTimeDenoiser):
    """The exact velocity towards one point: `(x − point) / sigma`."""

    def forward(self, latents, timestep, prompt_embeds, prompt_mask, first_frame=0):
        del prompt_mask, first_frame
        point = prompt_embeds.mean(dim=(1, 2))[:, None, None, None, None]
        return (latents - point) / (timestep / 1000)[:, None, None, None, None]


def draw(guidance_scale: float, steps: int) -> torch.Tensor:
    noise = torch.randn(2, 3, 5, 2, 2, generator=torch.Generator().manual_seed(0))
    return sample_latents(
        ConstantFlow(SMALL),
        torch.full((2, 4, 10), 2.0),
        noise,
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        shift=2.0,
    )


def test_sample_latents_reaches_the_point_that_the_flow_leads_to():
    for steps in (1, 3, 8):
        latents = draw(1.0, steps)
        assert latents.shape == (2, 3, 5, 2, 2)
        torch.testing.assert_close(latents, torch.full_like(latents, 2.0), rtol=0, atol=1e-4)


def test_sample_latents_goes_past_the_prompt_when_guided():
    latents = draw(3.0, 1)
    # From what nothing leads to, 0, past 2.
    torch.testing.assert_close(latents, torch.full_like(latents, 6.0), rtol=0, atol=1e-4)
