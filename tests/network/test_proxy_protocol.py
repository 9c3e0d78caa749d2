"""PROXY headers: both versions, in any segmentation, and what is none."""

from __future__ import annotations

import pytest

from meshsim.network.base import Address
from meshsim.network.proxy_protocol import SIGNATURE, Header, Malformed, decode, encode, encode_v1

A, B = Address("10.1.2.3", 40000), Address("203.0.113.9", 443)
A6, B6 = Address("2001:db8::1", 40000), Address("2001:db8::2", 443)

HEADERS = [
    (encode(A, B), Header(28, A, B, 2)),
    (encode(A6, B6), Header(52, A6, B6, 2)),
    (encode(A, B6), Header(52, Address("::ffff:10.1.2.3", 40000), B6, 2)),
    (encode_v1(A, B), Header(43, A, B, 1)),
    (encode_v1(A6, B6), Header(46, A6, B6, 1)),
    (b"PROXY UNKNOWN\r\n", Header(15, None, None, 1)),
    (b"PROXY UNKNOWN 1.2.3.4 whatever\r\n", Header(32, None, None, 1)),
    (SIGNATURE + b"\x20\x00\x00\x00", Header(16, None, None, 2)),
    (SIGNATURE + b"\x21\x11\x00\x0f" + encode(A, B)[16:] + b"TLV", Header(31, A, B, 2)),
]


@pytest.mark.parametrize(("data", "header"), HEADERS)
def test_decode(data: bytes, header: Header) -> None:
    for size in range(header.size):
        assert decode(data[:size]) is None
    assert decode(data) == header
    assert decode(data + b"GET / HTTP/1.1\r\n") == header


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
        b"PROXY TCP4 1.2.3.4 x 1 2\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n",
        b"PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n",
        b"PROXY " + b"x" * 120,
        SIGNATURE + b"\x31\x11\x00\x0c" + bytes(12),
        SIGNATURE + b"\x21\x12\x00\x0c" + bytes(12),
        SIGNATURE + b"\x21\x11\x00\x04" + bytes(4),
    ],
)
def test_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        decode(data)
