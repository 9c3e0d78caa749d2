"""Our HPACK beside the `hpack` library's: each reads what the other wrote, and neither is upset by anything else."""

from __future__ import annotations

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshsim.proxy.http2.hpack import TABLE, Decoder, Encoder, HpackError

NAMES = st.sampled_from([":path", ":status", "content-type", "cookie", "x-request-id", "x-a", "x-" + "long" * 40]) | st.from_regex(
    r"[a-z][a-z0-9-]{0,12}", fullmatch=True
)
VALUES = st.sampled_from(["", "/", "200", "GET", "v" * 200, "w" * 5000]) | st.text(
    st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=40
)
BLOCKS = st.lists(st.lists(st.tuples(NAMES, VALUES), max_size=12), max_size=8)
ROOM = 2**20


def raw(fields: list[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields]


@given(BLOCKS, st.sampled_from([0, 40, 200, TABLE, 10 * TABLE]))
def test_the_library_reads_what_we_write(blocks, size):
    ours, theirs = Encoder(), hpack.Decoder(max_header_list_size=ROOM)
    theirs.max_allowed_table_size = size
    ours.resize(size)
    for fields in blocks:
        assert [tuple(field) for field in theirs.decode(ours.encode(fields), raw=True)] == raw(fields)


@given(BLOCKS, st.booleans(), st.sampled_from([0, 40, 200, TABLE]))
def test_we_read_what_the_library_writes(blocks, huffman, size):
    theirs, ours = hpack.Encoder(), Decoder(ROOM)
    theirs.header_table_size = size
    for fields in blocks:
        assert ours.decode(theirs.encode(raw(fields), huffman=huffman)) == fields


@given(st.binary(max_size=80))
def test_other_bytes_are_refused_or_read(block):
    try:
        Decoder(ROOM).decode(block)
    except HpackError:
        return


@pytest.mark.parametrize(
    "block",
    [
        b"\x80",  # index 0
        b"\xc0",  # beyond both tables
        b"\xff",  # an integer that stops
        b"\xff\xff\xff\xff\xff\xff\x01",  # and one that does not
        b"\x40\x05abc",  # a string that stops
        b"\x40\x01A\x01b",  # a name in capitals
        b"\x40\x00\x01b",  # no name
        b"\x40\x01a\x01\x00",  # NUL
        b"\x40\x01a\x02\r\n",  # a line of its own
        b"\x82\x20",  # a table's size behind a field
        b"\x3f\xe2\x1f",  # a table larger than ours
        b"\x40\x01a\x81\x00",  # Huffman padding of zeros
        b"\x40\x01a\x84\xff\xff\xff\xff",  # Huffman's end of string
    ],
)
def test_refused(block):
    with pytest.raises(HpackError):
        Decoder(ROOM).decode(block)


def test_a_block_unpacks_to_so_much_and_no_more():
    """A field in the table costs a byte to repeat."""
    ours = Decoder(10_000)
    ours.decode(Encoder().encode([("x-a", "v" * 400)]))
    with pytest.raises(HpackError):
        ours.decode(b"\xbe" * 30)


def test_a_second_request_is_a_byte_a_field():
    """But for what changes each time, and what may not be guessed."""
    ours = Encoder()
    head = [(":method", "GET"), (":path", "/politics"), ("user-agent", "curl"), ("authorization", "secret"), ("x-request-id", "1")]
    ours.encode(head)
    assert len(ours.encode(head[:1] + head[2:3])) == 2
    for changing in (head[1], head[3], head[4]):
        assert len(ours.encode([changing])) > len(changing[1])
