"""Builds a TensorRT plan from an ONNX graph, and looks at what came out.

Where networks are strongly typed, every layer has the type that the graph gives it; for TensorRT
8.6 the graph is in fp32 and the builder may choose fp16 for a layer. The edition for RTX GPUs
builds for other GPUs than the one at hand, or with none; full TensorRT for the GPU at hand.
"""

from __future__ import annotations

import contextlib
import mmap
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reelserve.pipeline.atomic_file import write_file
from reelserve.runtimes.graph_spec import GraphInput, GraphOutput, GraphSpec
from reelserve.runtimes.tensorrt_plan import (
    TensorRTError,
    TensorRTLibrary,
    engine_spec,
    load_engine,
)

_PLUGIN_LAYERS = ("PLUGIN", "PLUGIN_V2", "PLUGIN_V3")
_WIDE_LAYERS = ("NORMALIZATION", "REDUCE", "CUMULATIVE")
_WIDE_UNARY = ("EXP", "LOG", "RECIP", "SQRT")
_TARGETS = re.compile(rb"accelerators=\{([a-z0-9_ ]+)\}")
"""Target GPUs, as the compiler of the edition for RTX GPUs writes them into a plan."""


@dataclass(frozen=True)
class PlanReport:
    """What is known of a plan that was built.

    Args:
        name: Name of its network.
        spec: Its inputs, with the shapes of its profile, and outputs.
        num_layers: Layers of the plan, or of the network where the plan could not be loaded.
        num_plugins: Layers of the network that are plugins.
        architectures: GPUs that it says it is for, for example `sm80`.
        loaded: Whether this was read from the loaded plan. Without a GPU, `spec` and the layers are
            those of the network that the plan was built from.
    """

    name: str
    spec: GraphSpec
    num_layers: int
    num_plugins: int
    architectures: tuple[str, ...]
    loaded: bool


