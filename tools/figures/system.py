"""Writes the figures of docs/system.md: two tables, and single figures inside its sentences."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reelserve.pipeline.contract import PUBLIC_MODEL
from reelserve.tools.figures.tables import Results, percent, table, when

GPU_FILE = "bench_gpu_nvidia_h100_80gb_hbm3.json"
SCALING_FILE = "scaling_nvidia_h200.json"
GIB = 2**30
MODELS = ("ltx-2b", "bundled-3b", "bundled-10b")
"""Models of the range of sizes that the page is about; none draws the small world of shapes."""
PRICES_USD_PER_HOUR = (1.99, 3.78, 5.00)
"""One H100 SXM on demand in May 2026: the lowest, the one that the page reckons with, the highest.
The page names their sources."""
COMPONENTS = (
    ("Text encoder", ("text_encoder",)),
    ("Video diffusion model, all steps", ("video_diffusion", "denoiser")),
    ("Decoder of the latents", ("vae_decoder",)),
    ("Frame consistency manager", ("frame_consistency",)),
    ("Upsampler", ("upsampler",)),
    ("MP4 encoder", ("video_encoder",)),
)
"""Component of the pattern and the stages that it is made of here."""
DEFAULT_GUIDANCE_AND_SHIFT = (2.5, 5.0)
"""The bundled checkpoint's defaults, at which numbers of steps are compared."""


def system_components(results: Path) -> str:
    """Seconds of each component for one clip, served one at a time."""
    gpu, cpu = _read(results, GPU_FILE), _read(results, "bench_cpu.json")
    models = [_model(gpu, name) for name in MODELS]
    request = cpu["request"]
    titles = (
        "Component",
        "Stages",
        *(f"`{model['model']}`, {model['steps']} steps, s" for model in models),
        f"`bundled` on a CPU, {request['num_inference_steps']} steps, s",
    )
    seconds = [*(model["stages_s"] for model in models), cpu["stages_s"]]
    rows = [
        (
            title,
            ", ".join(f"`{stage}`" for stage in stages),
            *(f"{sum(one[stage] for stage in stages):.3f}" for one in seconds),
        )
        for title, stages in COMPONENTS
    ]
    totals = (*(model["seconds_at_1"] for model in models), cpu["seconds_per_clip"])
    rows.append(("A clip, from request to response", "–", *(f"{total:.3f}" for total in totals)))
    return (
        f"{table(titles, rows)}\n\nMeasured by `make bench-gpu` on one {gpu['gpu']}, "
        f"{_commit_and_date(gpu)}, and by `make bench-cpu` on {cpu['cpu']}, {cpu['cores']} cores, "
        f"{when(cpu)}."
    )


def system_cost(results: Path) -> str:
    """US cents of GPU time for a clip, at each price of an hour."""
    gpu = _read(results, GPU_FILE)
    low, usual, high = PRICES_USD_PER_HOUR
    titles = (
        "Model",
        "Videos per second, busy",
        *(f"Cents a clip at ${price:.2f} an hour" for price in PRICES_USD_PER_HOUR),
        f"One caller at a time, cents at ${usual:.2f}",
    )
    rows = []
    for model in (_model(gpu, name) for name in MODELS):
        alone = next(level for level in model["levels"] if level["concurrency"] == 1)
        busy = model["videos_per_s"]
        cents = [cents_a_clip(price, busy) for price in (low, usual, high)]
        cents.append(cents_a_clip(usual, alone["videos_per_s"]))
        rows.append((f"`{model['model']}`", f"{busy:.3f}", *(f"{one:.3f}" for one in cents)))
    return (
        f"{table(titles, rows)}\n\nReckoned from `docs/results/{GPU_FILE}` (one {gpu['gpu']}, "
        f"{_commit_and_date(gpu)})."
    )


SYSTEM_WRITERS = {"system_components": system_components, "system_cost": system_cost}
"""Name of a block to what writes it, from the folder of results files."""


def cents_a_clip(price_usd_per_hour: float, videos_per_s: float) -> float:
    """US cents of a GPU that does nothing but draw clips one after the other.

    Args:
        price_usd_per_hour: Rent of the GPU.
        videos_per_s: What it draws, above 0.
    """
    return 100 * price_usd_per_hour / 3600 / videos_per_s


def figures_in_sentences(results: Path) -> Mapping[str, str]:
    """Single figures by the names that pages call them by.

    Args:
        results: Folder of results files.

    Raises:
        FileNotFoundError: If a results file is missing.
    """
    gpu = _read(results, GPU_FILE)
    found: dict[str, str] = {}
    for name in MODELS:
        found |= _of_model(name.replace("-", "_"), gpu, _model(gpu, name))
    small = _model(gpu, "bundled")["levels"]
    return {
        **found,
        **{f"bundled_at_{level['concurrency']}": f"{level['videos_per_s']:.1f}" for level in small},
        "decoder_frames_exponent": _exponent(gpu, "ltx-2b", "decode", "frames"),
        "decoder_pixels_exponent": _exponent(gpu, "ltx-2b", "decode", "pixels"),
        **_of_cpu(_read(results, "bench_cpu.json")),
        **_of_quality(results),
        **_of_service(results),
        **_of_scaling(_read(results, SCALING_FILE)),
    }


