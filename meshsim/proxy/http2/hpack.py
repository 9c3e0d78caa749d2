"""HPACK: header fields as bytes (RFC 7541).

How this works: each direction of a connection has a table of fields that were sent before. The decoder reads one representation after
another. The encoder writes a field that its table holds as an index, remembers one that is likely to come again, and spells out the rest.
It spells plainly: Huffman codes would save a quarter of the bytes for many times the work.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable
from functools import lru_cache

from hpack.exceptions import HPACKDecodingError
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

from meshsim.routing.http2_fields import CHANGING, SENSITIVE
from meshsim.routing.message import Headers

TABLE = 4096  # bytes of a dynamic table, ours and the most of a peer's that we use
_OVERHEAD = 32  # bytes that a field counts beside its text (RFC 7541 4.1)
_REMEMBERED = 512  # bytes; a longer field would push too many others out of the table

Field = tuple[str, str]

_STATIC: tuple[Field, ...] = (
    ("", ""),  # no field has index 0
    *((name.decode("latin-1"), value.decode("latin-1")) for name, value in HeaderTable.STATIC_TABLE),
)
_FIRST = len(_STATIC)  # the index of the newest field of a dynamic table
_WHOLE = {field: index for index, field in enumerate(_STATIC) if index}
_NAMES = {field[0]: index for index, field in reversed(list(enumerate(_STATIC))) if index}

_NAME = re.compile(r":?[!#$%&'*+\-.^_`|~0-9a-z]+")
_BAD = re.compile(r"[\0\r\n]")


class HpackError(Exception):
    """A block that is no HPACK, or holds what no header may hold; the connection cannot go on (RFC 7541 2.2)."""


class Decoder:
    """most: bytes that one block may unpack to, counted as RFC 7541 4.1 does."""

    def __init__(self, most: int):
        self._most = most
        self._table: deque[Field] = deque()  # the newest first
        self._size, self._limit = 0, TABLE

    def decode(self, block: bytes) -> Headers:
        """The fields of a block. Raises HpackError."""
        try:
            return self._fields(block)
        except (IndexError, HPACKDecodingError) as error:
            raise HpackError(str(error)) from None

    def _fields(self, block: bytes) -> Headers:
        fields: Headers = []
        table = self._table
        at, end, total = 0, len(block), 0
        while at < end:
            first = block[at]
            at += 1
            if first & 0x80:
                index = first & 0x7F
                if index == 0x7F:
                    index, at = _integer(block, at, 0x7F)
                if not index:
                    raise HpackError("index 0")
                field = _STATIC[index] if index < _FIRST else table[index - _FIRST]
            elif first & 0x40:
                field, at = self._literal(block, at, first & 0x3F, 0x3F)
                self._remember(field)
            elif first & 0x20:
                at = self._resize(block, at, first & 0x1F, early=not fields)
                continue
            else:
                field, at = self._literal(block, at, first & 0x0F, 0x0F)
            total += len(field[0]) + len(field[1]) + _OVERHEAD
            if total > self._most:
                raise HpackError("too many headers")
            fields.append(field)
        return fields

    def _literal(self, block: bytes, at: int, index: int, mask: int) -> tuple[Field, int]:
        if index == mask:
            index, at = _integer(block, at, mask)
        if index:
            name = (_STATIC[index] if index < _FIRST else self._table[index - _FIRST])[0]
        else:
            text, at = _string(block, at)
            name = _name(text)
        value, at = _string(block, at)
        if _BAD.search(value):
            raise HpackError("a control character in a value")
        return (name, value), at

    def _resize(self, block: bytes, at: int, size: int, *, early: bool) -> int:
        """A new size of the table, which only a block's beginning may say (RFC 7541 4.2)."""
        if size == 0x1F:
            size, at = _integer(block, at, 0x1F)
        if not early or size > TABLE:
            raise HpackError("a table of another size")
        self._limit = size
        self._shrink()
        return at

    def _remember(self, field: Field) -> None:
        self._table.appendleft(field)
        self._size += len(field[0]) + len(field[1]) + _OVERHEAD
        self._shrink()

    def _shrink(self) -> None:
        while self._size > self._limit:
            name, value = self._table.pop()
            self._size -= len(name) + len(value) + _OVERHEAD


