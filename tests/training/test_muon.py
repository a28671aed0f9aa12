import pytest
import torch

from reelserve.training.muon import StackedMuon, orthogonalise


def test_stacked_muon_updates_like_torch_muon():
    torch.manual_seed(0)
    shapes = [(24, 16), (24, 16), (16, 16), (8, 24)]
    ours = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    theirs = [torch.nn.Parameter(parameter.detach().clone()) for parameter in ours]
    optimizer = StackedMuon(ours, lr=0.01, weight_decay=0.1)
    reference = torch.optim.Muon(theirs, lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        for mine, other in zip(ours, theirs, strict=True):
            mine.grad = torch.randn_like(mine)
            other.grad = mine.grad.clone()
        optimizer.step()
        reference.step()
    for mine, other in zip(ours, theirs, strict=True):
        # Both iterate in bf16; an update has entries near 0.01.
        torch.testing.assert_close(mine, other, rtol=0, atol=1.5e-3)


@pytest.mark.parametrize("shape", [(2, 8, 20), (3, 20, 8)])
def test_orthogonalise_brings_singular_values_near_one(shape):
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)).float())
    assert values.min() > 0.5
    assert values.max() < 1.4


def test_stacked_muon_raises_when_given_a_vector():
    with pytest.raises(ValueError, match="matrices only"):
        StackedMuon([torch.nn.Parameter(torch.zeros(3))], lr=0.1)
