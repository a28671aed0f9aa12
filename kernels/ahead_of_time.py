"""Compiles the kernel without a GPU, for any architecture: PTX, registers, shared memory.

`python -m reelserve.kernels.ahead_of_time` compiles every variant that the op can launch for
every architecture and prints what each takes; it fails where one spills or does not fit. Needs
the package `triton`.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from reelserve.kernels.launch import (
    HEAD_DIMS,
    MULTIPROCESSORS,
    LaunchConfig,
    kernel_constants,
    launch_config,
)
from reelserve.kernels.temporal_attention_kernel import (
    temporal_attention_blocked_fwd_kernel,
    temporal_attention_fwd_kernel,
)
from reelserve.kernels.temporal_attention_pipelined_kernel import (
    temporal_attention_pipelined_fwd_kernel,
)

ARCHITECTURES = (80, 86, 89, 90, 100, 120)
MAX_SHARED_BYTES = {
    80: 163 * 1024,
    86: 99 * 1024,
    89: 99 * 1024,
    90: 227 * 1024,
    100: 227 * 1024,
    120: 99 * 1024,
}
"""Shared memory that one program may have: CUDA C++ Programming Guide, technical specifications."""
ELEMENT_BYTES = {"fp16": 2, "bf16": 2, "fp32": 4}
PADDED_FRAMES = (1, 2, 4, 8, 16, 32, 64, 128)
_SCRATCH_POINTERS = 2
"""Triton appends two pointers, to scratch memory and to a profiler's, to every kernel."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Variant:
    """Properties that decide the code of a kernel, besides the architecture.

    Args:
        num_frames: `F`.
        head_dim: `D`.
        dtype: Type of `qkv`: `fp16`, `bf16` or `fp32`.
        qk_norm: Whether queries and keys are normalised.
        rope: Whether they are rotated.
        num_heads: `N`.
        table_dtype: Type of the weights of the norm and of the rotary tables.
        scale: Factor of the logits; None for `D**-0.5`.
        eps: Added to the mean square.
    """

    num_frames: int
    head_dim: int
    dtype: str = "bf16"
    qk_norm: bool = True
    rope: bool = True
    num_heads: int = 16
    table_dtype: str = "fp32"
    scale: float | None = None
    eps: float = 1e-6

    def __str__(self) -> str:
        name = f"F{self.num_frames}-D{self.head_dim}-{self.dtype}"
        return name + "-norm" * self.qk_norm + "-rope" * self.rope


@dataclass(frozen=True)
class CompiledVariant:
    """A kernel that can be launched through the CUDA driver.

    Args:
        name: Name of its entry point.
        ptx: Its parameters are five input pointers, four 32-bit sizes and the output pointer.
        arch: Compute capability that it is for.
        config: How to launch it.
        shared_bytes: Dynamic shared memory of a program.
        registers: Registers of a thread.
        stack_bytes: Stack of a thread; above 0 where registers are spilled.
    """

    name: str
    ptx: str
    arch: int
    config: LaunchConfig
    shared_bytes: int
    registers: int
    stack_bytes: int


def kernel_of(config: LaunchConfig) -> Any:
    """The kernel that a launch needs."""
    if config.num_stages:
        return temporal_attention_pipelined_fwd_kernel
    if config.blocked:
        return temporal_attention_blocked_fwd_kernel
    return temporal_attention_fwd_kernel


def compile_variant(
    variant: Variant, arch: int, config: LaunchConfig | None = None
) -> CompiledVariant:
    """Compiles one variant.

    Args:
        variant: The variant.
        arch: Compute capability, such as 90.
        config: Launch to compile for; None: the launch table's.
    """
    element_bytes = ELEMENT_BYTES[variant.dtype]
    config = config or launch_config(
        arch, variant.num_frames, variant.num_heads, variant.head_dim, element_bytes
    )
    constants = kernel_constants(
        config,
        variant.num_frames,
        variant.head_dim,
        scale=variant.head_dim**-0.5 if variant.scale is None else variant.scale,
        eps=variant.eps,
        qk_norm=variant.qk_norm,
        rope=variant.rope,
        element_bytes=element_bytes,
    )
    kernel = kernel_of(config)
    types = {"qkv_ptr": f"*{variant.dtype}", "out_ptr": f"*{variant.dtype}"}
    types |= dict.fromkeys(
        ("norm_q_ptr", "norm_k_ptr", "cos_ptr", "sin_ptr"), "*" + variant.table_dtype
    )
    types |= dict.fromkeys(("num_frames", "num_locations", "num_heads", "num_sequences"), "i32")
    source = ASTSource(
        kernel,
        {name: types.get(name, "constexpr") for name in kernel.arg_names},
        {(kernel.arg_names.index(name),): value for name, value in constants.items()},
        {
            (position,): [["tt.divisibility", 16]]
            for position, name in enumerate(kernel.arg_names)
            if name.endswith("_ptr")
        },
    )
    compiled = triton.compile(
        source,
        target=GPUTarget("cuda", arch, 32),
        options={"num_warps": config.num_warps, "num_stages": 1},
    )
    assert compiled.metadata.global_scratch_size == 0
    registers, stack_bytes = _resources(compiled.asm["cubin"])
    return CompiledVariant(
        compiled.metadata.name,
        without_scratch_pointers(compiled.asm["ptx"]),
        arch,
        config,
        compiled.metadata.shared,
        registers,
        stack_bytes,
    )


