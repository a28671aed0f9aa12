"""A load test that never ran: its records, made by hand."""

from __future__ import annotations

from typing import Any

from reelserve.client import StageStatistics, VideoInfo
from reelserve.loadtest.figures import LevelFigures
from reelserve.loadtest.plan import CLOSED, Plan
from reelserve.loadtest.records import OK, Measurement, RequestRecord, Window
from reelserve.loadtest.results import Outcome, outcome
from reelserve.loadtest.verdict import Goals

INFO = VideoInfo(
    seed=0,
    num_inference_steps=8,
    guidance_scale=2.5,
    num_frames=80,
    fps=8,
    height=256,
    width=256,
    checkpoint="bundled",
    engine="onnxruntime",
    versions={"reelserve": "0.1.0"},
    seconds={"total": 1.0},
)
ORIGIN = {
    "hardware": "Some CPU, 2 cores",
    "server": "a server over model_repository",
    "command": "reelserve loadtest",
    "locust": "2.46.0",
    "commit": "0123456789abcdef",
    "cpu": "Some CPU",
    "cores": 2,
    "python": "3.11.7",
    "date": "2026-11-23",
}


def plan(**changes: Any) -> Plan:
    """A plan of a closed loop."""
    values: dict[str, Any] = {
        "url": "localhost:8001",
        "name": "text_to_video 256x256 80f 8 steps",
        "loop": CLOSED,
        "levels": (1, 2),
        "prompts": ("a red circle", "a blue star"),
    }
    return Plan(**{**values, **changes})


def figures(level: float = 1, **changes: Any) -> LevelFigures:
    """Figures of a level: 0.12 clips per second, 10 s each, Little's law exact."""
    values: dict[str, Any] = {
        "level": level,
        "window_s": 100.0,
        "clips": 12,
        "refused": 0,
        "errors": 0,
        "clips_per_s": 0.12,
        "mean_s": 10.0,
        "p50_s": 9.0,
        "p95_s": 15.0,
        "p99_s": 16.0,
        "mean_in_flight": 1.2,
        "expected_in_flight": 1.2,
        "server": {},
    }
    return LevelFigures(**{**values, **changes})


def measurement() -> Measurement:
    """One caller with clips of 10 s, then two with clips of 16 s each."""
    requests, in_flight, windows, number, start_s = [], [(0.0, 0)], [], 0, 0.0
    for callers, seconds in ((1, 10.0), (2, 16.0)):
        for sent in range(5):
            sent_s = start_s + sent * seconds
            in_flight.append((sent_s, callers))
            for _ in range(callers):
                requests.append(
                    RequestRecord(number, sent_s, sent_s, sent_s + seconds, OK, "", 6.0)
                )
                number += 1
        counters = {
            stage: StageStatistics(4 * callers, 0, 4 * callers, cost * 4 * callers, 0.5)
            for stage, cost in (("video_diffusion", 4.0), ("denoiser", 3.9), ("upsampler", 3.0))
        }
        opened_s, start_s = start_s + seconds, start_s + 5 * seconds
        windows.append(Window(callers, opened_s, start_s, float(callers), counters))
    return Measurement(tuple(windows), tuple(requests), tuple(in_flight), {})


def ended(**goals: float) -> Outcome:
    """The same load test with its judgement."""
    return outcome(plan(), measurement(), Goals(**goals), INFO, 0, ORIGIN)
