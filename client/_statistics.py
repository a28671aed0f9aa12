"""Counters that Triton keeps for every model since it was loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tritonclient.grpc import service_pb2

from reelserve.client._messages import UnaryCall

NANOSECONDS_PER_S = 1e9


@dataclass(frozen=True)
class StageStatistics:
    """Counters of one model; subtract two readings to get what happened between them.

    Args:
        requests: Answered without error.
        failures: Answered with an error.
        executions: Runs of the model, each over a batch of one or more requests; a denoising
            step is one.
        compute_s: Seconds of those runs, moving tensors in and out included.
        queue_s: Seconds that requests waited for a run, summed over requests.
    """

    requests: int = 0
    failures: int = 0
    executions: int = 0
    compute_s: float = 0.0
    queue_s: float = 0.0

    def __add__(self, other: StageStatistics) -> StageStatistics:
        return StageStatistics(
            requests=self.requests + other.requests,
            failures=self.failures + other.failures,
            executions=self.executions + other.executions,
            compute_s=self.compute_s + other.compute_s,
            queue_s=self.queue_s + other.queue_s,
        )

    def __sub__(self, earlier: StageStatistics) -> StageStatistics:
        return StageStatistics(
            requests=self.requests - earlier.requests,
            failures=self.failures - earlier.failures,
            executions=self.executions - earlier.executions,
            compute_s=self.compute_s - earlier.compute_s,
            queue_s=self.queue_s - earlier.queue_s,
        )


def statistics_call() -> UnaryCall[dict[str, StageStatistics]]:
    """Asks for the counters of every model."""
    return UnaryCall("ModelStatistics", service_pb2.ModelStatisticsRequest(), _read)


def summed(servers: Sequence[dict[str, StageStatistics]]) -> dict[str, StageStatistics]:
    """Counters of every model over several servers."""
    total: dict[str, StageStatistics] = {}
    for stages in servers:
        for name, stage in stages.items():
            total[name] = total.get(name, StageStatistics()) + stage
    return total


def _read(response: service_pb2.ModelStatisticsResponse) -> dict[str, StageStatistics]:
    """Model name to its counters."""
    return {model.name: _stage(model) for model in response.model_stats}


def _stage(model: service_pb2.ModelStatistics) -> StageStatistics:
    # From batch_stats, because inference_stats counts a run once for every request in its batch.
    compute_ns = sum(
        batch.compute_input.ns + batch.compute_infer.ns + batch.compute_output.ns
        for batch in model.batch_stats
    )
    return StageStatistics(
        requests=model.inference_stats.success.count,
        failures=model.inference_stats.fail.count,
        executions=model.execution_count,
        compute_s=compute_ns / NANOSECONDS_PER_S,
        queue_s=model.inference_stats.queue.ns / NANOSECONDS_PER_S,
    )
