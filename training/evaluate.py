"""Scores the bundled checkpoint on sentences and writes `docs/results/evaluation.json`.

Run as `python -m reelserve.training.evaluate`. The recogniser, trained on real renders alone,
reads real clips, their reconstructions by the autoencoder, and clips drawn from sentences.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reelserve.models.denoiser import SpaceTimeDenoiser
from reelserve.models.loading import load_component
from reelserve.models.sentence_tokenizer import NUM_SLOTS
from reelserve.models.text_encoder import TextEncoder, encode_texts
from reelserve.models.video_vae import VideoVAE
from reelserve.pipeline.atomic_file import write_file
from reelserve.pipeline.output_place import output_file
from reelserve.training.device_provenance import device_provenance
from reelserve.training.prompt_sets import PROMPT_SETS, PromptSet
from reelserve.training.recogniser import Recogniser, SceneReading, join_readings
from reelserve.training.sample_sheet import save_sample_sheet
from reelserve.training.sampling import (
    LATENT_FRAMES,
    LATENT_SIDE,
    decode_frames,
    sample_latents,
)
from reelserve.training.scene.labelling import draw_labels
from reelserve.training.scene.rendering import render
from reelserve.training.scene.scenes import Scenes, sample_scenes
from reelserve.training.scene.vocabulary import MOTIONS
from reelserve.training.scoring import Score, best_things, score, wanted_of_scenes
from reelserve.training.train_recogniser import ALWAYS_SEEN

_SEED = 77
_CHUNK = 32
SHEET_PROMPTS = 48

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Models:
    """Everything that is scored or scores, on one device."""

    text_encoder: TextEncoder
    denoiser: SpaceTimeDenoiser
    vae: VideoVAE
    recogniser: Recogniser
    device: str


@dataclass(frozen=True)
class SamplerSettings:
    """How clips are drawn; names as in a request."""

    num_inference_steps: int
    guidance_scale: float
    shift: float


def default_sampler(checkpoint: Path) -> SamplerSettings:
    """Settings of a request that names none."""
    limits = json.loads((checkpoint / "model_index.json").read_text())["limits"]
    scheduler = json.loads((checkpoint / "scheduler" / "scheduler_config.json").read_text())
    return SamplerSettings(
        num_inference_steps=limits["num_inference_steps"]["default"],
        guidance_scale=limits["guidance_scale"]["default"],
        shift=scheduler["shift"],
    )


def load_models(checkpoint: Path, transformer: Path, device: str) -> Models:
    """Loads the checkpoint and its recogniser."""
    return Models(
        text_encoder=load_component(checkpoint / "text_encoder", TextEncoder).to(device),
        denoiser=load_component(transformer, SpaceTimeDenoiser).to(device),
        vae=load_component(checkpoint / "vae", VideoVAE).to(device),
        recogniser=load_component(checkpoint / "recogniser", Recogniser).to(device),
        device=device,
    )


@torch.no_grad()
def draw_rows(models: Models, rows: Tensor, sampler: SamplerSettings, seed: int) -> Tensor:
    """Frames `[N, 3, 80, 128, 128]` in [0, 1] of a few label rows `[N, 4, E]`."""
    shape = (len(rows), models.denoiser.config.in_channels, LATENT_FRAMES)
    generator = torch.Generator(device=models.device).manual_seed(seed)
    noise = torch.randn(
        (*shape, LATENT_SIDE, LATENT_SIDE), generator=generator, device=models.device
    )
    with torch.autocast(models.device, torch.bfloat16, enabled=models.device == "cuda"):
        latents = sample_latents(models.denoiser, rows, noise, **vars(sampler))
        return decode_frames(models.vae, latents.float()).float()


def draw_texts(models: Models, texts: Sequence[str], sampler: SamplerSettings, seed: int) -> Tensor:
    """Frames `[N, 3, 80, 128, 128]` in [0, 1] of a few sentences."""
    rows, _ = encode_texts(models.text_encoder, texts)
    return draw_rows(models, rows[:, :NUM_SLOTS], sampler, seed)


@torch.no_grad()
def read_drawn(models: Models, texts: Sequence[str], sampler: SamplerSettings) -> SceneReading:
    """Draws every sentence and reads what is seen."""
    readings = []
    for start in range(0, len(texts), _CHUNK):
        part = texts[start : start + _CHUNK]
        frames = draw_texts(models, part, sampler, _SEED + start)
        readings.append(models.recogniser(frames))
    return join_readings(readings)


def score_set(models: Models, prompts: PromptSet, sampler: SamplerSettings) -> dict[str, Any]:
    """The entry of a set of sentences in the results file."""
    result = score(read_drawn(models, prompts.texts, sampler), prompts.wanted)
    wrong = [text for text, ok in zip(prompts.texts, result.right, strict=True) if not ok]
    return {**_entry(result), **vars(sampler), "wrong": wrong[:40]}


def _entry(result: Score) -> dict[str, Any]:
    return {
        "num_prompts": len(result.right),
        "all_right": result.all_right,
        "ci95": list(result.ci95),
        "per_attribute": result.per_attribute,
    }


@torch.no_grad()
def score_renders(models: Models, scenes: Scenes) -> dict[str, Any]:
    """How well held-out renders, and their reconstructions, are read and reconstructed."""
    real, decoded, errors = [], [], []
    for start in range(0, len(scenes), _CHUNK):
        frames, _ = render(scenes.rows(slice(start, start + _CHUNK)), models.device)
        output = decode_frames(models.vae, models.vae.encode(2 * frames - 1))
        real.append(models.recogniser(frames))
        decoded.append(models.recogniser(output))
        errors.append((output - frames).square().mean(dim=(1, 3, 4)))
    error, wanted = torch.cat(errors), wanted_of_scenes(scenes)
    real_score = score(join_readings(real), wanted)
    decoded_score = score(join_readings(decoded), wanted)
    return {
        "recogniser": {
            # Of the attribute that is read worst.
            "real_accuracy": min(real_score.per_attribute.values()),
            "real_per_attribute": real_score.per_attribute,
            "real_all_right": real_score.all_right,
            "num_clips": len(scenes),
        },
        "autoencoder": {
            "psnr_db": _psnr(error.mean()),
            "first_frame_psnr_db": _psnr(error[:, 0].mean()),
            "rest_psnr_db": _psnr(error[:, 1:].mean()),
            "last_frame_psnr_db": _psnr(error[:, -1].mean()),
            "recogniser_all_right": decoded_score.all_right,
            "recogniser_per_attribute": decoded_score.per_attribute,
            "num_clips": len(scenes),
        },
    }


def _psnr(mean_squared_error: Tensor) -> float:
    return float(-10 * mean_squared_error.log10())


@torch.no_grad()
def score_frames(models: Models, scenes: Scenes, sampler: SamplerSettings) -> dict[str, Any]:
    """Whether a thing stays the same, and flicker beside that of the renders.

    The scenes' objects are seen whole in every frame (`ALWAYS_SEEN`). A thing stays the same where
    the recogniser, given the first, the middle and the last frame alone, sees the same things.
    """
    same, drawn_flicker, real_flicker = [], [], []
    rng = np.random.default_rng(_SEED)
    for start in range(0, len(scenes), _CHUNK):
        part = scenes.rows(slice(start, start + _CHUNK))
        # Labels that leave some things unsaid, as a user's sentence would.
        rows = draw_labels(part, rng).rows().to(models.device)
        drawn, (real, _) = draw_rows(models, rows, sampler, start), render(part, models.device)
        seen = [
            best_things(models.recogniser(drawn[:, :, which : which + 1]))
            for which in (0, drawn.shape[2] // 2, drawn.shape[2] - 1)
        ]
        same += [a == b == c for a, b, c in zip(*seen, strict=True)]
        drawn_flicker.append(flicker(drawn).cpu())
        real_flicker.append(flicker(real).cpu())
    return {
        "same_things": float(np.mean(same)),
        "flicker": float(torch.cat(drawn_flicker).mean()),
        "flicker_of_renders": float(torch.cat(real_flicker).mean()),
        "num_clips": len(scenes),
    }


def flicker(clips: Tensor) -> Tensor:
    """Mean squared second difference in time, which steady motion hardly has: `[N]`.

    Args:
        clips: `[N, 3, F, H, W]` in [0, 1].
    """
    return clips.diff(n=2, dim=2).square().mean(dim=(1, 2, 3, 4))


def still_scenes(count: int) -> Scenes:
    """Scenes whose objects are whole in every frame."""
    rng = np.random.default_rng((_SEED, 10))
    scenes = sample_scenes(20 * count, rng, held_out_only=None)
    motions = [MOTIONS.index(name) for name in ALWAYS_SEEN]
    drawn = np.arange(scenes.thing.shape[1])[None] < scenes.count[:, None]
    whole = (np.isin(scenes.motion, motions) | ~drawn).all(1) & (scenes.count > 0)
    return scenes.rows(np.flatnonzero(whole)[:count])


def main() -> None:
    """Writes the results file and the contact sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoints/world"))
    parser.add_argument("--transformer", type=Path, help="another denoiser than the checkpoint's")
    parser.add_argument("--out", type=output_file, default="docs/results/evaluation_world.json")
    parser.add_argument("--sheet", type=output_file, default="docs/images/world.jpg")
    parser.add_argument("--num-prompts", type=int, default=1024)
    parser.add_argument("--sets", nargs="+", default=list(PROMPT_SETS), choices=list(PROMPT_SETS))
    parser.add_argument("--num-inference-steps", type=int)
    parser.add_argument("--guidance-scale", type=float)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    transformer = args.transformer or args.checkpoint / "transformer"
    models = load_models(args.checkpoint, transformer, args.device)
    sampler = default_sampler(args.checkpoint)
    for name in ("num_inference_steps", "guidance_scale"):
        if (value := getattr(args, name)) is not None:
            sampler = replace(sampler, **{name: value})
    rng = np.random.default_rng((_SEED, 9))
    scenes = sample_scenes(args.num_prompts, rng, held_out_only=None)
    results = score_renders(models, scenes)
    results["frames"] = score_frames(models, still_scenes(args.num_prompts // 4), sampler)
    _write(args.out, results, args.device)
    for name in args.sets:
        prompts = PROMPT_SETS[name](args.num_prompts)
        results[name] = score_set(models, prompts, sampler)
        _write(args.out, results, args.device)
    first = PROMPT_SETS["hand_written"](SHEET_PROMPTS).texts[:SHEET_PROMPTS]
    save_sample_sheet(args.sheet, first, draw_texts(models, first, sampler, _SEED))


def _write(path: Path, results: dict[str, Any], device: str) -> None:
    log.info("%s", json.dumps(results))
    kept = json.loads(path.read_text()) if path.is_file() else {}
    kept = {name: entry for name, entry in kept.items() if name == "frame_consistency"}
    content = {**kept, **results, **device_provenance(device)}
    write_file(path, json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
