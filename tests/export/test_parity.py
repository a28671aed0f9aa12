"""What is refused, and what a lower precision excuses."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from reelserve.export.parity import (
    ParityError,
    StageParity,
    StageRun,
    compare_stage,
    require_frames,
    require_parity,
)
from reelserve.export.parity_limits import (
    MAX_LEVEL_ERROR,
    MAX_RELATIVE_ERROR,
    MAX_ROUNDINGS,
    MIN_GRAPH_PSNR_DB,
    ROUNDING,
)
from reelserve.export.stages import DTYPES
from tests.export.stubs import StubEngine, stub_stage

GOOD = StageParity(0.0, 1.0, 0.0, "torch on cpu", "model.onnx")


def test_compare_stage_measures_largest_and_relative_error() -> None:
    expected = np.array([[3.0, -4.0]], np.float32)
    run = StageRun((expected,), expected, expected)
    parity = compare_stage(run, lambda x: x + np.float32([[0, 0.5]]), "torch on cpu", "model.onnx")
    assert parity == StageParity(0.5, 4.0, 0.1, "torch on cpu", "model.onnx")


def test_compare_stage_refuses_when_shapes_differ() -> None:
    values = np.zeros((1, 4), np.uint8)
    with pytest.raises(ParityError, match=r"gives \[1, 3\], torch \[1, 4\]"):
        compare_stage(
            StageRun((values,), values, values), lambda x: x[:, 1:], "torch", "model.onnx"
        )


@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize("stage", ["denoiser", "upsampler"])
def test_require_parity_refuses_what_is_no_number(stage, precision) -> None:
    with pytest.raises(ParityError, match=f"stage {stage}: "):
        require_parity(
            stage, replace(GOOD, max_abs_error=math.nan, relative_error=math.nan), precision
        )


@pytest.mark.parametrize(
    ("stage", "precision", "error", "limit"),
    [
        ("denoiser", "fp32", "max_abs_error", MAX_RELATIVE_ERROR * GOOD.max_abs_value),
        ("denoiser", "fp16", "relative_error", MAX_ROUNDINGS * ROUNDING["fp16"]),
        ("denoiser", "bf16", "relative_error", MAX_ROUNDINGS * ROUNDING["bf16"]),
        ("upsampler", "fp32", "max_abs_error", MAX_LEVEL_ERROR["fp32"]),
        ("upsampler", "fp16", "max_abs_error", MAX_LEVEL_ERROR["fp16"]),
        ("upsampler", "fp16", "relative_error", MAX_ROUNDINGS * ROUNDING["fp16"]),
        ("upsampler", "bf16", "max_abs_error", MAX_LEVEL_ERROR["bf16"]),
    ],
)
def test_require_parity_has_limits_of_its_own_for_each_precision(
    stage, precision, error, limit
) -> None:
    require_parity(stage, replace(GOOD, **{error: limit}), precision)
    with pytest.raises(ParityError, match=f"stage {stage}: "):
        require_parity(stage, replace(GOOD, **{error: limit * 1.01}), precision)


def test_require_frames_judges_fp32_alone() -> None:
    require_frames(MIN_GRAPH_PSNR_DB, "fp32")
    require_frames(30.0, "bf16")
    for psnr_db in (MIN_GRAPH_PSNR_DB - 0.1, math.nan):
        with pytest.raises(
            ParityError, match=f"against torch; the limit is {MIN_GRAPH_PSNR_DB:g} dB"
        ):
            require_frames(psnr_db, "fp32")


def test_fp32_does_not_excuse_the_roundings_of_bf16(tmp_path) -> None:
    inputs = tuple(tensor.numpy() for tensor in stub_stage("denoiser").example_inputs)
    (tmp_path / "model.onnx").write_text("denoiser")

    def answers(runs_in: str):
        engine = StubEngine(runs_in=runs_in)
        return lambda *values: engine.run(tmp_path / "model.onnx", dict(enumerate(values)))[0]

    expected = answers("fp32")(*inputs)
    run = StageRun(inputs, expected, expected)
    parity = compare_stage(run, answers("bf16"), "torch", "model.onnx")
    require_parity("denoiser", parity, "bf16")
    with pytest.raises(ParityError):
        require_parity("denoiser", parity, "fp32")


def test_page_states_the_limits() -> None:
    page = Path(__file__).parents[2] / "docs" / "onnxruntime.md"
    roundings = "; ".join(f"{MAX_ROUNDINGS * ROUNDING[name]:.2g}" for name in ("fp16", "bf16"))
    levels = MAX_LEVEL_ERROR
    rows = (
        f"| A value, fp32 | {MAX_RELATIVE_ERROR:g} of the largest value |",
        f"| A frame, fp32 | {levels['fp32']} of 255 levels |",
        f"| The finished clip, fp32 | {MIN_GRAPH_PSNR_DB:g} dB PSNR |",
        "| The relative error (Euclidean), fp16; bf16 of other engines | "
        f"{MAX_ROUNDINGS} roundings: {roundings} |",
        f"| A frame, fp16; bf16 | {levels['fp16']}; {levels['bf16']} of 255 levels |",
    )
    text = page.read_text(encoding="utf-8")
    assert [row for row in rows if row not in text] == []
