"""Addresses as a url says them."""

from __future__ import annotations

import pytest

from reelserve.client import AsyncClient, Client, InvalidArgumentError
from reelserve.client._addresses import MAX_ADDRESSES, read_addresses

SCHEME = "all must begin with the same scheme"


@pytest.mark.parametrize("url", ["a:8001,b:8002", ["a:8001", "b:8002"], ("a:8001", "b:8002")])
def test_several_addresses_are_a_string_with_commas_or_a_sequence(url):
    read = read_addresses(url)
    assert [one.target for one in read.listed] == ["a:8001", "b:8002"]
    assert (read.shown, read.secure, read.looked_up) == ("a:8001, b:8002", None, False)


def test_addresses_of_one_scheme_may_be_several():
    read = read_addresses("grpcs://a:1,grpcs://[2001:db8::1]:1")
    assert [one.target for one in read.listed] == ["a:1", "[2001:db8::1]:1"]
    assert read.secure


@pytest.mark.parametrize("url", ["dns:///pods:8001", "DNS:///pods:8001", ["dns:///pods:8001"]])
def test_a_name_to_look_up_begins_with_dns(url):
    read = read_addresses(url)
    assert ([one.target for one in read.listed], read.looked_up) == (["pods:8001"], True)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ([], "url is []; it must hold at least one address"),
        ("a:8001,", "url holds ''; it must be host:port"),
        (["a:8001", None], "url holds None; it must be host:port"),
        ("a:8001,b:65536", "url holds 'b:65536'; its port must be a number from 1 to 65535"),
        ("a:8001,b", "url holds 'b'; its port must be"),
        ("a:8001, b:8001", "url holds ' b:8001'; it must be host:port"),
        ("a:8001,A:8001", "url holds 'A:8001' twice; it must hold each address once"),
        ("grpc://a:1,grpcs://b:1", f"url holds 'grpcs://b:1' beside 'grpc://a:1'; {SCHEME}"),
        ("grpcs://a:1,b:1", f"url holds 'b:1' beside 'grpcs://a:1'; {SCHEME}"),
        ("a:1,ftp://b:1", "url has the scheme 'ftp'; it must be one of grpc://, "),
        ("a:1,dns:///b:1", "url holds 'dns:///b:1' beside other addresses; a name to look up is"),
        ("dns:b:1", "url is 'dns:b:1'; a name to look up is given alone, as dns:///name:port"),
        ("dns://8.8.8.8/b:1", "a name to look up is given alone"),
        ("dns:///b", "url is 'dns:///b'; its port must be a number from 1 to 65535"),
        ("dns:///:1", "url is 'dns:///:1'; a name to look up"),
        ([f"a:{n + 1}" for n in range(MAX_ADDRESSES + 1)], "1001 addresses; it must hold at most"),
    ],
)
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_client_raises_when_one_of_several_addresses_is_wrong(kind, url, words):
    with pytest.raises(InvalidArgumentError) as caught:
        kind(url)
    assert words in str(caught.value)


@pytest.mark.parametrize("url", ["localhost:1,10.0.0.1:1", "dns:///pods:1"])
def test_client_raises_when_a_key_would_go_to_one_of_them_in_plain_text(url):
    with pytest.raises(InvalidArgumentError, match="api_key would be sent in plain text"):
        Client(url, api_key="k")
