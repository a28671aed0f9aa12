"""Triton's statistics over several Tritons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tritonclient.grpc import service_pb2

NEWEST = ("last_inference",)
"""Moments, of which the newest counts; other numbers add up."""


def added_up(replies: Sequence[bytes]) -> bytes:
    """One `ModelStatisticsResponse` for those of every Triton."""
    if len(replies) == 1:
        return replies[0]
    total = service_pb2.ModelStatisticsResponse()
    models: dict[tuple[str, str], Any] = {}
    for raw in replies:
        for model in service_pb2.ModelStatisticsResponse.FromString(raw).model_stats:
            known = models.get((model.name, model.version))
            if known is None:
                models[model.name, model.version] = known = total.model_stats.add()
                known.CopyFrom(model)
            else:
                _add(known, model)
    return bytes(total.SerializeToString())


def _add(total: Any, more: Any) -> None:
    """Adds the numbers of a message to those of another one, fields by their names."""
    for field, value in more.ListFields():
        name = field.name
        if field.message_type is not None and field.is_repeated:
            _add_rows(getattr(total, name), value)
        elif field.message_type is not None:
            _add(getattr(total, name), value)
        elif name in NEWEST:
            setattr(total, name, max(getattr(total, name), value))
        elif field.cpp_type != field.CPPTYPE_STRING and name != "batch_size":
            setattr(total, name, getattr(total, name) + value)


def _add_rows(total: Any, more: Any) -> None:
    """Batches are told apart by their size; what has none is not added up."""
    for row in more:
        if not hasattr(row, "batch_size"):
            continue
        known = next((one for one in total if one.batch_size == row.batch_size), None)
        if known is None:
            total.add().CopyFrom(row)
        else:
            _add(known, row)
