import pytest

from reelserve.server.frontend.otlp_endpoint import check_endpoint


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("http://localhost:4317", "http://localhost:4317"),
        ("https://collector.example", "https://collector.example:4317"),
        ("http://[::1]:5000/", "http://[::1]:5000"),
    ],
)
def test_check_endpoint_gives_an_address_with_a_port(given, meant):
    assert check_endpoint(given) == meant


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("localhost:4317", "must be http://HOST:4317 or https://HOST:4317"),
        ("grpc://localhost:4317", "must be http://HOST:4317"),
        ("", "must be http://HOST:4317"),
        ("http://", "must be http://HOST:4317"),
        ("http://host:99999", "is no URL"),
        ("http://host:4317/v1/traces", "OTLP over HTTP is not spoken"),
        ("http://host:4317?x=1", "OTLP over HTTP is not spoken"),
        ("http://me:secret@host:4317", "OTEL_EXPORTER_OTLP_HEADERS"),
        ("http://ho\x1bst", "must be http://HOST:4317"),
    ],
)
def test_check_endpoint_refuses_what_is_no_collector(given, words):
    with pytest.raises(ValueError, match=words) as caught:
        check_endpoint(given)
    assert "secret" not in str(caught.value) and "\x1b" not in str(caught.value)
