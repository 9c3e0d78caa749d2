from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshsim.network import dns

NAMES = {"edition.cnn.com": ["151.101.65.67", "151.101.1.67"], "six.example": ["2001:db8::1"]}


def resolve(name: str) -> list[str]:
    return NAMES.get(name.lower(), [])


def query(name: str, kind: int = 1, flags: int = 0x0100) -> bytes:
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    return struct.pack("!HHHHHH", 7, flags, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", kind, 1)


@pytest.mark.parametrize(
    ("asked", "code", "addresses"),
    [
        (query("edition.cnn.com"), 0, ["151.101.65.67", "151.101.1.67"]),
        (query("Edition.CNN.com"), 0, ["151.101.65.67", "151.101.1.67"]),
        (query("edition.cnn.com", kind=28), 0, []),
        (query("six.example"), 0, []),
        (query("nobody.example"), 3, []),
        (query("edition.cnn.com", flags=0x2900), 4, []),
        (query("edition.cnn.com")[:-6], 1, []),
    ],
)
def test_answers(asked, code, addresses):
    reply = dns.answer(asked, resolve)
    ident, flags, questions, answers, *_ = struct.unpack_from("!HHHHHH", reply)
    assert (ident, flags & 0xF, answers) == (7, code, len(addresses))
    assert flags & 0x8000
    assert [socket.inet_ntoa(reply[-16 * i - 4 : -16 * i or None]) for i in reversed(range(answers))] == addresses
    assert questions == (code in (0, 3))


@pytest.mark.parametrize("noise", [b"", b"\0" * 11, struct.pack("!HHHHHH", 7, 0x8180, 1, 0, 0, 0)])
def test_what_is_no_query_gets_no_answer(noise):
    assert dns.answer(noise, resolve) is None


@given(st.binary(max_size=200))
def test_any_bytes_are_survived(noise):
    dns.answer(noise, resolve)
