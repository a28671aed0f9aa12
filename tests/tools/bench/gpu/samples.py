"""A results file as the benchmark writes it, with figures that are easy to recognise."""

from __future__ import annotations

from typing import Any

STAGES_S = {"text_encoder": 0.04, "denoiser": 0.9, "vae_decoder": 0.35, "video_encoder": 0.5}


def level(concurrency: int, videos_per_s: float) -> dict[str, Any]:
    return {
        "concurrency": concurrency,
        "videos_per_s": videos_per_s,
        "mean_s": concurrency / videos_per_s,
        "p50_s": 2.0,
        "p95_s": 2.5 * concurrency,
        "clips": 2 * concurrency,
        "errors": 0,
        "refused": 0,
        "littles_law_ratio": 1.0,
        "peak_memory_bytes": 40 * 2**30,
        "idle_share": 0.125,
        "clock_mhz": 1755.0,
        "power_w": 690.5,
        "stages_s": STAGES_S,
        "queue_s": {},
        "error_messages": {},
    }


def stage(parameters: int) -> dict[str, Any]:
    return {
        "num_parameters": parameters,
        "size_bytes": 2 * parameters,
        "seconds": 61.5,
        "parity": {"relative_error": 0.012},
    }


def sample() -> dict[str, Any]:
    return {
        "models": [
            {
                "model": "bundled-3b",
                "weights": "random",
                "parameters": 8_000_000_000,
                "denoiser_parameters": 3_000_000_000,
                "steps": 4,
                "guidance_scale": 1.0,
                "frames": 241,
                "fps": 24,
                "height": 1024,
                "width": 1536,
                "decoded_height": 512,
                "decoded_width": 768,
                "videos_per_s": 0.654,
                "concurrency": 4,
                "p95_s": 10.0,
                "idle_share": 0.125,
                "seconds_at_1": 2.5,
                "stages_s": STAGES_S,
                "peak_memory_bytes": 40 * 2**30,
                "server_overhead_share": 0.08,
                "in_process": {
                    "seconds": 2.3,
                    "stages_s": STAGES_S,
                    "clock_mhz": 1980.0,
                    "power_w": 400.0,
                },
                "served": {"ready_s": 30.0},
                "levels": [level(1, 0.4), level(4, 0.654)],
                "export": {
                    "command": "reelserve export",
                    "seconds": 200.0,
                    "stages": {"denoiser": stage(3_000_000_000), "upsampler": stage(621_424)},
                },
                "commits": ["0123456789abcdef-dirty"],
            },
        ],
        "curves": [
            {
                "model": "bundled-3b",
                "what": "step",
                "against": "frames",
                "points": [
                    {"frames": 65, "height": 512, "width": 768, "seconds": 0.05},
                    {"frames": 241, "height": 512, "width": 768, "seconds": 0.15},
                ],
                "exponent": 0.84,
                "left_out": 0,
            },
            {
                "model": "bundled-3b",
                "what": "decode",
                "against": "pixels",
                "points": [{"frames": 241, "height": 512, "width": 768, "seconds": 0.36}],
                "exponent": None,
                "left_out": 1,
            },
        ],
        "plot": "bench_gpu_some_gpu.png",
        "gpu": "Some GPU",
        "driver": "580",
        "engine": "pytorch",
        "precision": "bf16",
        "versions": {"torch": "2.11"},
        "cpu": "Some CPU",
        "cores": 16,
        "date": "2026-11-25",
    }


def unfinished() -> dict[str, Any]:
    """The same after the export alone."""
    results = sample()
    model = results["models"][0]
    measured = ("videos_per_s", "concurrency", "p95_s", "idle_share", "seconds_at_1", "stages_s")
    later = ("peak_memory_bytes", "server_overhead_share", "in_process", "served")
    results["models"] = [{**model, **dict.fromkeys((*measured, *later)), "levels": []}]
    return {**results, "curves": [], "plot": None}
