"""What a compiled graph takes: written into it by the exporter, checked by the server.

Compiled code trusts its inputs: given shapes that it was not compiled for, it reads memory outside
of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

METADATA_KEY = "reelserve"
"""Key of the specification in a package's metadata."""


@dataclass(frozen=True)
class GraphInput:
    """One input of a graph.

    Args:
        name: Name in the contract.
        dtype: Triton data type without the `TYPE_` prefix.
        low: Smallest size of every dimension, the batch dimension first.
        high: Largest size of every dimension.
        usual: Sizes of the default request, which the graph was compiled with.
    """

    name: str
    dtype: str
    low: tuple[int, ...]
    high: tuple[int, ...]
    usual: tuple[int, ...]

    def check(self, shape: Sequence[int]) -> None:
        """Raises `ValueError`, naming dimension, size and limit, unless the graph takes a shape."""
        if len(shape) != len(self.low):
            raise ValueError(
                f"{self.name} has shape {list(shape)}; it must have {len(self.low)} dimensions"
            )
        for axis, (size, low, high) in enumerate(zip(shape, self.low, self.high, strict=True)):
            if not low <= size <= high:
                limit = f"{low}" if low == high else f"{low} to {high}"
                raise ValueError(
                    f"{self.name} has shape {list(shape)}; its dimension {axis} must be {limit}"
                )

    def check_sizes(self, shape: Sequence[int]) -> None:
        """Raises `ValueError` if a dimension behind the first is larger than any request makes it.

        For graphs that take other shapes too, which would cost memory and nothing worse. The
        smallest sizes are those of whole clips, and a preview decodes fewer frames.
        """
        for axis, (size, high) in enumerate(zip(shape, self.high, strict=False)):
            if axis > 0 and size > high:
                raise ValueError(
                    f"{self.name} has shape {list(shape)}; its dimension {axis} must be at most "
                    f"{high}"
                )


@dataclass(frozen=True)
class GraphOutput:
    """One output of a graph.

    Args:
        name: Name in the contract.
        dtype: Triton data type without the `TYPE_` prefix.
        rank: Number of dimensions, with the batch dimension.
    """

    name: str
    dtype: str
    rank: int


@dataclass(frozen=True)
class GraphSpec:
    """What a graph takes and gives.

    Args:
        inputs: Inputs in the graph's order.
        outputs: Outputs in the graph's order.
        weights_beside: Whether its weights are in a file beside it.
    """

    inputs: tuple[GraphInput, ...]
    outputs: tuple[GraphOutput, ...]
    weights_beside: bool = False

    def check(self, shapes: Mapping[str, Sequence[int]]) -> None:
        """Raises `ValueError` unless the graph takes inputs of these shapes."""
        for spec in self.inputs:
            if spec.name not in shapes:
                raise ValueError(f"input {spec.name} is missing")
            spec.check(shapes[spec.name])

    def check_sizes(self, shapes: Mapping[str, Sequence[int]]) -> None:
        """Raises `ValueError` if an input is larger than any request makes it."""
        for spec in self.inputs:
            spec.check_sizes(shapes.get(spec.name, ()))

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> GraphSpec:
        """Reads what `to_json` wrote."""
        raw = json.loads(text)
        inputs = (
            GraphInput(
                given["name"],
                given["dtype"],
                *(tuple(given[sizes]) for sizes in ("low", "high", "usual")),
            )
            for given in raw["inputs"]
        )
        outputs = tuple(GraphOutput(**given) for given in raw["outputs"])
        return cls(tuple(inputs), outputs, raw["weights_beside"])
