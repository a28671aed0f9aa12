"""Scores the bundled checkpoint on held-out prompts and writes `docs/results/evaluation.json`.

Run as `python -m reelserve.training.evaluate`. The recogniser, trained on real renders alone,
reads real clips, their reconstructions by the autoencoder, and clips drawn from captions.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reelserve.models.denoiser import SpaceTimeDenoiser
from reelserve.models.loading import load_component
from reelserve.models.video_vae import VideoVAE
from reelserve.pipeline.atomic_file import write_file
from reelserve.pipeline.output_place import output_file
from reelserve.training.captions import Caption, write_caption
from reelserve.training.device_provenance import device_provenance
from reelserve.training.pool import encode_captions
from reelserve.training.recogniser import Recogniser, SceneReading
from reelserve.training.sample_sheet import save_sample_sheet
from reelserve.training.sampling import decode_frames, sample_latents
from reelserve.training.scenes import Scenes, sample_scenes
from reelserve.training.scoring import Score, score
from reelserve.training.world import render

_SEED = 77
_CHUNK = 32
SHEET_PROMPTS = 24

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Models:
    """Everything that is scored or scores, on one device."""

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


def load_models(checkpoint: Path, device: str) -> Models:
    """Loads the checkpoint and its recogniser."""
    return Models(
        denoiser=load_component(checkpoint / "transformer", SpaceTimeDenoiser).to(device),
        vae=load_component(checkpoint / "vae", VideoVAE).to(device),
        recogniser=load_component(checkpoint / "recogniser", Recogniser).to(device),
        device=device,
    )


def held_out_prompts(count: int, *, two_objects: bool, seed: int) -> tuple[Scenes, list[Caption]]:
    """Scenes whose every object is a held-out combination, and a caption of each."""
    rng = np.random.default_rng((_SEED, seed))
    scenes = sample_scenes(count, rng, held_out=True, two_object_share=float(two_objects))
    return scenes, [write_caption(scenes, scene, rng) for scene in range(count)]


def _slice(scenes: Scenes, start: int) -> Scenes:
    return Scenes(**{name: value[start : start + _CHUNK] for name, value in vars(scenes).items()})


def _join(readings: list[SceneReading]) -> SceneReading:
    names = vars(readings[0])
    return SceneReading(**{name: torch.cat([vars(r)[name] for r in readings]) for name in names})


@torch.no_grad()
def draw_captions(
    models: Models, captions: list[Caption], sampler: SamplerSettings, seed: int
) -> Tensor:
    """Frames `[N, 3, 80, 64, 64]` in [0, 1] of a few captions."""
    embeds, mask = encode_captions([*(c.text for c in captions), ""], models.device)
    embeds = embeds.float()
    latents = sample_latents(
        models.denoiser,
        (embeds[:-1], mask[:-1]),
        (embeds[-1:], mask[-1:]),
        num_inference_steps=sampler.num_inference_steps,
        guidance_scale=sampler.guidance_scale,
        latent_frames=20,
        latent_side=8,
        seed=seed,
        shift=sampler.shift,
    )
    return decode_frames(models.vae, latents)


@torch.no_grad()
def score_prompts(
    models: Models, scenes: Scenes, captions: list[Caption], sampler: SamplerSettings
) -> Score:
    """Draws every caption and scores what is seen."""
    readings = []
    for start in range(0, len(captions), _CHUNK):
        frames = draw_captions(models, captions[start : start + _CHUNK], sampler, _SEED + start)
        readings.append(models.recogniser(frames))
    return score(_join(readings), scenes, captions)


@torch.no_grad()
def score_renders(models: Models, scenes: Scenes) -> dict[str, Any]:
    """How well held-out renders, and their reconstructions, are read and reconstructed."""
    real, decoded, errors = [], [], []
    for start in range(0, len(scenes), _CHUNK):
        frames, _ = render(_slice(scenes, start), models.device)
        output = decode_frames(models.vae, models.vae.encode(2 * frames - 1))
        real.append(models.recogniser(frames))
        decoded.append(models.recogniser(output))
        errors.append((output - frames).square().mean(dim=(1, 3, 4)))
    error = torch.cat(errors)
    real_score, decoded_score = score(_join(real), scenes), score(_join(decoded), scenes)
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
            "mean_clip_psnr_db": float((-10 * error.mean(1).log10()).mean()),
            "recogniser_all_right": decoded_score.all_right,
            "recogniser_per_attribute": decoded_score.per_attribute,
            "num_clips": len(scenes),
        },
    }


def _psnr(mean_squared_error: Tensor) -> float:
    return float(-10 * mean_squared_error.log10())


def _entry(result: Score, sampler: SamplerSettings) -> dict[str, Any]:
    return {
        "num_prompts": len(result.right),
        "num_inference_steps": sampler.num_inference_steps,
        "guidance_scale": sampler.guidance_scale,
        "shift": sampler.shift,
        "all_right": result.all_right,
        "ci95": list(result.ci95),
        "per_attribute": result.per_attribute,
    }


def sweep(models: Models, samplers: Iterable[SamplerSettings], count: int) -> list[dict[str, Any]]:
    """Scores samplers on other held-out prompts, to choose the defaults by."""
    rows = []
    for sampler in samplers:
        row: dict[str, Any] = vars(sampler).copy()
        for name, two in (("held_out", False), ("held_out_two_objects", True)):
            scenes, captions = held_out_prompts(count, two_objects=two, seed=2 + two)
            row[name] = score_prompts(models, scenes, captions, sampler).all_right
        log.info("%s", row)
        rows.append(row)
    return rows


def sweep_grid(default: SamplerSettings) -> list[SamplerSettings]:
    """Guidance and shift around each other at the default steps; other steps at the default."""
    steps = default.num_inference_steps
    grid = [
        SamplerSettings(steps, guidance, shift)
        for guidance in (1.5, 2.5, 4.0, 6.0)
        for shift in (1.0, 2.0, 3.0, 5.0)
    ]
    return grid + [replace(default, num_inference_steps=other) for other in (2, 4, 16)]


def main() -> None:
    """Writes the results file and the contact sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoints/bundled"))
    parser.add_argument("--out", type=output_file, default="docs/results/evaluation.json")
    parser.add_argument("--sheet", type=output_file, default="docs/images/held_out.png")
    parser.add_argument("--num-prompts", type=int, default=1024)
    parser.add_argument("--sweep", type=int, default=0, help="prompts per grid point")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    models = load_models(args.checkpoint, args.device)
    sampler = default_sampler(args.checkpoint)
    rng = np.random.default_rng((_SEED, 9))
    mixed = sample_scenes(args.num_prompts, rng, held_out=True, two_object_share=0.5)
    results = score_renders(models, mixed)
    for name, two in (("held_out", False), ("held_out_two_objects", True)):
        scenes, captions = held_out_prompts(args.num_prompts, two_objects=two, seed=two)
        results[name] = _entry(score_prompts(models, scenes, captions, sampler), sampler)
    _write(args.out, results, args.device)
    captions = [
        write_caption(mixed, scene, rng) for scene in range(min(SHEET_PROMPTS, args.num_prompts))
    ]
    frames = draw_captions(models, captions, sampler, _SEED)
    save_sample_sheet(args.sheet, [c.text for c in captions], frames)
    if args.sweep:
        results["sweep"] = sweep(models, sweep_grid(sampler), args.sweep)
        _write(args.out, results, args.device)


def _write(path: Path, results: dict[str, Any], device: str) -> None:
    log.info("%s", json.dumps(results))
    kept = json.loads(path.read_text()) if path.is_file() else {}
    kept.pop("sweep", None)
    content = {**kept, **results, **device_provenance(device)}
    write_file(path, json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
