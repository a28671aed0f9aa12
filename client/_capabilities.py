"""What a server serves: its checkpoint, with the limits and defaults of a request."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tritonclient.grpc import service_pb2

from reelserve.client._messages import UnaryCall
from reelserve.pipeline.checkpoint import RequestLimits, limits_from_dict
from reelserve.pipeline.contract import CAPABILITIES


@dataclass(frozen=True)
class Capabilities:
    """What a server serves.

    Args:
        checkpoint: Name of the served checkpoint.
        engine: Engine of the exported stages.
        limits: Limits and defaults of a request, for example `limits.num_frames.high` and
            `limits.num_frames.default`.
        vocabulary: What the checkpoint is known to draw, by kind: `things`, `colours`, `sizes`,
            `motions`, `speeds`, `places`, `settings` and `weathers`, each under one English name.
            Other words for them may be understood, too. Empty where the checkpoint has no list.
    """

    checkpoint: str
    engine: str
    limits: RequestLimits
    vocabulary: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def capabilities_call(model: str) -> UnaryCall[Capabilities]:
    """Asks for the configuration of the model, to which the front end adds its capabilities."""
    return UnaryCall("ModelConfig", service_pb2.ModelConfigRequest(name=model), _read)


def _read(answer: service_pb2.ModelConfigResponse) -> Capabilities:
    parameters = answer.config.parameters
    if CAPABILITIES not in parameters:
        raise ValueError(
            "the server does not tell its capabilities: it is an older one, or a Triton without "
            "reelserve's front end, which `reelserve serve` starts"
        )
    try:
        raw: dict[str, Any] = json.loads(parameters[CAPABILITIES].string_value)
        limits = limits_from_dict(raw["limits"])
        # Servers before 0.2 do not tell it.
        told = raw.get("vocabulary", {})
        vocabulary = {kind: tuple(map(str, names)) for kind, names in told.items()}
        return Capabilities(raw["checkpoint"], raw["engine"], limits, vocabulary)
    except (AttributeError, KeyError, TypeError, ValueError) as problem:
        raise ValueError(f"the server's capabilities cannot be read: {problem!r}") from None
