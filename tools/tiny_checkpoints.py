"""Checkpoints with random weights, made and saved by the libraries that the public ones use."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, T5EncoderModel

WORDS = "a an red green blue star circle square moves spins slowly on the plain sea".split()
"""Vocabulary of the tiny text encoders."""
EMBED = 32
LTX_PROFILE: dict[str, Any] = {
    "max_prompt_tokens": 16,
    "num_inference_steps": {"default": 2},
    "num_frames": {"low": 9, "high": 33, "default": 9},
    "height": {"low": 64, "high": 128, "default": 64},
    "width": {"low": 64, "high": 128, "default": 96},
}


def tiny_t5() -> tuple[T5EncoderModel, PreTrainedTokenizerFast]:
    """A T5 encoder and a tokenizer with T5's special tokens."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

    vocabulary = ["<pad>", "</s>", "<unk>", *WORDS]
    tokenizer = Tokenizer(
        models.WordLevel({word: index for index, word in enumerate(vocabulary)}, unk_token="<unk>")
    )
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    config = T5Config(
        vocab_size=len(vocabulary),
        d_model=EMBED,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
    )
    return T5EncoderModel(config).eval(), fast


def write_tiny_ltx(folder: Path, *, heads: int = 2, **scheduler: object) -> Path:
    """An LTX-Video checkpoint of some thousand weights.

    Args:
        folder: To write.
        heads: Attention heads of the transformer.
        scheduler: Settings of its scheduler, in place of those of the public checkpoints.
    """
    import torch
    from diffusers import (
        AutoencoderKLLTXVideo,
        FlowMatchEulerDiscreteScheduler,
        LTXPipeline,
        LTXVideoTransformer3DModel,
    )

    from reelserve.tools.bench.gpu.checkpoints import LTX_SCHEDULER

    torch.manual_seed(0)
    text_encoder, tokenizer = tiny_t5()
    transformer = LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        num_attention_heads=heads,
        attention_head_dim=16,
        cross_attention_dim=16 * heads,
        num_layers=2,
        caption_channels=EMBED,
    )
    # The same decoder whatever the transformer has drawn: it is exported once.
    torch.manual_seed(1)
    vae = AutoencoderKLLTXVideo(
        latent_channels=8,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
    )
    vae.latents_mean.normal_()
    vae.latents_std.uniform_(0.5, 2.0)
    LTXPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler.from_config({**LTX_SCHEDULER, **scheduler}),
        vae=vae.eval(),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        transformer=transformer.eval(),
    ).save_pretrained(folder)
    return folder


def write_tiny_latte(
    folder: Path,
    *,
    heads: int = 2,
    head_width: int = 40,
    num_frames: int = 5,
    temporal_decoder: bool = False,
) -> Path:
    """A Latte checkpoint of some thousand weights.

    Args:
        folder: To write.
        heads: Attention heads of the transformer.
        head_width: Width of a head.
        num_frames: Frames of its clips.
        temporal_decoder: Whether the decoder looks at neighbouring frames.
    """
    import torch
    from diffusers import (
        AutoencoderKL,
        AutoencoderKLTemporalDecoder,
        DDIMScheduler,
        LattePipeline,
        LatteTransformer3DModel,
    )

    torch.manual_seed(0)
    text_encoder, tokenizer = tiny_t5()
    transformer = LatteTransformer3DModel(
        num_attention_heads=heads,
        attention_head_dim=head_width,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        cross_attention_dim=head_width * heads,
        attention_bias=True,
        sample_size=8,
        patch_size=2,
        activation_fn="gelu-approximate",
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        norm_eps=1e-6,
        caption_channels=EMBED,
        video_length=num_frames,
    )
    decoder = AutoencoderKLTemporalDecoder if temporal_decoder else AutoencoderKL
    own = (
        {}
        if temporal_decoder
        else {"norm_num_groups": 4, "up_block_types": ("UpDecoderBlock2D",) * 2}
    )
    vae = decoder(
        block_out_channels=(32, 32) if temporal_decoder else (8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        layers_per_block=1,
        latent_channels=4,
        **own,
    )
    LattePipeline(
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1, set_alpha_to_one=False),
        vae=vae.eval(),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        transformer=transformer.eval(),
    ).save_pretrained(folder)
    return folder
