"""The kernel itself without a GPU: interpreted on a CPU, compiled for every architecture."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

triton = pytest.importorskip(
    "triton", reason="needs the package triton: comes with torch's CUDA wheels"
)

from reelserve.kernels.ahead_of_time import (  # noqa: E402
    ARCHITECTURES,
    Variant,
    budget_faults,
    compile_variant,
    describe,
    every_variant,
    without_scratch_pointers,
)

pytestmark = pytest.mark.compile

ROOT = Path(__file__).parents[2]
# One of each row of the launch table and each way to share a tile, with all that is optional;
# `python -m reelserve.kernels.ahead_of_time` compiles the rest, which takes minutes.
BF16_SHAPES = [
    *((2, 64), (8, 128), (13, 72), (16, 64), (31, 64), (31, 128)),
    *((61, 64), (61, 128), (128, 40), (96, 72), (128, 128)),
]
COMPILED = [
    *(Variant(frames, head_dim) for frames, head_dim in BF16_SHAPES),
    *(Variant(f, d, "fp32") for f, d in ((2, 128), (16, 64), (31, 128), (128, 128))),
    Variant(31, 80, "fp16"),
    Variant(4, 64, "fp32", qk_norm=False),
    Variant(16, 128, qk_norm=False),
    Variant(31, 128, qk_norm=False, rope=False),
]


NUMPY = tuple(map(int, np.__version__.split(".")[:2]))


@pytest.mark.skipif(NUMPY >= (2, 5), reason="Triton's interpreter loops only with NumPy below 2.5")
def test_kernels_interpreted_on_a_cpu_agree_with_the_reference():
    done = subprocess.run(
        [sys.executable, "-m", "tests.kernels.interpreted"],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("passed") > 10


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_kernels_compile_without_spills(arch):
    found = {variant: compile_variant(variant, arch) for variant in COMPILED}
    for variant, compiled in found.items():
        sys.stdout.write(describe(variant, arch, compiled) + "\n")
    assert {str(v): budget_faults(compiled, arch) for v, compiled in found.items()} == {
        str(v): [] for v in COMPILED
    }


def test_every_variant_is_every_combination():
    assert len(set(every_variant())) == 8 * 6 * 3 * 4


def test_ptx_has_the_arguments_that_a_plugin_passes(tmp_path):
    compiled = compile_variant(Variant(16, 64), 90)
    start = compiled.ptx.index(".entry")
    header = compiled.ptx[start : compiled.ptx.index(")", start)]
    assert header.count(".param") == 10
    assert [line.split()[1] for line in header.splitlines() if ".param" in line] == [
        *[".u64"] * 5, *[".u32"] * 4, ".u64"
    ]  # fmt: skip
    source = tmp_path / "kernel.ptx"
    source.write_text(compiled.ptx)
    assembled = subprocess.run(
        [triton.knobs.nvidia.ptxas.path, "-arch=sm_90a", source, "-o", tmp_path / "kernel.cubin"],
        capture_output=True,
        text=True,
    )
    assert assembled.returncode == 0, assembled.stderr


def test_scratch_pointers_raise_when_they_are_used():
    ptx = """.visible .entry f(
	.param .u64 .ptr f_param_0,
	.param .u64 .ptr f_param_1,
	.param .u64 .ptr f_param_2
)
{ ld.param.b64 %rd1, [f_param_1]; }"""
    with pytest.raises(ValueError, match="f_param_1"):
        without_scratch_pointers(ptx)
