"""Measures the flicker filter on held-out clips and writes its figures.

Run as `python -m reelserve.training.measure_consistency`. Renders of held-out scenes go through
the autoencoder; then every frame's brightness is changed by up to 3% and noise is added. The
filter sees the disturbed clips, and the undisturbed ones, where it should change little.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reelserve.models.frame_consistency import FrameConsistency
from reelserve.models.loading import load_component
from reelserve.models.video_vae import VideoVAE
from reelserve.pipeline.atomic_file import write_file
from reelserve.pipeline.output_place import output_file
from reelserve.pipeline.quality import flicker_energy, psnr
from reelserve.training.device_provenance import device_provenance
from reelserve.training.sampling import decode_frames
from reelserve.training.scene.rendering import render
from reelserve.training.scene.scenes import sample_scenes

BRIGHTNESS_JITTER = 0.03
NOISE_DEVIATION = 0.02
ENTRY = "frame_consistency"
_SEED = 78

log = logging.getLogger(__name__)

ClipFrames = NDArray[np.uint8]


def add_flicker(clip: ClipFrames, rng: np.random.Generator) -> ClipFrames:
    """Changes every frame's brightness and adds noise.

    Args:
        clip: `[F, H, W, 3]`, uint8.
        rng: Source of the disturbance.
    """
    gain = 1 + rng.uniform(-BRIGHTNESS_JITTER, BRIGHTNESS_JITTER, (len(clip), 1, 1, 1))
    noisy = clip / 255 * gain + rng.normal(0, NOISE_DEVIATION, clip.shape)
    return _to_levels(noisy)


def measure_clip(
    clean: ClipFrames, decoded: ClipFrames, disturbed: ClipFrames, filter_: FrameConsistency
) -> ClipMeasures:
    """Figures of one clip, against the clean render.

    Returns:
        Flicker energy of the disturbed clip before and after the filter, and the change of PSNR
        in decibels on the disturbed and on the undisturbed clip.
    """
    steady, unharmed = apply_filter(filter_, disturbed), apply_filter(filter_, decoded)
    return (
        flicker_energy(disturbed, clean),
        flicker_energy(steady, clean),
        psnr(steady, clean) - psnr(disturbed, clean),
        psnr(unharmed, clean) - psnr(decoded, clean),
    )


ClipMeasures = tuple[float, float, float, float]


def apply_filter(filter_: FrameConsistency, clip: ClipFrames) -> ClipFrames:
    """Filters a clip `[F, H, W, 3]`, uint8."""
    frames = torch.from_numpy(clip).permute(0, 3, 1, 2)[None].float() / 255
    with torch.no_grad():
        return _to_levels(filter_(frames)[0].permute(0, 2, 3, 1).numpy())


def summarise(rows: list[ClipMeasures]) -> dict[str, Any]:
    """The entry of the results file: means over clips, and the worst clip."""
    before, after, change, undisturbed = np.array(rows).T
    return {
        "flicker_reduction": float(1 - after.sum() / before.sum()),
        "psnr_change_db": float(change.mean()),
        "undisturbed_psnr_change_db": float(undisturbed.mean()),
        "worst_clip": {
            "flicker_reduction": float((1 - after / before).min()),
            "psnr_change_db": float(change.min()),
            "undisturbed_psnr_change_db": float(undisturbed.min()),
        },
        "num_clips": len(rows),
    }


def main() -> None:
    """Writes the entry into the results file, leaving the other entries."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoints/world"))
    parser.add_argument("--out", type=output_file, default="docs/results/evaluation_world.json")
    parser.add_argument("--num-clips", type=int, default=32)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    vae = load_component(args.checkpoint / "vae", VideoVAE).to(args.device)
    rng = np.random.default_rng(_SEED)
    rows = []
    for _ in range(args.num_clips):
        scenes = sample_scenes(1, rng, held_out_only=True)
        frames, _ = render(scenes, args.device)
        with torch.no_grad():
            decoded = decode_frames(vae, vae.encode(2 * frames - 1))
        clean, decoded_clip = _clip(frames), _clip(decoded)
        disturbed = add_flicker(decoded_clip, rng)
        rows.append(measure_clip(clean, decoded_clip, disturbed, FrameConsistency()))
        log.info("setting %d: %s", scenes.setting[0], [round(v, 6) for v in rows[-1]])
    entry = {**summarise(rows), **device_provenance(args.device)}
    log.info("%s", json.dumps(entry))
    results = json.loads(args.out.read_text()) if args.out.is_file() else {}
    write_file(args.out, json.dumps({**results, ENTRY: entry}, indent=2) + "\n")


def _clip(frames: Tensor) -> ClipFrames:
    """`[1, 3, F, H, W]` in [0, 1] to `[F, H, W, 3]`, uint8."""
    return _to_levels(frames[0].permute(1, 2, 3, 0).cpu().numpy())


def _to_levels(values: NDArray[np.floating]) -> ClipFrames:
    return (values.clip(0, 1) * 255 + 0.5).astype(np.uint8)


if __name__ == "__main__":
    main()
