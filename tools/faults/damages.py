"""Damages a stage, a graph, the disk, or the patience of a client."""

from __future__ import annotations

import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from reelserve.client import Client, GenerateOptions
from reelserve.pipeline.checkpoint import CheckpointSpec
from reelserve.runtimes.export_lock import ArtefactFile, ExportLock
from reelserve.server.launch.running_server import Server
from reelserve.server.launch.stage_processes import stage_processes
from reelserve.server.launch.triton_process import ServerError
from reelserve.server.launch.tritons import ServeOptions
from reelserve.tools.faults.fault import Fault, Trial, all_among, counted, recovers
from reelserve.tools.faults.load import (
    CLIP,
    CLIP_OUTCOME,
    NOTHING,
    PROMPT,
    draw,
    outcomes,
    recovery,
    under_load,
)

FILE_LIMIT_BYTES = 1000
"""Less than any MP4."""
RAISING_STEPS = 21
"""Denoising steps of the one request that fails; no other has its timesteps."""
RAISING_CLIP: GenerateOptions = {**CLIP, "num_inference_steps": RAISING_STEPS}
TIMESTEP_WIDTH = 1e-2


def damages() -> list[Trial]:
    """Every damage."""
    return [
        Trial("raise", _raise_in_batch),
        Trial("full-disk", _fill_disk),
        Trial("corrupt-graph", _corrupt_graph),
        Trial("silent-client", _never_read),
    ]


def _raise_in_batch(repository: Path) -> Fault:
    with Server(ServeOptions(repository)) as server, Client(server.grpc_url) as client:
        reference = draw(client)
    spec = CheckpointSpec.load(repository / "prompt_processor" / "1")
    timesteps = spec.scheduler.schedule(RAISING_STEPS, tokens=1).timesteps
    with _copied(repository) as copy:
        timestep = float(timesteps[RAISING_STEPS // 2])
        raise_at(copy / "denoiser" / "1" / "model.onnx", timestep)
        relock(copy)
        with Server(ServeOptions(copy)) as server, Client(server.grpc_url) as client:
            with under_load(client) as futures, ThreadPoolExecutor(1) as pool:
                raising = pool.submit(draw, client, RAISING_CLIP)
                its, others = outcomes([raising], b""), outcomes(futures, reference)
            recovered_s = recovery(client, time.monotonic(), reference)
    return Fault(
        "denoiser raises in mid-batch for one request",
        "only that request fails, with InternalError; the others of its batch get their clips",
        f"that request: {counted(its)}; the others: {counted(others)}",
        recovered_s,
        its[NOTHING] + others[NOTHING],
        all_among(its, ("InternalError",))
        and all_among(others, (CLIP_OUTCOME,))
        and recovered_s is not None,
    )


def _fill_disk(repository: Path) -> Fault:
    with Server(ServeOptions(repository)) as server, Client(server.grpc_url) as client:
        reference = draw(client)
        pid = stage_processes(server.triton_pid)["video_encoder"]
        limits = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (FILE_LIMIT_BYTES, limits[1]))
        with under_load(client) as futures:
            seen = outcomes(futures, reference)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)
        recovered_s = recovery(client, time.monotonic(), reference)
    return Fault(
        "full disk for video_encoder (a limit on the size of its files stands in for it)",
        "its requests fail with InternalError; the next ones succeed when there is space again",
        counted(seen),
        recovered_s,
        seen[NOTHING],
        all_among(seen, ("InternalError",)) and recovers(recovered_s),
    )


def _corrupt_graph(repository: Path) -> Fault:
    with _copied(repository) as copy:
        (copy / "upsampler" / "1" / "model.onnx").write_bytes(b"no graph")
        relock(copy)
        try:
            with Server(ServeOptions(copy)):
                error = ""
        except ServerError as caught:
            error = str(caught)
    named = "upsampler" in error
    return Fault(
        "corrupt graph at load",
        "the start fails, naming the stage",
        f"the start fails, {'' if named else 'not '}naming the stage" if error else "it is ready",
        None,
        0,
        named,
    )


def _never_read(repository: Path) -> Fault:
    with Server(ServeOptions(repository)) as server, Client(server.grpc_url) as client:
        reference = draw(client)
        silent = client.stream(PROMPT, **CLIP)
        with under_load(client) as futures:
            seen = outcomes(futures, reference)
        silent.close()
        recovered_s = recovery(client, time.monotonic(), reference)
    return Fault(
        "a client that never reads its stream",
        "nobody else notices",
        counted(seen),
        recovered_s,
        seen[NOTHING],
        all_among(seen, (CLIP_OUTCOME,)) and recovers(recovered_s),
    )


@contextmanager
def _copied(repository: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="reelserve-faults-") as folder:
        yield Path(shutil.copytree(repository, Path(folder) / "model_repository"))


def relock(repository: Path) -> None:
    """Lets the launcher take the graphs as they are, so that a damage is met behind it."""
    lock = ExportLock.load(repository)
    assert lock is not None, "the server was started over the original"
    stages = {
        name: replace(
            stage,
            files=tuple(ArtefactFile.of(repository / name / "1" / f.name) for f in stage.files),
        )
        for name, stage in lock.stages.items()
    }
    replace(lock, stages=stages).save(repository)


def raise_at(graph: Path, timestep: float) -> None:
    """Makes a denoiser fail when a row of its batch is at a timestep: an index out of range.

    Args:
        graph: ONNX file, which is changed.
        timestep: In 0 to 1000.
    """
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(graph)
    constants = {
        "fault_timestep": np.array(timestep, np.float32),
        "fault_width": np.array(TIMESTEP_WIDTH, np.float32),
        "fault_none": np.zeros(1, np.float32),
    }
    model.graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in constants.items()
    )
    output = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = ["fault_of" if name == output else name for name in node.output]
    steps: tuple[tuple[str, list[str], str, dict[str, Any]], ...] = (
        ("Sub", ["TIMESTEP", "fault_timestep"], "fault_distance", {}),
        ("Abs", ["fault_distance"], "fault_size", {}),
        ("Less", ["fault_size", "fault_width"], "fault_is_it", {}),
        ("Cast", ["fault_is_it"], "fault_index", {"to": onnx.TensorProto.INT64}),
        # There is one element: index 1, of the row that is at the timestep, is out of range.
        ("Gather", ["fault_none", "fault_index"], "fault_zeros", {}),
        ("ReduceSum", ["fault_zeros"], "fault_zero", {"keepdims": 0}),
        ("Add", ["fault_of", "fault_zero"], output, {}),
    )
    model.graph.node.extend(
        helper.make_node(kind, inputs, [name], **attributes)
        for kind, inputs, name, attributes in steps
    )
    onnx.save(model, graph)
