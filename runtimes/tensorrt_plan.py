"""TensorRT plans: the library that is installed here, what a plan takes, and running one.

Where full TensorRT is missing its edition for RTX GPUs serves: the same builder, parser and
runtime, without plugins and without sm_90. Neither is imported with this module, nor is torch,
which holds the tensors on the GPU.

Source: https://docs.nvidia.com/deeplearning/tensorrt, Python API.
"""

from __future__ import annotations

import importlib
import mmap
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from reelserve.runtimes.graph_spec import GraphInput, GraphOutput, GraphSpec
from reelserve.runtimes.tensorrt_editions import FULL, RTX, Edition, edition_of

if TYPE_CHECKING:
    import torch

MODULES = (FULL, RTX, "tensorrt_rtx_bindings")
"""Import names of the library; the first one installed wins. The last two are one library."""
DTYPES = {
    "BOOL": ("BOOL", "bool"),
    "UINT8": ("UINT8", "uint8"),
    "INT8": ("INT8", "int8"),
    "INT32": ("INT32", "int32"),
    "INT64": ("INT64", "int64"),
    "HALF": ("FP16", "float16"),
    "BF16": ("BF16", "bfloat16"),
    "FLOAT": ("FP32", "float32"),
}
"""Triton's and torch's data type for each of TensorRT's."""
ANY_ROWS = 2**31 - 1
"""Rows that are taken where they run one after another."""
_TORCH_DTYPES = dict(DTYPES.values())
_WIDE = {"INT32": "INT64"}
"""What the contract calls a plan's data type where its library has made it narrow. No stage of an
engine has INT32 of its own."""


class TensorRTError(ValueError):
    """TensorRT is not installed, or refuses something; the message quotes it."""


@dataclass(frozen=True)
class TensorRTLibrary:
    """An installed TensorRT.

    Args:
        trt: Its Python module.
    """

    trt: ModuleType

    @property
    def edition(self) -> Edition:
        """What it can, and how it is asked."""
        return edition_of(self.trt.__name__, self.version)

    @property
    def name(self) -> str:
        """`tensorrt` or `tensorrt_rtx`."""
        return self.edition.name

    @property
    def version(self) -> str:
        """Version that plans are bound to."""
        return str(self.trt.__version__)

    @property
    def capabilities(self) -> frozenset[str]:
        """GPUs that it builds for without having one, for example `SM89`; empty with full ones."""
        known = self.trt.ComputeCapability.__members__ if self.edition.any_gpu else ()
        return frozenset(name for name in known if name.startswith("SM"))

    @property
    def distribution(self) -> str:
        """Name of the installed package that the module comes from."""
        found = metadata.packages_distributions().get(self.trt.__name__)
        return found[0] if found else self.name

    @property
    def log(self) -> Any:
        """Logger that collects the library's messages instead of printing them.

        There is one for the process: the library keeps the first logger that it is given.
        """
        return _log(self.trt)

    def torch_dtype(self, dtype: Any) -> torch.dtype:
        """Torch's data type of one of TensorRT's."""
        import torch

        found: torch.dtype = getattr(torch, DTYPES[_known(dtype)][1])
        return found

    def triton_dtype(self, dtype: Any) -> str:
        """Triton's data type of a tensor that a plan says has one of TensorRT's.

        Raises:
            TensorRTError: If Triton has none.
        """
        name = _known(dtype)
        wide = _WIDE.get(name, name) if self.edition.narrow_integers else name
        return DTYPES[wide][0]

    def refusal(self, what: str) -> TensorRTError:
        """Makes an error of the messages collected so far, and clears them."""
        messages, self.log.messages = self.log.messages, []
        return TensorRTError(f"{what}: {'; '.join(messages) or 'it says nothing'}")


@cache
def _log(trt: ModuleType) -> Any:
    class Log(trt.ILogger):  # type: ignore[name-defined, misc]
        """Keeps errors, one line each."""

        def __init__(self) -> None:
            super().__init__()
            self.messages: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.Severity.ERROR:
                self.messages.append(" ".join(message.split()))

    return Log()


