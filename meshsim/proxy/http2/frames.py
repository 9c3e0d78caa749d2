"""The form of HTTP/2 frames (RFC 9113 4 and 6)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
ACK = END_STREAM = 0x1
END_HEADERS, PADDED, WITH_PRIORITY = 0x4, 0x8, 0x20

HEAD = struct.Struct(">HBBBL")
"""A frame's head: two bytes of its length and one more, kind, flags, stream."""
HEAD_SIZE = 9
FRAME = 16_384  # bytes of payload that every peer takes (RFC 9113 4.2), and the most that we take
LONGEST_FRAME = 2**24 - 1
LARGEST_WINDOW = LAST_STREAM = 2**31 - 1
FIRST_WINDOW = 65_535  # of a stream and of a connection, before anybody says otherwise

_SETTING = struct.Struct(">HL")
_NUMBER = struct.Struct(">L")
_TWO = struct.Struct(">LL")


class Setting(IntEnum):
    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6
    ENABLE_CONNECT_PROTOCOL = 8


class Code(IntEnum):
    """Why a stream or a connection ends (RFC 9113 7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11


class Broken(Exception):
    """The peer does not speak HTTP/2 as it should; the connection ends with this code."""

    def __init__(self, code: Code):
        super().__init__(code.name)
        self.code = code


def head(size: int, kind: int, flags: int, stream: int) -> bytes:
    """What comes before `size` bytes of payload."""
    return HEAD.pack(size >> 8, size & 0xFF, kind, flags, stream)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return head(len(payload), kind, flags, stream) + payload


def settings(values: dict[Setting, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(name, value) for name, value in values.items()))


def settings_of(payload: bytes) -> Iterator[tuple[int, int]]:
    """Raises Broken."""
    if len(payload) % _SETTING.size:
        raise Broken(Code.FRAME_SIZE_ERROR)
    return _SETTING.iter_unpack(payload)


def window_update(stream: int, size: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, _NUMBER.pack(size))


def rst_stream(stream: int, code: int) -> bytes:
    return frame(RST_STREAM, 0, stream, _NUMBER.pack(code))


def goaway(last: int, code: int = Code.NO_ERROR) -> bytes:
    return frame(GOAWAY, 0, 0, _TWO.pack(last, code))


def number_of(payload: bytes) -> int:
    """The 32-bit number that is all of a payload. Raises Broken."""
    if len(payload) != _NUMBER.size:
        raise Broken(Code.FRAME_SIZE_ERROR)
    number: int = _NUMBER.unpack(payload)[0]
    return number


def last_stream_of(payload: bytes) -> int:
    """The last stream that a GOAWAY's sender will look after. Raises Broken."""
    if len(payload) < _TWO.size:
        raise Broken(Code.FRAME_SIZE_ERROR)
    last: int = _TWO.unpack_from(payload)[0]
    return last & LAST_STREAM


def bare(flags: int, payload: bytes) -> bytes:
    """A payload without its padding and its priority (RFC 9113 6.1, 6.2). Raises Broken."""
    start = padding = 0
    if flags & PADDED:
        if not payload:
            raise Broken(Code.FRAME_SIZE_ERROR)
        start, padding = 1, payload[0]
    if flags & WITH_PRIORITY:
        start += 5
    if start + padding > len(payload):
        raise Broken(Code.PROTOCOL_ERROR)
    return payload[start : len(payload) - padding]
