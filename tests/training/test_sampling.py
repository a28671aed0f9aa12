import torch

from reelserve.models.denoiser import DenoiserConfig, SpaceTimeDenoiser
from reelserve.training.sampling import sample_latents

SMALL = DenoiserConfig(
    in_channels=3, text_dim=10, width=32, num_heads=2, num_blocks=1, num_refiner_blocks=1
)


class ConstantFlow(SpaceTimeDenoiser):
    """The exact velocity towards one point: `(x − point) / sigma`."""

    def forward(self, latents, timestep, prompt_embeds, prompt_mask):
        del prompt_mask
        point = prompt_embeds.mean(dim=(1, 2))[:, None, None, None, None]
        return (latents - point) / (timestep / 1000)[:, None, None, None, None]


def draw(guidance_scale: float, steps: int) -> torch.Tensor:
    text = (torch.full((2, 4, 10), 2.0), torch.ones(2, 4))
    null = (torch.full((1, 4, 10), 1.0), torch.ones(1, 4))
    return sample_latents(
        ConstantFlow(SMALL),
        text,
        null,
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        latent_frames=5,
        latent_side=2,
        seed=0,
        shift=2.0,
    )


def test_sample_latents_reaches_the_point_that_the_flow_leads_to():
    for steps in (1, 3, 8):
        latents = draw(1.0, steps)
        assert latents.shape == (2, 3, 5, 2, 2)
        torch.testing.assert_close(latents, torch.full_like(latents, 2.0), rtol=0, atol=1e-4)


def test_sample_latents_goes_past_the_prompt_when_guided():
    latents = draw(3.0, 1)
    torch.testing.assert_close(latents, torch.full_like(latents, 4.0), rtol=0, atol=1e-4)
