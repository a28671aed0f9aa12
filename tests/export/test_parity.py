"""What is refused, and what a lower precision excuses."""

import math
from dataclasses import replace

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
    ("stage", "precision", "good", "bad"),
    [
        ("denoiser", "fp32", {"max_abs_error": 9e-4}, {"max_abs_error": 1.1e-3}),
        ("denoiser", "fp16", {"relative_error": 9e-3}, {"relative_error": 0.011}),
        ("denoiser", "bf16", {"relative_error": 0.07}, {"relative_error": 0.08}),
        ("upsampler", "fp32", {"max_abs_error": 2}, {"max_abs_error": 3}),
        ("upsampler", "fp16", {"max_abs_error": 8}, {"max_abs_error": 9}),
        ("upsampler", "fp16", {"relative_error": 9e-3}, {"relative_error": 0.011}),
        ("upsampler", "bf16", {"max_abs_error": 60}, {"max_abs_error": 61}),
    ],
)
def test_require_parity_has_limits_of_its_own_for_each_precision(
    stage, precision, good, bad
) -> None:
    require_parity(stage, replace(GOOD, **good), precision)
    with pytest.raises(ParityError, match=f"stage {stage}: "):
        require_parity(stage, replace(GOOD, **bad), precision)


def test_require_frames_judges_fp32_alone() -> None:
    require_frames(45.0, "fp32")
    require_frames(30.0, "bf16")
    for psnr_db in (44.9, math.nan):
        with pytest.raises(ParityError, match="against torch; the limit is 45 dB"):
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
