import pytest
import torch

from reelserve.runtimes.aoti_package import Package, read_weights, write_weights

CPU = torch.device("cpu")


def test_weights_keep_values_types_and_strides(tmp_path):
    whole = torch.randn(4, 6)
    weights = {
        "plain": torch.randn(3, 5).bfloat16(),
        "channels_last": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "part": whole[1:3],
        "same memory": whole,
        "broadcast": torch.tensor([1.0, 2.0]).expand(3, 2),
        "scalar": torch.tensor(7),
        "empty": torch.empty(0, 4),
    }
    write_weights(weights, tmp_path / "model.safetensors")
    found = read_weights(tmp_path / "model.safetensors", CPU)

    assert found.keys() == weights.keys()
    for name, weight in weights.items():
        assert found[name].dtype == weight.dtype
        assert found[name].stride() == weight.stride()
        assert torch.equal(found[name], weight)


def test_package_fails_when_it_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="export the checkpoint first"):
        Package(tmp_path / "model.pt2", CPU)
