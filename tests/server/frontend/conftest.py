from functools import partialmethod
from socketserver import BaseServer

import pytest
from prometheus_client.exposition import ThreadingWSGIServer


@pytest.fixture(autouse=True)
def quick_end(monkeypatch):
    """An HTTP port ends at its next look whether it should; half a second is too long here."""
    monkeypatch.setattr(
        ThreadingWSGIServer, "serve_forever", partialmethod(BaseServer.serve_forever, 0.01)
    )
