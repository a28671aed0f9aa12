from __future__ import annotations

import grpc
import pytest

from reelserve import client as public
from reelserve.client import (
    Client,
    InvalidArgumentError,
    MissingExtraError,
    NoServerError,
    NotReadyError,
    ReelserveError,
    UnavailableError,
    _exceptions,
)
from reelserve.client._exceptions import error_from_status

FAILURES = [status for status in grpc.StatusCode if status is not grpc.StatusCode.OK]


def leaves() -> set[type[ReelserveError]]:
    return set(ReelserveError.__subclasses__())


def test_every_status_is_mapped_to_one_error():
    assert set(_exceptions.ERROR_BY_STATUS) == set(FAILURES)
    without = {NoServerError, MissingExtraError}
    assert set(_exceptions.ERROR_BY_STATUS.values()) | without == leaves()


def test_every_error_is_drawn_public_and_has_advice():
    assert set(_exceptions.ADVICE) == leaves()
    for kind in leaves():
        assert kind.__name__ in (_exceptions.__doc__ or "")
        assert getattr(public, kind.__name__) is kind


@pytest.mark.parametrize("status", FAILURES, ids=lambda status: status.name)
def test_generate_raises_the_mapped_error_when_the_server_answers(fake_triton, status):
    fake_triton.status, fake_triton.details = status, "what the server says"
    with Client(fake_triton.url) as client, pytest.raises(ReelserveError) as caught:
        client.generate("a circle")
    assert type(caught.value) is _exceptions.ERROR_BY_STATUS[status]
    assert "what the server says" in str(caught.value)
    if not isinstance(caught.value, InvalidArgumentError):
        assert fake_triton.url in str(caught.value)
        assert str(caught.value).endswith(_exceptions.ADVICE[type(caught.value)])


@pytest.mark.parametrize(
    ("status", "details", "kind"),
    [
        ("UNAVAILABLE", "Exceeds maximum queue size", UnavailableError),
        ("UNAVAILABLE", "failed to connect to all addresses; Connection refused", NoServerError),
        ("UNAVAILABLE", "Socket closed", NoServerError),
        ("UNAVAILABLE", "Request for unknown model: 'm' has no available versions", NotReadyError),
        ("INVALID_ARGUMENT", "Request for unknown model: 'm' is not found", NotReadyError),
        ("INVALID_ARGUMENT", "PROMPT is ''; connection refused", InvalidArgumentError),
        ("INVALID_ARGUMENT", "PROMPT is 'stream removed'", InvalidArgumentError),
        ("UNAVAILABLE", "Received http2 header with status: 504", NoServerError),
        ("UNAVAILABLE", "Received http2 header with status: 429", UnavailableError),
        ("INTERNAL", "Received RST_STREAM with error code 2", NoServerError),
        ("UNKNOWN", "Stream removed (Data frame with END_STREAM flag received)", NoServerError),
        ("UNAVAILABLE", "Too many pings", NoServerError),
    ],
)
def test_error_from_status_reads_the_words_where_the_status_is_ambiguous(status, details, kind):
    error = _exceptions.error_from_status(grpc.StatusCode[status], details, "host:1")
    assert type(error) is kind


def test_a_request_that_is_too_large_is_the_callers_mistake():
    """gRPC gives it the status of a server that is full."""
    words = "SERVER: Received message larger than max (1048614 vs. 66336)"
    error = error_from_status(grpc.StatusCode.RESOURCE_EXHAUSTED, words, "localhost:8001")

    assert type(error) is InvalidArgumentError