@dataclass(frozen=True)
class PluginLaunch:
    """A launch as a TensorRT plugin describes it; sizes may be symbolic.

    Args:
        grid_x: Programs.
        block_x: Threads of a program.
        shared_bytes: Dynamic shared memory of a program.
        sizes: 32-bit arguments between the pointers of inputs and output.
    """

    grid_x: Any
    block_x: int
    shared_bytes: int
    sizes: tuple[Any, Any, Any, Any]


def plugin_launch(
    compiled: CompiledVariant, shape: tuple[Any, Any, Any, Any], cdiv: Callable[[Any, int], Any]
) -> PluginLaunch:
    """The launch of a compiled variant.

    Args:
        compiled: The kernel.
        shape: `B, F, S, N`, numbers or symbols.
        cdiv: Divides a number or symbol, rounding up.
    """
    b, f, s, n = shape
    sequences = b * s * n
    config = compiled.config
    if config.num_stages:
        grid = config.programs * MULTIPROCESSORS[compiled.arch]
    elif config.blocked:
        grid = sequences * cdiv(f, config.block_q)
    else:
        grid = cdiv(sequences, config.pack)
    threads = 32 * config.num_warps
    return PluginLaunch(grid, threads, compiled.shared_bytes, (f, s, n, sequences))


def without_scratch_pointers(ptx: str) -> str:
    """Takes the two unused pointers that Triton appends out of a kernel's parameters.

    Raises:
        ValueError: If the kernel uses them.
    """
    entry = re.search(r"\.visible \.entry \w+\((.*?)\)", ptx, re.DOTALL)
    assert entry is not None
    parameters = entry[1].split(",")
    kept, dropped = parameters[:-_SCRATCH_POINTERS], parameters[-_SCRATCH_POINTERS:]
    for parameter in dropped:
        name = parameter.split()[-1]
        if ptx.count(f"[{name}]"):
            raise ValueError(f"kernel uses scratch memory: {name}")
    return ptx[: entry.start(1)] + ",".join(kept) + "\n" + ptx[entry.end(1) :]


def _resources(cubin: bytes) -> tuple[int, int]:
    """Registers and bytes of stack of a thread."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        shown = subprocess.run(
            [triton.knobs.nvidia.cuobjdump.path, "-res-usage", file.name],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    registers, stack = re.search(r"REG:(\d+)", shown), re.search(r"STACK:(\d+)", shown)
    assert registers is not None and stack is not None
    return int(registers[1]), int(stack[1])


def budget_faults(compiled: CompiledVariant, arch: int) -> list[str]:
    """What keeps a variant from running well: spilled registers, too much shared memory."""
    found = []
    if compiled.stack_bytes:
        found.append(f"spills {compiled.stack_bytes} bytes a thread")
    if compiled.shared_bytes > MAX_SHARED_BYTES[arch]:
        found.append(f"{compiled.shared_bytes} bytes of shared memory of {MAX_SHARED_BYTES[arch]}")
    return found


def every_variant() -> Iterator[Variant]:
    """All that the op can launch."""
    for frames, head_dim, dtype, qk_norm, rope in itertools.product(
        PADDED_FRAMES, HEAD_DIMS, ELEMENT_BYTES, (True, False), (True, False)
    ):
        yield Variant(frames, head_dim, dtype, qk_norm, rope)


def describe(variant: Variant, arch: int, compiled: CompiledVariant) -> str:
    """One line: the variant, how it is launched, what it takes."""
    config = compiled.config
    return (
        f"sm_{arch} {variant}: pack {config.pack}, queries {config.block_q}, "
        f"warps {config.num_warps}, stages {config.num_stages}, registers {compiled.registers}, "
        f"shared memory {compiled.shared_bytes} bytes, "
        f"{budget_faults(compiled, arch) or 'no spills'}"
    )


def main() -> int:
    """Compiles what is asked for and prints it; 1 if anything is at fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arch", type=int, nargs="*", default=ARCHITECTURES)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    failed = 0

    def compile_and_log(task: tuple[int, Variant]) -> int:
        arch, variant = task
        compiled = compile_variant(variant, arch)
        _log.info("%s", describe(variant, arch, compiled))
        return len(budget_faults(compiled, arch))

    with ThreadPoolExecutor(arguments.jobs) as pool:
        failed = sum(pool.map(compile_and_log, itertools.product(arguments.arch, every_variant())))
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
