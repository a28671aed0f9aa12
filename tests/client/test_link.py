import threading

import grpc
import pytest
from tritonclient.grpc import service_pb2

from reelserve.client import Client, _link
from reelserve.client._addresses import Address
from reelserve.client._link import Link


def link_to(fake_triton) -> Link:
    channel = grpc.insecure_channel(fake_triton.url)
    return Link(Address(fake_triton.url, fake_triton.url), channel)


def test_close_closes_the_channel(fake_triton):
    link = link_to(fake_triton)
    grpc.channel_ready_future(link.channel).result(timeout=10)
    link.close()
    with pytest.raises(ValueError, match=r"[Cc]losed"):
        link.stream(service_pb2.ModelInferRequest())


def test_close_does_not_wait_for_a_channel_that_never_closes(monkeypatch, fake_triton):
    monkeypatch.setattr(_link, "CLOSE_S", 0.05)
    never = threading.Event()
    client = Client(fake_triton.url)
    assert client.is_ready()
    links = []
    close = Link.close

    def stuck(self: Link) -> None:
        links.append(self)
        monkeypatch.setattr(self.channel, "close", never.wait)
        close(self)

    monkeypatch.setattr(Link, "close", stuck)
    client.close()
    assert links
    never.set()
