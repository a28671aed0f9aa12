import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from reelserve.models.denoiser import (
    SIZE_3B,
    SIZE_10B,
    WORLD,
    DenoiserConfig,
    SpaceTimeDenoiser,
    TemporalAttention,
    rotary_tables,
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
        pytest.param(WORLD, 40e6, 48e6, id="world"),
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


def attention_between_transposes(module, x, cos, sin):
    """Temporal attention as it was before the fused op: norm, rotation and SDPA apart."""

    def rotate(heads):
        first, second = heads.chunk(2, dim=-1)
        turned = [first * cos - second * sin, second * cos + first * sin]
        return torch.cat(turned, dim=-1).to(heads.dtype)

    b, f, s, c = x.shape
    n, d = module.num_heads, c // module.num_heads
    qkv = module.to_qkv(x).reshape(b, f, s, 3, n, d)
    q, k, v = qkv.permute(3, 0, 2, 4, 1, 5).reshape(3, b * s, n, f, d).unbind(0)
    out = F.scaled_dot_product_attention(rotate(module.norm_q(q)), rotate(module.norm_k(k)), v)
    out = out.reshape(b, s, n, f, d).permute(0, 3, 1, 2, 4)
    return module.to_out(out.reshape(b, f, s, c))


@pytest.mark.parametrize("num_heads", [1, 4], ids=["D64", "D16"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("grad", [False, True], ids=["inference", "training"])
def test_temporal_attention_is_norm_rotation_and_sdpa(num_heads, dtype, grad):
    torch.manual_seed(0)
    module = TemporalAttention(64, num_heads).to(dtype)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x = torch.randn(2, 5, 6, 64, dtype=dtype)
    tables = rotary_tables(5, 64 // num_heads, torch.device("cpu"))
    with torch.set_grad_enabled(grad):
        found = module(x, *tables)
        expected = attention_between_transposes(module, x, *tables)
    assert torch.equal(found, expected)


def test_every_weight_of_temporal_attention_is_trained():
    module = TemporalAttention(64, 1)
    tables = rotary_tables(5, 64, torch.device("cpu"))
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    found = []
    for run in (module, compiled):
        module.zero_grad()
        x = torch.linspace(-1, 1, 2 * 5 * 3 * 64).reshape(2, 5, 3, 64)
        run(x, *tables).square().sum().backward()
        found.append({name: p.grad.clone() for name, p in module.named_parameters()})
    eager, graph = found
    assert all(gradient.abs().max() > 0 for name, gradient in eager.items())
    for name, gradient in eager.items():
        torch.testing.assert_close(graph[name], gradient, rtol=1e-3, atol=1e-4)