class PlanBuilder:
    """Builds plans with one library.

    Args:
        library: The library.
        capabilities: GPUs to build for, for example `SM89`; empty: the one at hand.
        cache_folder: Folder for the times of kernels, for the next build with the same library.
    """

    def __init__(
        self, library: TensorRTLibrary, capabilities: tuple[str, ...], cache_folder: Path
    ) -> None:
        self._library, self._trt = library, library.trt
        self._capabilities, self._cache_folder = capabilities, cache_folder

    @property
    def cache_file(self) -> Path:
        """File with times of this library's kernels, checked against the GPU when read."""
        return self._cache_folder / f"{self._library.name}_{self._library.version}.timing_cache"

    def build(
        self, graph: Path, spec: GraphSpec, name: str, path: Path, *, half: bool = False
    ) -> PlanReport:
        """Builds a plan.

        Args:
            graph: The ONNX file.
            spec: What the plan must take and give.
            name: Name of the network, kept in the plan.
            path: The plan to write.
            half: Whether layers of a weakly typed network may be in fp16.

        Raises:
            TensorRTError: If the library refuses the graph, or the plan is not what `spec` says.
        """
        self._library.log.messages = []
        builder = self._trt.Builder(self._library.log)
        network = self.parse(builder, graph, name)
        _allow_decomposition(self._trt, network)
        config = self._configured(builder, network, half=half)
        profile = self._add_profile(builder, config, spec)
        known = self._known_times()
        cache = self._timing_cache(config, known)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise self._library.refusal(f"{name}: {self._library.name} cannot build it")
        path.write_bytes(memoryview(plan))
        del plan
        if cache is not None:
            self._keep_times(config, cache, known)
        report = self._report(network, profile, path)
        _check_report(report, spec, name, self._capabilities)
        return report

    def parse(self, builder: Any, graph: Path, name: str) -> Any:
        """Reads a graph.

        Args:
            builder: The library's, kept by the caller as long as the network is used.
            graph: The ONNX file.
            name: Name of the network.

        Raises:
            TensorRTError: If the parser refuses it; quotes all that it says.
        """
        network = builder.create_network(self.network_flags())
        parser = self._trt.OnnxParser(network, self._library.log)
        if not parser.parse_from_file(str(graph)):
            faults = [str(parser.get_error(index)) for index in range(parser.num_errors)]
            self._library.log.messages = faults or self._library.log.messages
            raise self._library.refusal(f"{name}: the parser refuses the graph")
        # Not before: a parser may name the network after its graph.
        network.name = name
        return network

    def network_flags(self) -> int:
        """What a network of this library is created with."""
        flags, edition = self._trt.NetworkDefinitionCreationFlag, self._library.edition
        wanted = [flags.STRONGLY_TYPED] if edition.strongly_typed else []
        wanted += [flags.EXPLICIT_BATCH] if edition.explicit_batch else []
        return sum(1 << int(flag) for flag in wanted)

    def _configured(self, builder: Any, network: Any, *, half: bool) -> Any:
        """Settings of a build but for shapes and times."""
        edition, flags = self._library.edition, self._trt.BuilderFlag
        config = builder.create_builder_config()
        config.profiling_verbosity = self._trt.ProfilingVerbosity.LAYER_NAMES_ONLY
        # On by default, and fp32 is to be fp32.
        config.clear_flag(flags.TF32)
        self._set_capabilities(config)
        if edition.tactic_sources is not None:
            config.set_tactic_sources(edition.tactic_sources)
        if half and not edition.strongly_typed:
            config.set_flag(flags.FP16)
            config.set_flag(flags.PREFER_PRECISION_CONSTRAINTS)
            keep_wide(self._trt, network)
        return config

    def _set_capabilities(self, config: Any) -> None:
        if not self._capabilities:
            return
        config.num_compute_capabilities = len(self._capabilities)
        for index, capability in enumerate(self._capabilities):
            known = self._trt.ComputeCapability.__members__[capability]
            config.set_compute_capability(known, index)

    def _add_profile(self, builder: Any, config: Any, spec: GraphSpec) -> Any:
        profile = builder.create_optimization_profile()
        for given in spec.inputs:
            profile.set_shape(given.name, given.low, given.usual, given.high)
        if config.add_optimization_profile(profile) < 0:
            raise self._library.refusal("the profile of shapes is refused")
        return profile

    def _known_times(self) -> bytes:
        with contextlib.suppress(OSError):
            return self.cache_file.read_bytes()
        return b""

    def _timing_cache(self, config: Any, known: bytes) -> Any:
        """Times of earlier builds; none, if those are of another GPU or the file is damaged.

        Nothing is timed by the edition for RTX GPUs.
        """
        if self._library.edition.any_gpu:
            return None
        for times in (known, b""):
            cache = config.create_timing_cache(times)
            if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
                return cache
        return None

    def _keep_times(self, config: Any, cache: Any, known: bytes) -> None:
        """Writes the times beside those that other builds have written meanwhile."""
        latest = self._known_times()
        if latest != known:
            cache.combine(config.create_timing_cache(latest), ignore_mismatch=False)
        # The plan is built: where its times cannot be kept, the next build takes them again.
        with contextlib.suppress(OSError):
            self.cache_file.parent.mkdir(parents=True, exist_ok=True)
            write_file(self.cache_file, memoryview(cache.serialize()))

    def _report(self, network: Any, profile: Any, path: Path) -> PlanReport:
        if self._library.edition.any_gpu:
            self._check_file(path, network.name)
        plugins = [layer for layer in _layers(network) if layer.type.name in _PLUGIN_LAYERS]
        engine = load_engine(self._library, path)
        if engine is None and not self._library.edition.any_gpu:
            raise self._library.refusal(f"{network.name}: the plan that was built does not load")
        return PlanReport(
            name=str(network.name if engine is None else engine.name),
            spec=network_spec(self._library, network, profile)
            if engine is None
            else engine_spec(self._library, engine),
            num_layers=int(network.num_layers if engine is None else engine.num_layers),
            num_plugins=len(plugins),
            architectures=_architectures(path),
            loaded=engine is not None,
        )

    def _check_file(self, path: Path, name: str) -> None:
        """Raises `TensorRTError` unless the file is a plan, as far as is seen without a GPU."""
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as plan:
            if plan.find(name.encode()) < 0:
                raise TensorRTError(f"{path}: the plan does not hold its name {name}")
            runtime = self._trt.Runtime(self._library.log)
            header = plan[: runtime.engine_header_size]
        _, faults = runtime.get_engine_validity(header)
        malformed = self._trt.EngineInvalidityDiagnostics.MALFORMED_ENGINE
        if int(faults) & int(malformed):
            raise TensorRTError(f"{path}: {self._library.name} does not know it for a plan")


