import os
import subprocess
import sys

import torch
from torch import nn

from reelserve.training.ranks import Ranks

# Each rank starts from other weights and other data; two ranks must end as one would that saw
# the mean of their losses from the first rank's weights.
PROGRAM = """
import sys, torch
from pathlib import Path
from torch import nn
from reelserve.training.ranks import Ranks
from reelserve.training.run import Run, Schedule

ranks = Ranks.join("cpu")
torch.manual_seed(ranks.rank)
module = nn.Linear(3, 2)
optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
folder = Path(sys.argv[1])
schedule = Schedule(steps=20, warmup_steps=1, decay_share=0.5, max_seconds=1e9)
run = Run(folder, module, [optimizer], schedule, ema_decay=0.9, seed=1, ranks=ranks)
for step in run.steps():
    data = torch.full((1, 3), float(step % 3 + ranks.rank))
    run.update(module(data).square().mean())
torch.save(module.state_dict(), folder / f"rank{ranks.rank}.pt")
ranks.leave()
"""


def alone() -> nn.Linear:
    torch.manual_seed(0)
    module = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for step in range(20):
        losses = [module(torch.full((1, 3), float(step % 3 + rank))) for rank in range(2)]
        (sum(loss.square().mean() for loss in losses) / 2).backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.param_groups[0]["lr"] = 0.1 * min(1.0, (1 - step / 20) / 0.5)
        optimizer.step()
        optimizer.zero_grad()
    return module


def test_two_ranks_train_as_one_with_both_batches(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "--no-python", sys.executable, "-c", PROGRAM]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, str(tmp_path)], check=True, env=environment, timeout=120)
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2))
    expected = alone().state_dict()
    for name, weight in first.items():
        assert torch.equal(weight, second[name])
        torch.testing.assert_close(weight, expected[name], rtol=1e-5, atol=1e-6)
    assert (tmp_path / "state.pt").is_file()


def test_alone_nothing_is_exchanged(monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    ranks = Ranks.join("cpu")
    assert (ranks.rank, ranks.count, ranks.is_first) == (0, 1, True)
    assert ranks.agree(2.5) == 2.5
    ranks.average([])
    ranks.leave()
