"""A stand-in for full TensorRT, which cannot be installed here: it notes what it is asked for."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

import onnx

from reelserve.runtimes.graph_spec import GraphSpec
from reelserve.runtimes.tensorrt_editions import edition_of
from reelserve.runtimes.tensorrt_plan import DTYPES, TensorRTLibrary

PLUGIN_DOMAIN = "reelserve"
_NAMES = {onnx.TensorProto.FLOAT: "FLOAT", onnx.TensorProto.INT64: "INT64"}
_NAMES |= {onnx.TensorProto.UINT8: "UINT8"}
_OPERATIONS = {"Mul": ("ELEMENTWISE", "PROD"), "Pow": ("ELEMENTWISE", "POW")}
_OPERATIONS |= {"Exp": ("UNARY", "EXP"), "Sin": ("UNARY", "SIN"), "ReduceMean": ("REDUCE", "AVG")}


class _Names:
    """An enumeration whose members are whatever is asked for."""

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(name=name)


class Severity(enum.IntEnum):
    ERROR = 1
    WARNING = 2


class Logger:
    Severity = Severity


class Mode(enum.Enum):
    INPUT = 0
    OUTPUT = 1


class Layer:
    """A layer named like its node; element-wise ones have an operation."""

    def __init__(self, op_type: str, inputs: Sequence[str]) -> None:
        name, op = _OPERATIONS.get(op_type, (op_type, ""))
        self.type, self.op = SimpleNamespace(name=name), SimpleNamespace(name=op)
        self.inputs, self.precision, self.output_types = inputs, None, []

    def get_input(self, index: int) -> Any:
        return SimpleNamespace(name=self.inputs[index])

    def get_output(self, index: int) -> Any:
        return SimpleNamespace(dtype="FLOAT")

    def set_output_type(self, index: int, dtype: Any) -> None:
        self.output_types.append((index, dtype))


class Network:
    def __init__(self) -> None:
        self.name, self.layers, self.ends = "", [], ([], [])

    num_layers = property(lambda self: len(self.layers))
    num_inputs = property(lambda self: len(self.ends[0]))
    num_outputs = property(lambda self: len(self.ends[1]))

    def get_layer(self, index: int) -> Any:
        return self.layers[index]

    def get_input(self, index: int) -> Any:
        return self.ends[0][index]

    def get_output(self, index: int) -> Any:
        return self.ends[1][index]


class Engine:
    """The engine of a plan: what `spec` says, and tensors by address."""

    def __init__(self, name: str, spec: GraphSpec, output_shapes: dict[str, tuple]) -> None:
        self.name, self.spec, self.output_shapes = name, spec, output_shapes
        self.num_layers = 7
        self.narrow_integers = False
        self.tensors = [*spec.inputs, *spec.outputs]
        self.num_io_tensors = len(self.tensors)
        self.calls: list[tuple] = []
        self.succeeds = True

    def _tensor(self, name: str) -> Any:
        return next(tensor for tensor in self.tensors if tensor.name == name)

    def get_tensor_name(self, index: int) -> str:
        return self.tensors[index].name

    def get_tensor_mode(self, name: str) -> Mode:
        return Mode.INPUT if self._tensor(name) in self.spec.inputs else Mode.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        wanted = self._tensor(name).dtype
        if self.narrow_integers and wanted == "INT64":
            wanted = "INT32"
        return SimpleNamespace(name=next(key for key, (own, _) in DTYPES.items() if own == wanted))

    def get_tensor_profile_shape(self, name: str, profile: int) -> tuple:
        assert profile == 0
        tensor = self._tensor(name)
        return tensor.low, tensor.usual, tensor.high

    def get_tensor_shape(self, name: str) -> tuple:
        return (-1,) * self._tensor(name).rank

    def create_execution_context(self) -> Context:
        return Context(self)


class Context:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def set_input_shape(self, name: str, shape: tuple) -> None:
        self.engine.calls.append(("shape", name, shape))

    def get_tensor_shape(self, name: str) -> tuple:
        return self.engine.output_shapes[name]

    def set_tensor_address(self, name: str, address: int) -> None:
        self.engine.calls.append(("address", name, address))

    def execute_async_v3(self, stream: int) -> bool:
        self.engine.calls.append(("execute", stream))
        return self.engine.succeeds


FOREIGN_TIMES = b"timed on another GPU;"


class StubTensorRT(ModuleType):
    """Module `tensorrt`, as far as this project uses it.

    Args:
        version: That it says it has.
        has_plugin: Whether a node of our domain becomes a plugin layer.
        engine: Of every plan; None: of the network that was built last.
        loads: Whether it takes plans.
    """

    def __init__(
        self,
        version: str = "10.13.0",
        *,
        has_plugin: bool = True,
        engine: Engine | None = None,
        loads: bool = True,
    ) -> None:
        super().__init__("tensorrt")
        self.__version__ = version
        self.has_plugin, self.engine, self.loads = has_plugin, engine, loads
        self.caches: list[bytes] = []
        self.ILogger = Logger
        self.TensorIOMode, self.LayerType = Mode, _Names()
        self.edition = edition_of("tensorrt", version)
        # 8.6 lacks the first, and takes no network without the second.
        names = {"STRONGLY_TYPED": 3} if self.edition.strongly_typed else {"EXPLICIT_BATCH": 0}
        self.NetworkDefinitionCreationFlag = SimpleNamespace(**names)
        self.ProfilingVerbosity = _Names()
        flags = ("FP16", "TF32", "PREFER_PRECISION_CONSTRAINTS")
        self.BuilderFlag = SimpleNamespace(**{flag: flag for flag in flags})
        self.asked: list[tuple] = []
        self.float32, self.IElementWiseLayer, self.IUnaryLayer = "FLOAT", Layer, Layer
        self.network = Network()

    def Builder(self, log: Any) -> Any:  # noqa: N802
        return self

    def create_network(self, flags: int) -> Network:
        assert flags == (1 << 3 if self.edition.strongly_typed else 1 << 0)
        self.network = Network()
        return self.network

    def OnnxParser(self, network: Network, log: Any) -> Any:  # noqa: N802
        return SimpleNamespace(parse_from_file=self._parse)

    def _parse(self, path: str) -> bool:
        graph = onnx.load(path, load_external_data=False).graph
        for node in graph.node:
            own = node.domain == PLUGIN_DOMAIN and self.has_plugin
            self.network.layers.append(Layer("PLUGIN_V3" if own else node.op_type, node.input))
        for end, values in zip(self.network.ends, (graph.input, graph.output), strict=True):
            for value in values:
                kind = value.type.tensor_type
                name = _NAMES[kind.elem_type]
                narrow = self.edition.narrow_integers and name == "INT64"
                dtype = SimpleNamespace(name="INT32" if narrow else name)
                end.append(
                    SimpleNamespace(name=value.name, dtype=dtype, shape=list(kind.shape.dim))
                )
        return True

    def create_builder_config(self) -> Any:
        return SimpleNamespace(
            set_flag=lambda flag: self.asked.append(("set", flag)),
            clear_flag=lambda flag: self.asked.append(("clear", flag)),
            set_tactic_sources=lambda bits: self.asked.append(("tactics", bits)),
            add_optimization_profile=lambda profile: 0,
            create_timing_cache=self._cache,
            set_timing_cache=lambda cache, ignore_mismatch: cache.content != FOREIGN_TIMES,
        )

    def _cache(self, content: bytes) -> Any:
        self.caches.append(content)
        others: list[bytes] = []
        return SimpleNamespace(
            content=content,
            combine=lambda other, ignore_mismatch: others.append(other.content),
            serialize=lambda: content + b"timed;" + b"".join(others),
        )

    def create_optimization_profile(self) -> Any:
        self.shapes: dict[str, tuple] = {}
        return SimpleNamespace(
            set_shape=lambda name, low, usual, high: self.shapes.update({name: (low, usual, high)}),
            get_shape=lambda name: self.shapes[name],
        )

    def build_serialized_network(self, network: Network, config: Any) -> bytes:
        return f"plan of {network.name}".encode()

    def Runtime(self, log: Any) -> Any:  # noqa: N802
        return SimpleNamespace(deserialize_cuda_engine=self._load)

    def _load(self, content: Any) -> Engine | None:
        return (self.engine or self._built()) if self.loads else None

    def _built(self) -> Engine:
        from reelserve.export.engines.tensorrt.builder import network_spec

        profile = SimpleNamespace(get_shape=lambda name: self.shapes[name])
        spec = network_spec(TensorRTLibrary(self), self.network, profile)
        engine = Engine(self.network.name, spec, {})
        engine.narrow_integers = self.edition.narrow_integers
        return engine
