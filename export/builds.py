"""Builds graphs, in this process or several at once in child processes."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

import torch

from reelserve.export.engines import Engine
from reelserve.export.families import CheckpointFamily
from reelserve.export.stages import ExportStage, Target
from reelserve.pipeline.checkpoint_files import one_line

MAX_END_S = 5.0
"""Seconds that a child process may take to end after its work."""
_PR_SET_PDEATHSIG = 1


class BuildError(RuntimeError):
    """A stage could not be built; the message names it and says why."""


@dataclass(frozen=True)
class Build:
    """Size and time of a built stage.

    Args:
        num_parameters: Weights of the stage.
        seconds: Time that loading and building took.
    """

    num_parameters: int
    seconds: float


@dataclass(frozen=True)
class Builder:
    """Loads and builds stages of a checkpoint for one engine. It can be pickled.

    Args:
        family: The checkpoint.
        engine: Builds the graphs.
        target: What the stages are loaded for.
        fp32_stages: Stages that are in fp32 whatever the target says.
    """

    family: CheckpointFamily
    engine: Engine
    target: Target
    fp32_stages: tuple[str, ...] = ()

    def target_of(self, stage: str) -> Target:
        """What a stage is loaded for."""
        return self.engine.target("fp32") if stage in self.fp32_stages else self.target

    def load(self, stage: str) -> ExportStage:
        """Loads a stage.

        Raises:
            BuildError: If a library fails.
            OSError: If a file is missing.
            ValueError: If a component does not fit its configuration.
        """
        try:
            return self.family.build(stage, self.target_of(stage))
        except (OSError, ValueError):
            raise
        except Exception as error:
            raise BuildError(f"stage {stage} cannot be loaded: {one_line(error)}") from error

    def build(self, stage: ExportStage, folder: Path) -> None:
        """Builds a stage's graph into a folder.

        Raises:
            BuildError: If the engine's libraries fail.
        """
        try:
            self.engine.build(stage, folder / self.engine.file_name)
        except (OSError, ValueError):
            # Said in words of this project or of the system.
            raise
        except Exception as error:
            raise BuildError(f"stage {stage.name}: {type(error).__name__}: {error}") from error


def build_together(
    builder: Builder, folders: Mapping[str, Path], jobs: int, done: Callable[[str], None]
) -> dict[str, Build]:
    """Builds stages in child processes.

    Args:
        builder: Loads and builds the stages.
        folders: Folder for the graph of each stage, by stage.
        jobs: Stages that are built at once.
        done: Called with the name of a stage that is built.

    Raises:
        BuildError: If one of them fails; the others are stopped.
    """
    waiting, builds = list(folders), {}
    running: dict[Connection, tuple[str, SpawnProcess]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                stage = waiting.pop(0)
                receiver, process = _start(builder, stage, folders[stage], jobs)
                running[receiver] = stage, process
            for receiver in wait(list(running)):
                assert isinstance(receiver, Connection)
                stage, process = running.pop(receiver)
                builds[stage] = _received(stage, receiver, process)
                done(stage)
    finally:
        for _, process in running.values():
            process.kill()
            process.join()
    return builds


def _start(
    builder: Builder, stage: str, folder: Path, jobs: int
) -> tuple[Connection, SpawnProcess]:
    # A forked child could not use a GPU that this process has used.
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(
        target=_build_in_child, args=(sender, builder, stage, folder, jobs, os.getpid())
    )
    process.start()
    # With the child's end alone left, its death is seen as the end of the pipe.
    sender.close()
    return receiver, process


def _received(stage: str, receiver: Connection, process: SpawnProcess) -> Build:
    try:
        answer = receiver.recv()
    except EOFError:
        process.join()
        raise BuildError(
            f"stage {stage}: the process that built it died with status {process.exitcode}; where "
            "memory ran out, export with fewer --jobs"
        ) from None
    process.join()
    if isinstance(answer, str):
        raise BuildError(answer)
    assert isinstance(answer, Build)
    return answer


def _build_in_child(
    sender: Connection, builder: Builder, name: str, folder: Path, jobs: int, parent: int
) -> None:
    """Sends a `Build`, or the text of an error."""
    _end_with(parent)
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // jobs))
    start = time.perf_counter()
    try:
        stage = builder.load(name)
        num_parameters = stage.num_parameters
        builder.build(stage, folder)
        sender.send(Build(num_parameters, round(time.perf_counter() - start, 2)))
    except BuildError as error:
        sender.send(str(error))
    except (OSError, ValueError) as error:
        sender.send(f"stage {name}: {error}")
    except Exception as error:
        sender.send(f"stage {name}: {type(error).__name__}: {error}")
    sender.close()
    # Compilers keep processes and threads of their own, for whose end the interpreter's waited a
    # minute.
    end = threading.Timer(MAX_END_S, os._exit, (0,))
    end.daemon = True
    end.start()


def _end_with(parent: int) -> None:
    """Lets the system end this process when the exporter dies, even where it was killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
