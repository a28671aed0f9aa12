"""Joins requests that can share a run, and splits the result again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]
RunBatch = Callable[[Arrays], Arrays]


def run_batched(
    requests: Sequence[Arrays], run: RunBatch, rows_per_run: int
) -> list[Arrays | Exception]:
    """Answers every request, computing those of equal shapes together.

    A group that fails is computed again one request at a time, so that a request which cannot
    be computed fails alone. A request with a tensor in a GPU's memory, which NumPy cannot join with
    others, is computed by itself.

    Args:
        requests: Inputs by name, each with a leading batch dimension.
        run: Computes one batch.
        rows_per_run: Rows that one call of `run` gets; 0 for the whole group.

    Returns:
        Outputs by name or the error, in the order of `requests`.
    """
    results: list[Arrays | Exception] = [RuntimeError("not computed")] * len(requests)
    joined = [index for index, inputs in enumerate(requests) if _on_host(inputs)]
    for index in set(range(len(requests))).difference(joined):
        results[index] = run_each([requests[index]], run)[0]
    for places in group_by_shape([requests[index] for index in joined]):
        group = [joined[place] for place in places]
        try:
            answers: Sequence[Arrays | Exception] = _run_group(
                [requests[index] for index in group], run, rows_per_run
            )
        except Exception as error:
            if len(group) == 1:
                answers = [error]
            else:
                answers = [run_batched([requests[index]], run, rows_per_run)[0] for index in group]
        for index, answer in zip(group, answers, strict=True):
            results[index] = answer
    return results


def run_each(requests: Sequence[Arrays], run: RunBatch) -> list[Arrays | Exception]:
    """Answers every request by itself."""
    results: list[Arrays | Exception] = []
    for inputs in requests:
        try:
            results.append(run(inputs))
        except Exception as error:
            results.append(error)
    return results


def _on_host(inputs: Arrays) -> bool:
    return all(isinstance(tensor, np.ndarray) for tensor in inputs.values())


def group_by_shape(requests: Sequence[Arrays]) -> list[list[int]]:
    """Indices of requests whose tensors differ in the batch dimension at most, in order."""
    groups: dict[tuple[tuple[str, tuple[int, ...]], ...], list[int]] = {}
    for index, arrays in enumerate(requests):
        key = tuple(sorted((name, array.shape[1:]) for name, array in arrays.items()))
        groups.setdefault(key, []).append(index)
    return list(groups.values())


def _run_group(group: Sequence[Arrays], run: RunBatch, rows_per_run: int) -> list[Arrays]:
    counts = [_rows(arrays) for arrays in group]
    joined = {
        name: np.concatenate([arrays[name] for arrays in group]) if len(group) > 1 else first
        for name, first in group[0].items()
    }
    outputs = run_in_slices(joined, run, rows_per_run or sum(counts))
    ends = np.cumsum(counts)
    return [
        {name: array[end - count : end] for name, array in outputs.items()}
        for count, end in zip(counts, ends, strict=True)
    ]


def run_in_slices(inputs: Arrays, run: RunBatch, rows: int) -> Arrays:
    """Computes a batch `rows` rows at a time."""
    total = _rows(inputs)
    if total <= rows:
        return run(inputs)
    parts = [
        run({name: array[start : start + rows] for name, array in inputs.items()})
        for start in range(0, total, rows)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _rows(arrays: Arrays) -> int:
    """The batch size of a request.

    Raises:
        ValueError: If its tensors disagree.
    """
    sizes = {name: array.shape[0] for name, array in arrays.items()}
    if len(set(sizes.values())) != 1:
        raise ValueError(f"batch sizes differ between tensors: {sizes}")
    return next(iter(sizes.values()))
