import pytest

from reelserve.server.frontend import probes


@pytest.fixture(autouse=True)
def quick_end(monkeypatch):
    """An HTTP port ends at its next look whether it should."""
    monkeypatch.setattr(probes, "LOOK_S", 0.01)