def _of_model(prefix: str, gpu: Results, model: Results) -> dict[str, str]:
    exported = sum(stage["size_bytes"] for stage in model["export"]["stages"].values())
    encoder = model["stages_s"]["video_encoder"] / model["seconds_at_1"]
    return {
        f"{prefix}_parameters": f"{model['parameters'] / 1e9:.1f}",
        f"{prefix}_denoiser_parameters": f"{model['denoiser_parameters'] / 1e9:.1f}",
        f"{prefix}_videos_per_s": f"{model['videos_per_s']:.2f}",
        f"{prefix}_p95_s": f"{model['p95_s']:.1f}",
        f"{prefix}_served_gib": f"{model['peak_memory_bytes'] / GIB:.1f}",
        f"{prefix}_one_process_gib": f"{model['in_process']['peak_memory_bytes'] / GIB:.1f}",
        f"{prefix}_frames_exponent": _exponent(gpu, model["model"], "step", "frames"),
        f"{prefix}_pixels_exponent": _exponent(gpu, model["model"], "step", "pixels"),
        f"{prefix}_encoder_share": f"{100 * encoder:.0f}%",
        f"{prefix}_idle_share": f"{100 * model['idle_share']:.0f}%",
        f"{prefix}_exported_gib": f"{exported / GIB:.1f}",
        f"{prefix}_step_s": f"{model['stages_s']['denoiser'] / model['steps']:.3f}",
    }


def _of_scaling(results: Results) -> dict[str, str]:
    """How many times as many clips two GPUs draw as one, for the worst model and the best."""
    times = [2 * row["efficiency"] for row in results["rows"] if row["gpus"] == 2]
    return {"two_gpus_least": f"{min(times):.2f}", "two_gpus_most": f"{max(times):.2f}"}


def _of_cpu(bench: Results) -> dict[str, str]:
    return {
        "cpu_at_1": f"{bench['videos_per_s']:.3f}",
        "cpu_at_4": f"{bench['videos_per_s_at_4']:.3f}",
    }


def _of_quality(results: Path) -> dict[str, str]:
    """What prompts get at few and many steps, and what consistency and exports change."""
    sweep = _read(results, "evaluation_before_averaging.json")["sweep"]
    right = {row["num_inference_steps"]: row["held_out"] for row in sweep if _default_sampler(row)}
    consistency = _read(results, "evaluation.json")["frame_consistency"]
    return {
        **{f"right_at_{steps}_steps": f"{100 * share:.0f}%" for steps, share in right.items()},
        "flicker_removed": percent(consistency["flicker_reduction"]),
        "undisturbed_db": f"{consistency['undisturbed_psnr_change_db']:+.2f}",
        "export_psnr_db": f"{_read(results, 'parity.json')['frames_psnr_db']:.1f}",
    }


def _of_service(results: Path) -> dict[str, str]:
    """Cancels, refusals, faults, and whether clips drawn together differ."""
    serving, faults = _read(results, "serving.json"), _read(results, "faults.json")
    same = _read(results, "same_bytes_nvidia_h100_80gb_hbm3.json")[0]
    refusals = {one["model"]: one for one in serving["refusals"]}
    recovered = [row["recovered_s"] for row in faults if row["recovered_s"] is not None]
    return {
        "cancel_longest_s": f"{max(max(one['runs_s']) for one in serving['cancels']):.2f}",
        "longest_step_s": f"{max(max(one['steps_s']) for one in serving['cancels']):.2f}",
        "refusal_p99_ms": f"{1e3 * refusals[PUBLIC_MODEL]['p99_s']:.1f}",
        "first_event_s": f"{serving['stream']['first_event_s']:.2f}",
        "faults_as_expected": str(sum(row["as_expected"] for row in faults)),
        "faults_tried": str(len(faults)),
        "faults_lost": str(sum(row["lost"] for row in faults)),
        "recovered_longest_s": f"{max(recovered):.1f}",
        "same_bytes": same["seen"].partition(" differ")[0],
    }


def _default_sampler(row: Results) -> bool:
    return (row["guidance_scale"], row["shift"]) == DEFAULT_GUIDANCE_AND_SHIFT


def _exponent(gpu: Results, model: str, what: str, against: str) -> str:
    curves: Sequence[Results] = gpu["curves"]
    wanted = (model, what, against)
    (curve,) = (one for one in curves if (one["model"], one["what"], one["against"]) == wanted)
    return f"{curve['exponent']:.2f}"


def _model(gpu: Results, name: str) -> Results:
    models: Sequence[Results] = gpu["models"]
    return next(model for model in models if model["model"] == name)


def _commit_and_date(gpu: Results) -> str:
    return when({**gpu, "commit": _model(gpu, MODELS[0])["commits"][-1]})


def _read(results: Path, name: str) -> Any:
    return json.loads((results / name).read_text(encoding="utf-8"))