def find_library() -> TensorRTLibrary:
    """The installed library.

    Raises:
        TensorRTError: If there is none, or it does not load.
    """
    for name in MODULES:
        try:
            return TensorRTLibrary(importlib.import_module(name))
        except ModuleNotFoundError as error:
            if error.name != name:
                raise TensorRTError(f"{name} does not load: {error}") from None
        except (ImportError, OSError) as error:
            raise TensorRTError(f"{name} does not load: {error}") from None
    raise TensorRTError(
        "TensorRT is not installed: install `tensorrt`, or its edition for RTX GPUs with "
        "`pip install 'reelserve[tensorrt]'`"
    )


def _known(dtype: Any) -> str:
    if dtype.name not in DTYPES:
        raise TensorRTError(f"data type is {dtype.name}; it must be one of {sorted(DTYPES)}")
    return str(dtype.name)


@dataclass(frozen=True)
class _Recording:
    """A CUDA graph of one run, and the tensors that its kernels read and write.

    Args:
        context: Holds the memory between the kernels.
        graph: What is replayed.
        inputs: By name.
        outputs: By name; valid until the next replay.
    """

    context: Any
    graph: torch.cuda.CUDAGraph
    inputs: dict[str, torch.Tensor]
    outputs: dict[str, torch.Tensor]


