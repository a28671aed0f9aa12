"""What the stand-ins for Triton's engine backends share; importable inside a Triton stage only."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import triton_python_backend_utils as pb_utils

from reelserve.server.batching import run_batched, run_each
from reelserve.server.parameters import Parameters
from reelserve.server.progress import ProgressFolder
from reelserve.server.triton_io import (
    clip_key,
    error_response,
    input_arrays,
    input_tensors,
    response,
)


@dataclass(frozen=True)
class Instance:
    """A model instance, as Triton describes it.

    Args:
        config: Model config, parsed from the JSON that Triton hands to a stage.
        folder: Folder of the model's version.
        kind: `CPU` or `GPU`.
        device_id: Number of its GPU.
    """

    config: Mapping[str, Any]
    folder: Path
    kind: str
    device_id: int

    @classmethod
    def from_args(cls, args: Mapping[str, str]) -> Instance:
        """Reads the arguments of `TritonPythonModel.initialize`."""
        return cls(
            config=json.loads(args["model_config"]),
            folder=Path(args["model_repository"]) / args["model_version"],
            kind=args["model_instance_kind"],
            device_id=int(args["model_instance_device_id"]),
        )

    def graph(self, default: str) -> Path:
        """The file that the config names, else the one that the official backend takes."""
        return self.folder / (self.config.get("default_model_filename") or default)


class Session(Protocol):
    """A graph that is loaded and ready."""

    def run(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Runs it once.

        Args:
            inputs: By name; NumPy arrays and, for a session that takes them, tensors on a GPU.

        Returns:
            Outputs by name; NumPy arrays, or tensors on a GPU on which no work is pending.
        """


class EngineBackend(ABC):
    """A Triton model whose inputs and outputs are those of its config and of its graph."""

    takes_device_tensors = False
    """Whether inputs that lie on a GPU are handed on as they are."""

    @abstractmethod
    def open_session(self, instance: Instance) -> Session:
        """Loads the graph and compares it with the config."""

    def initialize(self, args: dict[str, str]) -> None:
        """Called by Triton once, before it is ready."""
        instance = Instance.from_args(args)
        self._session = self.open_session(instance)
        self._batched = int(instance.config["max_batch_size"]) > 0
        self._rows_per_run = Parameters(instance.config).integer("rows_per_run", 0)
        self._name = str(instance.config["name"])
        self._progress = ProgressFolder.from_environment()

    def execute(
        self, requests: list[pb_utils.InferenceRequest]
    ) -> list[pb_utils.InferenceResponse]:
        """Computes a batch; every request gets its own response or error."""
        read = input_tensors if self.takes_device_tensors else input_arrays
        responses: list[Any] = [None] * len(requests)
        live, began = [], time.monotonic()
        for index, request in enumerate(requests):
            try:
                self._progress.check_not_cancelled(clip_key(request))
                live.append((index, read(request)))
            except Exception as error:
                responses[index] = error_response(error, request, self._name)
        inputs: list[Any] = [tensors for _, tensors in live]
        if self._batched:
            results = run_batched(inputs, self._session.run, self._rows_per_run)
        else:
            results = run_each(inputs, self._session.run)
        for (index, _), result in zip(live, results, strict=True):
            if isinstance(result, Exception):
                responses[index] = error_response(result, requests[index], self._name)
            else:
                responses[index] = response(result)
                self._progress.stage_ended(clip_key(requests[index]), self._name, began)
        return responses

    def finalize(self) -> None:
        """Called by Triton at the end: what the session holds is freed before its libraries go."""
        del self._session