class Encoder:
    """Packs fields for one direction of a connection."""

    def __init__(self) -> None:
        self._order: deque[Field] = deque()  # the newest first
        self._numbers: dict[Field, int] = {}
        self._count = 0  # fields ever remembered
        self._size, self._limit = 0, TABLE
        self._announce = False

    def resize(self, most: int) -> None:
        """The peer keeps a table of so many bytes."""
        limit = min(most, TABLE)
        if limit != self._limit:
            self._limit, self._announce = limit, True
            self._shrink()

    def encode(self, fields: Iterable[Field]) -> bytes:
        out = bytearray()
        if self._announce:
            self._announce = False
            out += _packed(0x20, 0x1F, self._limit)
        for field in fields:
            index = _WHOLE.get(field)
            if index is None:
                number = self._numbers.get(field)
                if number is None:
                    self._spell(out, *field)
                    continue
                index = _FIRST - 1 + self._count - number
            if index < 0x7F:
                out.append(0x80 | index)
            else:
                out += _packed(0x80, 0x7F, index)
        return bytes(out)

    def _spell(self, out: bytearray, name: str, value: str) -> None:
        size = len(name) + len(value) + _OVERHEAD
        if name in SENSITIVE:
            out += _start(name, 0x10, 0x0F)
        elif name in CHANGING or size > min(_REMEMBERED, self._limit):
            out += _start(name, 0x00, 0x0F)
        else:
            out += _start(name, 0x40, 0x3F)
            self._order.appendleft((name, value))
            self._numbers[name, value] = self._count
            self._count += 1
            self._size += size
            self._shrink()
        out += _plain(value)

    def _shrink(self) -> None:
        while self._size > self._limit:
            name, value = self._order.pop()
            del self._numbers[name, value]
            self._size -= len(name) + len(value) + _OVERHEAD


# Integers and strings (RFC 7541 5) ------------------------------------------------------------------------------------------------


def _integer(block: bytes, at: int, value: int) -> tuple[int, int]:
    """The rest of an integer whose prefix was full, and where it ends."""
    shift = 0
    while shift <= 28:
        byte = block[at]
        at += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise HpackError("an integer without an end")


def _string(block: bytes, at: int) -> tuple[str, int]:
    first = block[at]
    at += 1
    length = first & 0x7F
    if length == 0x7F:
        length, at = _integer(block, at, 0x7F)
    end = at + length
    if end > len(block):
        raise HpackError("a string without an end")
    raw = block[at:end]
    return _unpacked(raw) if first & 0x80 else raw.decode("latin-1"), end


@lru_cache(maxsize=1024)
def _unpacked(raw: bytes) -> str:
    return decode_huffman(raw).decode("latin-1")


@lru_cache(maxsize=1024)
def _name(text: str) -> str:
    """A field's name, if it is one (RFC 9113 8.2.1)."""
    if not _NAME.fullmatch(text):
        raise HpackError("no name of a header")
    return text


def _packed(flags: int, mask: int, value: int) -> bytes:
    if value < mask:
        return bytes((flags | value,))
    out = bytearray((flags | mask,))
    value -= mask
    while value >= 0x80:
        out.append(0x80 | value & 0x7F)
        value >>= 7
    out.append(value)
    return bytes(out)


def _plain(text: str) -> bytes:
    raw = text.encode("latin-1")
    return _packed(0, 0x7F, len(raw)) + raw


@lru_cache(maxsize=1024)
def _start(name: str, flags: int, mask: int) -> bytes:
    """A literal up to its value: how it is to be kept, and its name."""
    index = _NAMES.get(name)
    return _packed(flags, mask, index) if index else bytes((flags,)) + _plain(name)