class TensorRTPlan:
    """A plan on the GPU, ready to run.

    Args:
        library: TensorRT in the version that built the plan.
        path: File of the plan.
        device: A GPU.
        cuda_graph: Whether the first run of the usual shapes is recorded as a CUDA graph and
            replayed from then on; other shapes run as usual. Takes the plan's memory twice where
            it takes several shapes. A plan that cannot be recorded runs without.

    Raises:
        FileNotFoundError: If there is no plan.
        TensorRTError: If the library does not take it on this GPU.
    """

    def __init__(
        self,
        library: TensorRTLibrary,
        path: Path,
        device: torch.device,
        *,
        cuda_graph: bool = False,
    ) -> None:
        import torch

        self._library, self._device = library, device
        # Loaded to the device that is current.
        torch.cuda.set_device(device)
        self._engine = load_engine(library, path)
        if self._engine is None:
            raise library.refusal(f"{path}: {library.name} {library.version} does not take it")
        self.name = str(self._engine.name)
        spec = engine_spec(library, self._engine)
        self.spec = with_any_rows(spec) if library.edition.one_shape else spec
        self._fixed = all(one.low == one.high for one in spec.inputs)
        self._context = self._new_context()
        # On the default stream TensorRT waits for every other one.
        self._stream: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._cuda_graph = cuda_graph
        self._recording: _Recording | None = None

    @property
    def recorded(self) -> bool:
        """Whether runs of the usual shapes replay a CUDA graph."""
        return self._recording is not None

    def run(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Runs the plan once and waits for its end.

        Args:
            inputs: Tensors on the device, by name.

        Returns:
            Tensors on the device, by name; they are the caller's.

        Raises:
            ValueError: If an input is missing, or of a shape or type that the plan does not take.
            TensorRTError: If the run fails.
        """
        taken = self._taken(inputs)
        if not self._library.edition.one_shape:
            return self._run(taken)
        return self._run_rows(taken)

    def _run_rows(self, taken: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Runs a plan of one row for every row of a batch."""
        import torch

        rows = len(next(iter(taken.values())))
        runs = [
            self._run({name: tensor[row : row + 1] for name, tensor in taken.items()})
            for row in range(rows)
        ]
        if rows == 1:
            return runs[0]
        outputs = {name: torch.cat([run[name] for run in runs]) for name in runs[0]}
        torch.cuda.current_stream(self._device).synchronize()
        return outputs

    def _run(self, taken: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        usual = all(tuple(taken[spec.name].shape) == spec.usual for spec in self.spec.inputs)
        if self._cuda_graph and usual:
            if self._recording is None:
                self._record(taken)
            if self._recording is not None:
                return self._replay(self._recording, taken)
        outputs = self._bind(self._context, taken)
        self._execute(self._context)
        return outputs

    def _taken(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Inputs after their checks, in the types of the plan."""
        self.spec.check({name: tuple(tensor.shape) for name, tensor in inputs.items()})
        taken = {}
        for spec in self.spec.inputs:
            tensor = inputs[spec.name]
            if str(tensor.dtype) != f"torch.{_TORCH_DTYPES[spec.dtype]}":
                raise ValueError(f"{spec.name} is {tensor.dtype}; it must be {spec.dtype}")
            taken[spec.name] = tensor.to(self._dtype(spec.name)).contiguous()
        return taken

    def _dtype(self, name: str) -> torch.dtype:
        return self._library.torch_dtype(self._engine.get_tensor_dtype(name))

    def _new_context(self) -> Any:
        context = self._engine.create_execution_context()
        if context is None:
            raise self._library.refusal(f"{self.name}: no room to run it")
        return context

    def _bind(self, context: Any, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Gives a context its inputs and new tensors for its outputs."""
        import torch

        for name, tensor in inputs.items():
            context.set_input_shape(name, tuple(tensor.shape))
        outputs = {}
        for output in self.spec.outputs:
            shape = tuple(context.get_tensor_shape(output.name))
            outputs[output.name] = torch.empty(
                shape, dtype=self._dtype(output.name), device=self._device
            )
        for name, tensor in {**inputs, **outputs}.items():
            context.set_tensor_address(name, tensor.data_ptr())
        return outputs

    def _execute(self, context: Any) -> None:
        import torch

        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        if not context.execute_async_v3(self._stream.cuda_stream):
            raise self._library.refusal(f"{self.name} failed")
        self._stream.synchronize()

    def _record(self, inputs: Mapping[str, torch.Tensor]) -> None:
        """Records a run of the usual shapes; where that is not possible, it is not tried again.

        A recording is of no use once its context has had other shapes, so it gets one of its own
        where there are any.
        """
        import torch

        context = self._context if self._fixed else self._new_context()
        buffers = {name: tensor.clone() for name, tensor in inputs.items()}
        outputs = self._bind(context, buffers)
        # What is set up at the first run cannot be recorded.
        self._execute(context)
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads of this process may use the GPU meanwhile.
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                complete = context.execute_async_v3(self._stream.cuda_stream)
        except RuntimeError:
            complete = False
        if complete:
            self._recording = _Recording(context, graph, buffers, outputs)
            return
        self._cuda_graph, self._library.log.messages = False, []
        # The other one may be left in the middle of a recording.
        self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]

    def _replay(
        self, recording: _Recording, inputs: Mapping[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        import torch

        outputs = {name: torch.empty_like(value) for name, value in recording.outputs.items()}
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            for name, tensor in inputs.items():
                recording.inputs[name].copy_(tensor, non_blocking=True)
            recording.graph.replay()
            # The caller may keep them beyond the next replay.
            for name, tensor in outputs.items():
                tensor.copy_(recording.outputs[name], non_blocking=True)
        self._stream.synchronize()
        return outputs


def with_any_rows(spec: GraphSpec) -> GraphSpec:
    """What is taken where the rows of a batch run one after another."""
    inputs = (replace(one, high=(ANY_ROWS, *one.high[1:])) for one in spec.inputs)
    return replace(spec, inputs=tuple(inputs))


def load_engine(library: TensorRTLibrary, path: Path) -> Any:
    """The engine of a plan on the current GPU; None if the library refuses the plan.

    Raises:
        FileNotFoundError: If there is no plan.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; export the checkpoint first")
    library.log.messages = []
    runtime = library.trt.Runtime(library.log)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return runtime.deserialize_cuda_engine(content)


def engine_spec(library: TensorRTLibrary, engine: Any) -> GraphSpec:
    """Inputs, with the shapes of the first profile, and outputs of an engine."""
    inputs, outputs = [], []
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        dtype = library.triton_dtype(engine.get_tensor_dtype(name))
        if engine.get_tensor_mode(name) == library.trt.TensorIOMode.INPUT:
            low, usual, high = (tuple(s) for s in engine.get_tensor_profile_shape(name, 0))
            inputs.append(GraphInput(name, dtype, low, high, usual))
        else:
            outputs.append(GraphOutput(name, dtype, len(engine.get_tensor_shape(name))))
    return GraphSpec(tuple(inputs), tuple(outputs))
