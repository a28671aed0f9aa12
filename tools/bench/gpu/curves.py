"""How the seconds of a denoising step and of the decoder grow with frames and with size.

`python -m reelserve.tools.bench.gpu.curves JOB RESULT`, both JSON files, in a process of its
own. The modules run in PyTorch as they are, in bf16, without the exporter and the server: a curve
needs many sizes, and a graph of free sizes would be another one than those that are served.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reelserve.export.families.ltx import LTXDecoderStage, LTXDenoiserStage
from reelserve.export.stages import DenoiserStage
from reelserve.tools.bench.gpu.cases import Case
from reelserve.tools.bench.gpu.checkpoints import (
    DENOISERS,
    free_gpu_memory,
    random_decoder,
    random_denoiser,
    random_ltx_denoiser,
)
from reelserve.tools.bench.gpu.in_process import synchronise
from reelserve.tools.results_file import write_json

REPEATS = 3
TEXT_TOKENS = 128
TEMPORAL, SPATIAL = 8, 32
"""Frames and pixels per latent of LTX-Video's autoencoder."""
Size = tuple[int, int, int]
"""Frames, rows and columns before the upsampler."""
SIZES: dict[str, tuple[Size, ...]] = {
    "frames": tuple((frames, 512, 768) for frames in (65, 121, 241, 361)),
    "pixels": ((241, 256, 384), (241, 384, 576), (241, 512, 768), (241, 768, 1152)),
}
DRY_SIZES: dict[str, tuple[Size, ...]] = {
    "frames": ((9, 64, 96), (17, 64, 96), (33, 64, 96)),
    "pixels": ((9, 64, 96), (9, 128, 192)),
}


def fitted_exponent(amounts: Sequence[float], seconds: Sequence[float]) -> float:
    """The k of seconds ∝ amountᵏ, by least squares of the logarithms.

    Raises:
        ValueError: If there are fewer than two amounts.
    """
    if len(set(amounts)) < 2:
        raise ValueError(f"a fit needs at least 2 amounts; there are {len(set(amounts))}")
    xs, ys = [math.log(a) for a in amounts], [math.log(s) for s in seconds]
    mean_x, mean_y = statistics.fmean(xs), statistics.fmean(ys)
    covariance = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True))
    return covariance / sum((x - mean_x) ** 2 for x in xs)


def curve(
    model: str, what: str, against: str, sizes: Sequence[Size], call: Callable[[Size], object]
) -> dict[str, Any]:
    """Times a function at several sizes; those that have no room are left out.

    Args:
        model: Name of the case.
        what: What is timed, in words.
        against: `frames` or `pixels`.
        sizes: Rising.
        call: Runs it once.

    Returns:
        An entry of `curves` in the results.
    """
    points = []
    for size in sizes:
        try:
            seconds = timed(lambda: call(size))  # noqa: B023
        except torch.OutOfMemoryError:
            free_gpu_memory()
            break
        frames, height, width = size
        points.append({"frames": frames, "height": height, "width": width, "seconds": seconds})
    amounts = [
        float(point["frames"] if against == "frames" else point["height"] * point["width"])
        for point in points
    ]
    fit = fitted_exponent(amounts, [p["seconds"] for p in points]) if len(points) > 1 else None
    return {
        "model": model,
        "what": what,
        "against": against,
        "points": points,
        "exponent": None if fit is None else round(fit, 3),
        "left_out": len(sizes) - len(points),
    }


def timed(call: Callable[[], object]) -> float:
    """Median seconds of a few calls, after one that is not timed."""
    times = []
    for _ in range(1 + REPEATS):
        synchronise()
        started = time.perf_counter()
        call()
        synchronise()
        times.append(time.perf_counter() - started)
    return round(statistics.median(times[1:]), 6)


def denoiser_call(case: Case) -> Callable[[Size], Tensor]:
    """One step of a case's denoiser, with random weights, of one prompt."""
    module: nn.Module
    if case.layout == "ltx":
        scale = (TEMPORAL / case.fps, SPATIAL, SPATIAL)
        module = LTXDenoiserStage(random_ltx_denoiser(case), scale)
        width = int(case.denoiser["caption_channels"])
    else:
        config = DENOISERS[case.denoiser["size"]]
        module, width = DenoiserStage(random_denoiser(config)), config.text_dim
    device = next(module.parameters()).device

    def call(size: Size) -> Tensor:
        latents = latents_of(size, device)
        embeds = torch.randn(1, TEXT_TOKENS, width, device=device)
        mask = torch.ones(1, TEXT_TOKENS, dtype=torch.int64, device=device)
        velocity: Tensor = module(latents, torch.full((1, 1), 500.0, device=device), embeds, mask)
        return velocity

    return call


def decoder_call(*, tiny: bool) -> Callable[[Size], Tensor]:
    """LTX-Video's decoder with random weights."""
    decoder = random_decoder(tiny=tiny)
    module, device = LTXDecoderStage(decoder), decoder.device

    def call(size: Size) -> Tensor:
        frames: Tensor = module(latents_of(size, device))
        return frames

    return call


def latents_of(size: Size, device: torch.device) -> Tensor:
    """Random latents of a clip."""
    frames, height, width = size
    shape = (1, 128, (frames - 1) // TEMPORAL + 1, height // SPATIAL, width // SPATIAL)
    return torch.randn(shape, device=device)


def measure_curves(case: Case, *, tiny: bool) -> list[dict[str, Any]]:
    """Curves of a case's denoiser; LTX-Video's case gives those of the decoder too."""
    sizes = DRY_SIZES if tiny else SIZES
    with torch.no_grad():
        call = denoiser_call(case)
        found = [curve(case.name, "step", by, sizes[by], call) for by in sizes]
        del call
        free_gpu_memory()
        if case.layout == "ltx":
            call = decoder_call(tiny=tiny)
            found += [curve(case.name, "decode", by, sizes[by], call) for by in sizes]
    return found


def main() -> None:
    """Measures what the first file says and writes the second."""
    job_file, result_file = map(Path, sys.argv[1:])
    job = json.loads(job_file.read_text())
    write_json(result_file, {"curves": measure_curves(Case(**job["case"]), tiny=job["tiny"])})


if __name__ == "__main__":
    main()