def _layers(network: Any) -> Iterator[Any]:
    return (network.get_layer(index) for index in range(network.num_layers))


def _allow_decomposition(trt: Any, network: Any) -> None:
    """Lets attention that has no fused kernel, as in FP32, be computed by several others."""
    boundary = getattr(trt.LayerType, "ATTENTION_INPUT", None)
    if boundary is None:
        return
    for layer in _layers(network):
        if layer.type == boundary:
            # The bindings give layers their base class.
            layer.__class__ = trt.IAttentionInputLayer
            layer.attention.decomposable = True


def keep_wide(trt: Any, network: Any) -> int:
    """Keeps what leaves the range of fp16 in fp32: norms, sums, squares, powers and exponentials.

    Softmax is left to the library, whose fused attention sums in fp32.

    Returns:
        Layers that are kept.
    """
    kept = 0
    for layer in _layers(network):
        if layer.get_output(0).dtype == trt.float32 and _grows(trt, layer):
            layer.precision = trt.float32
            layer.set_output_type(0, trt.float32)
            kept += 1
    return kept


def _grows(trt: Any, layer: Any) -> bool:
    """Whether a layer's values can be far larger, or far smaller, than what enters it."""
    kind = layer.type.name
    if kind == "ELEMENTWISE":
        # The bindings give layers their base class.
        layer.__class__ = trt.IElementWiseLayer
        first, second = layer.get_input(0), layer.get_input(1)
        square = layer.op.name == "PROD" and first.name == second.name
        return square or layer.op.name == "POW"
    if kind == "UNARY":
        layer.__class__ = trt.IUnaryLayer
        return layer.op.name in _WIDE_UNARY
    return kind in _WIDE_LAYERS


def network_spec(library: TensorRTLibrary, network: Any, profile: Any) -> GraphSpec:
    """Inputs, with the shapes of a profile, and outputs of a network."""
    inputs, outputs = [], []
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        low, usual, high = (tuple(shape) for shape in profile.get_shape(tensor.name))
        dtype = library.triton_dtype(tensor.dtype)
        inputs.append(GraphInput(tensor.name, dtype, low, high, usual))
    for index in range(network.num_outputs):
        tensor = network.get_output(index)
        dtype = library.triton_dtype(tensor.dtype)
        outputs.append(GraphOutput(tensor.name, dtype, len(tensor.shape)))
    return GraphSpec(tuple(inputs), tuple(outputs))


def _architectures(path: Path) -> tuple[str, ...]:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as plan:
        found = _TARGETS.search(plan)
        return tuple(found[1].decode().split()) if found else ()


def _check_report(
    report: PlanReport, spec: GraphSpec, name: str, capabilities: tuple[str, ...]
) -> None:
    """Raises `TensorRTError` unless a plan is as it was asked for."""
    faults = [] if report.name == name else [f"its name is {report.name!r} and must be {name!r}"]
    for side in ("inputs", "outputs"):
        found = {one.name: one for one in getattr(report.spec, side)}
        wanted = {one.name: one for one in getattr(spec, side)}
        for tensor in sorted(found.keys() | wanted.keys()):
            if found.get(tensor) != wanted.get(tensor):
                faults.append(f"{side} have {found.get(tensor)} and must have {wanted.get(tensor)}")
    asked = {capability.lower() for capability in capabilities}
    if asked and report.architectures and asked != set(report.architectures):
        faults.append(f"it is for {report.architectures} and must be for {sorted(asked)}")
    if faults:
        raise TensorRTError(f"{name}: {'; '.join(faults)}")
