"""Reads ncnn model files: the graph from `.param` (text), the weights from `.bin`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reelserve.pipeline.checkpoint_files import one_line, read_text_file, require_content

PARAM_MAGIC = "7767517"
FP16_TAG = 0x01306B47
"""Marks a weight blob as fp16; a tag of 0 means fp32."""


@dataclass(frozen=True)
class NcnnLayer:
    """One layer of a `.param` file.

    Args:
        kind: Layer type, for example `Convolution`.
        name: Unique name, used in error messages.
        inputs: Names of the blobs read.
        outputs: Names of the blobs written.
        params: Layer parameters by ncnn's numeric id, unparsed.
    """

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    params: dict[int, str]

    def integer(self, key: int, default: int = 0) -> int:
        """Parameter `key` as an integer."""
        return int(self.params.get(key, default))

    def real(self, key: int, default: float = 0.0) -> float:
        """Parameter `key` as a real number."""
        return float(self.params.get(key, default))


def read_param(path: Path) -> list[NcnnLayer]:
    """Parses a text `.param` file.

    Args:
        path: The file.

    Returns:
        Layers in file order, which is execution order.

    Raises:
        ValueError: If it is no ncnn text graph or its layer count does not match its header.
    """
    lines = read_text_file(path).decode(errors="replace").split("\n")
    if lines[0].strip() != PARAM_MAGIC:
        raise ValueError(f"{path}: not an ncnn text graph (first line is not {PARAM_MAGIC})")
    try:
        num_layers = int(lines[1].split()[0])
        layers = [_parse_layer(line) for line in lines[2:] if line.strip()]
    except (ValueError, IndexError) as error:
        raise ValueError(f"{path}: not an ncnn text graph: {one_line(error)}") from None
    if len(layers) != num_layers:
        raise ValueError(f"{path}: header says {num_layers} layers, found {len(layers)}")
    return layers


def _parse_layer(line: str) -> NcnnLayer:
    kind, name, num_inputs, num_outputs, *rest = line.split()
    first_output = int(num_inputs)
    first_param = first_output + int(num_outputs)
    pairs = (item.split("=", 1) for item in rest[first_param:])
    return NcnnLayer(
        kind=kind,
        name=name,
        inputs=tuple(rest[:first_output]),
        outputs=tuple(rest[first_output:first_param]),
        params={int(key): value for key, value in pairs},
    )


class NcnnWeights:
    """Sequential reader of a `.bin` file; blobs lie in layer order without names.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        require_content(path)
        self._path = path
        self._data = path.read_bytes()
        self._offset = 0

    def read_tagged(self, count: int, layer: str) -> NDArray[np.float32]:
        """Reads a blob that carries a storage tag, as convolution weights do.

        Args:
            count: Number of values.
            layer: Name for error messages.

        Returns:
            `[count]`, widened to fp32.

        Raises:
            ValueError: If the file ends early or the storage is neither fp16 nor fp32.
        """
        tag = int(self._take(np.dtype("<u4"), 1, layer)[0])
        if tag == FP16_TAG:
            values = self._take(np.dtype("<f2"), count, layer)
            self._offset += -self._offset % 4  # blobs are 4-byte aligned
            return values.astype(np.float32)
        if tag == 0:
            return self._take(np.dtype("<f4"), count, layer).astype(np.float32)
        raise ValueError(f"{self._path}: layer {layer} has unknown storage tag {tag:#010x}")

    def read_plain(self, count: int, layer: str) -> NDArray[np.float32]:
        """Reads an untagged fp32 blob, as biases and PReLU slopes are.

        Raises:
            ValueError: If the file ends early.
        """
        return self._take(np.dtype("<f4"), count, layer).astype(np.float32)

    def close(self) -> None:
        """Checks that every weight was consumed.

        Raises:
            ValueError: If bytes are left over.
        """
        left = len(self._data) - self._offset
        if left != 0:
            raise ValueError(f"{self._path}: {left} bytes left over after the last layer")

    def _take(self, dtype: np.dtype, count: int, layer: str) -> NDArray:
        end = self._offset + count * dtype.itemsize
        if end > len(self._data):
            raise ValueError(
                f"{self._path}: layer {layer} needs bytes up to {end}, "
                f"the file has {len(self._data)}"
            )
        values = np.frombuffer(self._data, dtype, count, self._offset)
        self._offset = end
        return values
