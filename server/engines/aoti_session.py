"""Runs an AOTInductor package that a Triton config describes; imports torch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reelserve.runtimes.aoti_package import Package
from reelserve.runtimes.graph_spec import GraphSpec
from reelserve.server.device_tensor import AnyTensors
from reelserve.server.engines.device_memory import device_errors_named
from reelserve.server.engines.graph_check import GraphRanges, require_match
from reelserve.server.engines.torch_tensors import OUTPUT_DEVICES, TORCH_TYPES, on_host, read_tensor
from reelserve.server.parameters import Parameters, available_cores

FULL_BELOW = 0.4
"""Share of free memory below which a run's memory is given back: other stages need room for their
peaks."""
RUNS_BEFORE_CAPTURE = 2
"""The second one finds every library set up, as a capture must."""


@dataclass(frozen=True)
class AotiSettings:
    """How one model instance runs its package, from the `parameters` of its config.

    Args:
        device: Where the instance computes.
        intra_op_threads: Threads inside an operator on a CPU, `intra_op_thread_count`.
        cuda_graphs: Whether the usual shapes are recorded as a CUDA graph, `cuda_graphs`. Its
            memory is kept for as long as the server runs.
        output_on_device: Whether outputs stay on the GPU, `output_device` is `gpu`.
        release_memory: Whether what a run took is given back to a GPU that gets full,
            `release_memory`.
        memory_limit_bytes: Bound on the GPU's memory that torch takes in this instance,
            `gpu_memory_limit_bytes`; 0 is all of it. Weights inside a package do not count.
    """

    device: torch.device
    intra_op_threads: int
    cuda_graphs: bool
    output_on_device: bool
    release_memory: bool
    memory_limit_bytes: int

    @classmethod
    def from_config(cls, config: Mapping[str, Any], kind: str, device_id: int) -> AotiSettings:
        """Reads the settings of one instance.

        Args:
            config: Triton's model config, parsed from the JSON that it hands to a stage.
            kind: `CPU` or `GPU`, of this instance.
            device_id: GPU of this instance.

        Raises:
            ValueError: If a setting has a value that this backend does not know.
        """
        if kind not in ("CPU", "GPU"):
            raise ValueError(f"instance kind is {kind}; it must be CPU or GPU")
        parameters = Parameters(config)
        on_gpu = kind == "GPU"
        return cls(
            device=torch.device("cuda", device_id) if on_gpu else torch.device("cpu"),
            intra_op_threads=parameters.integer("intra_op_thread_count", 0) or available_cores(),
            cuda_graphs=on_gpu and parameters.switch("cuda_graphs", default=False),
            output_on_device=on_gpu
            and parameters.choice("output_device", OUTPUT_DEVICES, "cpu") == "gpu",
            release_memory=on_gpu and parameters.switch("release_memory", default=False),
            memory_limit_bytes=parameters.integer("gpu_memory_limit_bytes", 0),
        )


class AotiSession:
    """One package, loaded, compared with its config, and warmed up.

    Args:
        graph: The `model.pt2`.
        config: Triton's model config, parsed from its JSON.
        settings: From the same config.

    Raises:
        FileNotFoundError: If there is no package.
        ValueError: If package and config disagree, or it is for another kind of device.
    """

    def __init__(self, graph: Path, config: Mapping[str, Any], settings: AotiSettings) -> None:
        self._settings = settings
        if settings.device.type == "cuda":
            torch.cuda.set_device(settings.device)
            _limit_memory(settings)
        else:
            torch.set_num_threads(settings.intra_op_threads)
        self.device = settings.device
        self._package = Package(graph, settings.device)
        self.spec = self._package.spec
        check_package(config, self.spec)
        self._recording: _Recording | None = None
        self._warm_up()

    def run(self, inputs: AnyTensors) -> dict[str, Any]:
        """Runs the package once.

        Args:
            inputs: By name, NumPy arrays or tensors on the GPU.

        Returns:
            By name; NumPy arrays or, where the settings say so, tensors on the GPU on which no
            work is pending.

        Raises:
            ValueError: If the package does not take these shapes.
            OutOfDeviceMemoryError: If the GPU's memory does not suffice.
        """
        with self._torch_state():
            tensors = [read_tensor(inputs, spec) for spec in self.spec.inputs]
            self.spec.check(
                {s.name: t.shape for s, t in zip(self.spec.inputs, tensors, strict=True)}
            )
            recorded = self._recording is not None and self._recording.fits(tensors)
            if self._recording is not None and recorded:
                outputs = self._recording.replay(tensors)
            else:
                outputs = self._package.run([self._on_device(tensor) for tensor in tensors])
            names = [spec.name for spec in self.spec.outputs]
            return dict(zip(names, self._handed_out(outputs, copy=recorded), strict=True))

    def _on_device(self, tensor: Tensor) -> Tensor:
        # The loader runs on this device; what a request brought may have been on another one.
        return tensor.to(self._settings.device).contiguous()

    def _handed_out(self, outputs: Sequence[Tensor], *, copy: bool) -> list[Any]:
        """Outputs as the caller may keep them.

        Args:
            outputs: What a run has returned.
            copy: Whether the next run writes over them.
        """
        settings = self._settings
        if settings.device.type == "cpu":
            return [output.numpy() for output in outputs]
        if settings.output_on_device:
            kept = [
                output.clone(memory_format=torch.contiguous_format) if copy else output.contiguous()
                for output in outputs
            ]
            torch.cuda.current_stream().synchronize()
            return kept
        return on_host(outputs)

    def _warm_up(self) -> None:
        """The usual shapes, so that the first request meets nothing that is done only once."""
        device = self._settings.device
        tensors = [
            torch.ones(spec.usual, dtype=TORCH_TYPES[spec.dtype], device=device)
            for spec in self.spec.inputs
        ]
        with self._torch_state():
            if self._settings.cuda_graphs:
                self._recording = _Recording(self._package, tensors)
            else:
                self._package.run(tensors)
            if device.type == "cuda":
                torch.cuda.synchronize()

    @contextlib.contextmanager
    def _torch_state(self) -> Iterator[None]:
        """No gradients; an exhausted GPU is named, and memory given back where that is wanted."""
        try:
            with torch.inference_mode(), device_errors_named(self._settings.device):
                yield
        finally:
            if self._settings.release_memory and self._gets_full():
                torch.cuda.empty_cache()

    def _gets_full(self) -> bool:
        # Giving back what the next run takes again only costs time where there is room for both.
        free, total = torch.cuda.mem_get_info(self._settings.device)
        return free < FULL_BELOW * total


class _Recording:
    """A CUDA graph of a package at the shapes of some inputs, with buffers of its own.

    Args:
        package: On a GPU.
        inputs: They become the buffers that a replay reads.
    """

    def __init__(self, package: Package, inputs: list[Tensor]) -> None:
        self._inputs = inputs
        # Libraries that are set up lazily must be so before a capture, and on its stream.
        stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(RUNS_BEFORE_CAPTURE):
                package.run(inputs)
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        # Triton's own threads of this process may use the GPU meanwhile.
        with torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"):
            self._outputs = package.run(inputs)

    def fits(self, tensors: Sequence[Tensor]) -> bool:
        """Whether these have the recorded shapes."""
        return all(a.shape == b.shape for a, b in zip(self._inputs, tensors, strict=True))

    def replay(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Runs on these inputs; the outputs are valid until the next replay."""
        for buffer, tensor in zip(self._inputs, tensors, strict=True):
            buffer.copy_(tensor, non_blocking=True)
        self._graph.replay()
        return self._outputs


def check_package(config: Mapping[str, Any], spec: GraphSpec) -> None:
    """Compares a package with the config that serves it.

    Raises:
        ValueError: If the config batches, or they disagree; it names all of the differences.
    """
    rows = int(config.get("max_batch_size", 0))
    if rows > 0:
        raise ValueError(
            f"max_batch_size is {rows}; a package has a batch of 1 in its dimensions: it must be 0"
        )
    require_match(config, GraphRanges.from_spec(spec), "model.pt2")


def _limit_memory(settings: AotiSettings) -> None:
    if settings.memory_limit_bytes:
        total = torch.cuda.get_device_properties(settings.device).total_memory
        fraction = min(1.0, settings.memory_limit_bytes / total)
        torch.cuda.set_per_process_memory_fraction(fraction, settings.device)
