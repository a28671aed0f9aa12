import struct
from pathlib import Path

import numpy as np
import pytest

from reelserve.models.ncnn import FP16_TAG, NcnnWeights, read_param

GRAPH = """7767517
2 2
Input                    data                     0 1 data
Convolution              conv                     1 1 data out 0=8 1=3 4=1 5=1 6=216
"""


def test_read_param_gives_layers_with_their_wiring(tmp_path: Path) -> None:
    path = tmp_path / "net.param"
    path.write_text(GRAPH)
    source, convolution = read_param(path)
    assert (source.kind, source.outputs) == ("Input", ("data",))
    assert (convolution.inputs, convolution.outputs) == (("data",), ("out",))
    assert convolution.integer(6) == 216
    assert convolution.integer(18, default=1) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\n2 2\n", "not an ncnn text graph"),
        (GRAPH.replace("2 2", "3 2"), "header says 3 layers, found 2"),
    ],
)
def test_read_param_fails_when_file_is_damaged(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "net.param"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_param(path)


def test_weights_reads_fp16_aligned_then_fp32(tmp_path: Path) -> None:
    path = tmp_path / "net.bin"
    halves = np.array([1.5, -2.0, 0.25], "<f2").tobytes()
    floats = np.array([3.0, 4.0], "<f4").tobytes()
    path.write_bytes(struct.pack("<I", FP16_TAG) + halves + b"\0\0" + floats)
    weights = NcnnWeights(path)
    assert weights.read_tagged(3, "conv").tolist() == [1.5, -2.0, 0.25]
    assert weights.read_plain(2, "conv").tolist() == [3.0, 4.0]
    weights.close()


def test_weights_read_fails_when_file_ends_early(tmp_path: Path) -> None:
    path = tmp_path / "net.bin"
    path.write_bytes(b"\0" * 8)
    with pytest.raises(ValueError, match="layer conv needs bytes up to 12, the file has 8"):
        NcnnWeights(path).read_plain(3, "conv")


def test_weights_read_fails_when_storage_is_unknown(tmp_path: Path) -> None:
    path = tmp_path / "net.bin"
    path.write_bytes(struct.pack("<I", 7) + b"\0" * 8)
    with pytest.raises(ValueError, match="unknown storage tag 0x00000007"):
        NcnnWeights(path).read_tagged(2, "conv")


def test_weights_close_fails_when_bytes_are_left_over(tmp_path: Path) -> None:
    path = tmp_path / "net.bin"
    path.write_bytes(b"\0" * 8)
    weights = NcnnWeights(path)
    weights.read_plain(1, "conv")
    with pytest.raises(ValueError, match="4 bytes left over"):
        weights.close()
