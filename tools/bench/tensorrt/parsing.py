"""Reads the graph of every stage with the parser of the TensorRT that is installed, building none.

The quick first look at a library: what it refuses, it refuses here, in its own words.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import onnx

from reelserve.export.engines import EngineError
from reelserve.export.engines.tensorrt.engine import TensorRTEngine
from reelserve.export.engines.tensorrt.graph import data_file
from reelserve.export.stages import Target
from reelserve.runtimes.tensorrt_plan import TensorRTLibrary, find_library
from reelserve.tools.bench.gpu.state import Result
from reelserve.tools.bench.tensorrt.models import Model, load_stage


def parse_all(models: Iterable[Model], work: Path, tell: Callable[[str], None]) -> list[Result]:
    """Reads the graph of every stage, whatever happens to the ones before it.

    Args:
        models: Their stages.
        work: Folder for checkpoints and graphs.
        tell: Says how a stage went, with all that the parser says.

    Returns:
        For each stage its model, name, seconds, layers and the error, which is None where all went
        well.
    """
    library, engine = find_library(), TensorRTEngine()
    tell(f"{library.name} {library.version}, operator set {library.edition.opset}")
    results = []
    for model in models:
        for stage in model.stages:
            started = time.monotonic()
            found: Result = {"model": model.name, "stage": stage, "layers": None, "error": None}
            try:
                graph = kept_graph(engine, model, stage, work)
                found |= parse_graph(library, engine, graph, f"{model.name}_{stage}")
            # Whatever a library raises: the other stages are to be looked at too.
            except Exception as error:
                found["error"] = f"{type(error).__name__}: {error}"
            found["seconds"] = round(time.monotonic() - started, 1)
            tell(_line(found))
            results.append(found)
    return results


def kept_graph(engine: TensorRTEngine, model: Model, stage: str, work: Path) -> Path:
    """Writes the graph of a stage, unless it is there.

    Args:
        engine: For whose library.
        model: Its model.
        stage: Its name.
        work: Folder; the graph goes to `graphs/`.
    """
    opset = find_library().edition.opset
    path = work / "graphs" / f"{model.name}_{stage}_{opset}.onnx"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_or_nothing(path):
            engine.write_graph(load_stage(model, stage, Target(), work), path)
    return path


@contextlib.contextmanager
def whole_or_nothing(graph: Path) -> Iterator[None]:
    """Removes a graph whose writing fails, so that no half of one is taken for it later."""
    try:
        yield
    except BaseException:
        graph.unlink(missing_ok=True)
        data_file(graph).unlink(missing_ok=True)
        raise


def parse_graph(library: TensorRTLibrary, engine: TensorRTEngine, graph: Path, name: str) -> Result:
    """Reads one graph.

    Raises:
        EngineError: If the parser refuses it; quotes all that it says.
    """
    builder = library.trt.Builder(library.log)
    try:
        network = engine.builder().parse(builder, graph, name)
    except EngineError:
        raise
    except ValueError as error:
        unsupported = unsupported_nodes(library, engine, graph)
        raise EngineError(
            f"{error}; not supported: {', '.join(unsupported) or 'not said'}"
        ) from None
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    return {
        "layers": int(network.num_layers),
        "inputs": {one.name: f"{one.dtype.name} {tuple(one.shape)}" for one in inputs},
    }


def unsupported_nodes(library: TensorRTLibrary, engine: TensorRTEngine, graph: Path) -> list[str]:
    """Nodes that lie in no part of a graph that the parser says it takes; empty if it says none."""
    trt = library.trt
    try:
        builder = trt.Builder(library.log)
        network = builder.create_network(engine.builder().network_flags())
        parser = trt.OnnxParser(network, library.log)
        _, parts = parser.supports_model(graph.read_bytes(), str(graph))
        nodes = onnx.load(graph, load_external_data=False).graph.node
        refused = [index for indices, whole in parts if not whole for index in indices]
        return sorted({f"{nodes[index].op_type} ({nodes[index].name})" for index in refused})
    # Only an answer's detail is missing then.
    except Exception:
        return []


def _line(found: Result) -> str:
    place = f"{found['model']} {found['stage']} ({found['seconds']} s)"
    if found["error"] is None:
        return f"{place}: {found['layers']} layers; {found['inputs']}"
    return f"{place}: REFUSED: {found['error']}"
