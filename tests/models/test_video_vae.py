import pytest
import torch

from reelserve.models.video_vae import ClipEnds, VideoVAE, VideoVAEConfig, fold, unfold

SMALL = VideoVAEConfig(
    latent_channels=4,
    channels=(6, 8, 10),
    encoder_blocks=(1, 1, 1),
    decoder_blocks=(1, 1, 1),
    end_channels=(4, 4),
)


@pytest.fixture
def vae() -> VideoVAE:
    torch.manual_seed(0)
    return VideoVAE(SMALL).eval()


@pytest.mark.parametrize(("frames", "space"), [(1, 2), (2, 2), (4, 1)])
def test_unfold_undoes_fold(frames, space):
    x = torch.randn(2, 3, 8, 4, 6)
    folded = fold(x, frames, space)
    assert folded.shape == (2, 3 * frames * space**2, 8 // frames, 4 // space, 6 // space)
    assert torch.equal(unfold(folded, frames, space), x)


@torch.no_grad()
@pytest.mark.parametrize("frames", [1, 2, 5])
def test_clip_ends_change_only_the_ends(frames):
    ends = ClipEnds(3, 4)
    x = torch.randn(2, 3, frames, 4, 5)
    assert torch.equal(ends(x), x)
    for parameter in ends.parameters():
        torch.nn.init.normal_(parameter)
    changed = (ends(x) - x).abs().amax(dim=(0, 1, 3, 4)) > 0
    assert changed.tolist() == [frame in (0, frames - 1) for frame in range(frames)]


@torch.no_grad()
def test_vae_compresses_4_frames_and_8_pixels_into_one_latent(vae):
    frames = torch.randn(2, 3, 12, 16, 24)
    latents = vae.encode(frames)
    assert latents.shape == (2, 4, 3, 2, 3)
    assert vae.decode(latents).shape == frames.shape


@torch.no_grad()
def test_encode_normalises_by_the_stored_statistics(vae):
    frames = torch.randn(1, 3, 8, 8, 8)
    plain = vae.encode(frames)
    vae.latents_mean.fill_(0.5)
    vae.latents_std.fill_(2.0)
    torch.testing.assert_close(vae.encode(frames), (plain - 0.5) / 2)


@torch.no_grad()
def test_decode_is_local_in_time(vae):
    for parameter in vae.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    latents = torch.randn(1, 4, 16, 1, 1)
    changed = latents.clone()
    changed[:, :, -1] += 1
    difference = (vae.decode(latents) - vae.decode(changed)).abs().amax(dim=(0, 1, 3, 4))
    assert difference[-1] > 0
    assert difference[:16].max() == 0
