"""Several runs that keep their results in one file."""

from __future__ import annotations

from reelserve.tools.bench.gpu.cases import CASES
from reelserve.tools.bench.gpu.state import State

FIRST, SECOND = CASES[0], CASES[1]


def _state(folder):
    return State(folder / "work" / "state.json", {"engine": "pytorch"}, {"gpu": "one"})


def test_two_runs_at_once_lose_nothing_of_each_other(tmp_path):
    one, other = _state(tmp_path), _state(tmp_path)

    one.save(FIRST, "export", {"seconds": 1})
    other.save(SECOND, "export", {"seconds": 2})
    one.save(FIRST, "serve", {"seconds": 3})

    for state in (one, _state(tmp_path)):
        assert state.find(FIRST, "export") == {"seconds": 1}
        assert state.find(FIRST, "serve") == {"seconds": 3}
        assert state.find(SECOND, "export") == {"seconds": 2}


def test_what_one_run_forgets_another_does_not_bring_back(tmp_path):
    one, other = _state(tmp_path), _state(tmp_path)
    one.save(FIRST, "serve", {"seconds": 1})
    one.save(FIRST, "serve 4", {"seconds": 2})
    other.save(SECOND, "serve", {"seconds": 3})

    one.forget(FIRST, "serve")
    other.save(SECOND, "serve 4", {"seconds": 4})

    assert other.find(FIRST, "serve") is None
    assert other.find(FIRST, "serve 4") is None
    assert _state(tmp_path).find(SECOND, "serve") == {"seconds": 3}
