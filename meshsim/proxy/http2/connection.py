"""What both ends of an HTTP/2 connection have in common: frames in and out, streams, windows.

How this works: a `Half` is one stream as the proxy sees it, the `Sink` of a request that came in or the `Upstream` of one that goes out.
What it wants to send waits in it until the next flush, which fills as many frames as both flow-control windows and the frame size allow,
the last one with the end of the stream, and writes everything of that turn of the event loop at once. A half that holds too much unsent
tells its stream; one that is paused leaves its window shut. Bytes that arrive are handled frame by frame, each kind by the method that a
table names; a frame that may not be there ends the connection (`Broken`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import cast

from meshsim.proxy.http2 import frames
from meshsim.proxy.http2.frames import Broken, Code, Setting
from meshsim.proxy.http2.hpack import TABLE, Decoder, Encoder, HpackError
from meshsim.routing import http2_fields
from meshsim.routing.http2_fields import Malformed
from meshsim.routing.inspection import PREFACE
from meshsim.routing.message import Headers

STREAM_WINDOW = 1024 * 1024  # bytes of one stream on their way to us: as many as Envoy buffers for a stream
CONNECTION_WINDOW = 24 * 1024 * 1024
MAX_STREAMS = 1024
MAX_HEADERS = 256 * 1024  # bytes that HPACK may unpack to, and of a packed block, whatever a manager allows
HIGH_WATER, LOW_WATER = 1024 * 1024, 256 * 1024  # bytes a half may hold unsent
_MOST_ANSWERS = 1000  # of ours to SETTINGS and PING, unsent: as many as Envoy holds
_EMPTY_FRAMES = 1  # in a row that say nothing: as many as Envoy takes


class Half:
    """One stream on a connection. `blocked` and `writable` tell its user about back-pressure.

    room: bytes that may be sent; credit: bytes the peer may send; unacknowledged: of those it did, how many were not given back.
    """

    def __init__(self, connection: Http2Connection, number: int):
        self._connection = connection
        self.id = number
        self.ending = self.ended = False  # told to end; the end is on its way
        self.complete = False  # the other side has ended
        self.over = False  # of no more interest
        self.held = False
        self.out: deque[bytes | memoryview] = deque()
        self.unsent = 0
        self.trailers: Headers | None = None  # to send
        self.received: Headers | None = None  # trailers of the other side
        self.room = connection.peer_window
        self.credit = STREAM_WINDOW
        self.unacknowledged = 0
        self.expected: int | None = None  # bytes of the body, if its head says so
        self.got = 0
        self._paused = False
        self._unread = 0

    # its user's side

    def send_data(self, data: bytes) -> None:
        if self.over or self.ending or not data:
            return
        self.out.append(data)
        self.unsent += len(data)
        self._connection.dirty(self)
        if self.unsent > HIGH_WATER and not self.held:
            self.held = True
            self.blocked()

    def send_end(self, trailers: Headers | None = None) -> None:
        if not self.ended and not self.over:
            self.ending, self.trailers = True, trailers
            self._connection.dirty(self)

    def pause(self) -> None:
        """Leave the window shut."""
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        if self._unread:
            self._connection.acknowledge(self, self._unread)
            self._unread = 0

    # the connection's side

    def arrived(self, size: int) -> None:
        """`size` bytes of window are used up."""
        if self._paused and not self.over:
            self._unread += size
        else:
            self._connection.acknowledge(self, size)

    def taken(self, most: int) -> bytes | memoryview:
        """The next bytes to send, `most` of them at the most."""
        piece = self.out.popleft()
        if len(piece) > most:
            view = memoryview(piece)
            piece = view[:most]
            self.out.appendleft(view[most:])
        self.unsent -= len(piece)
        return piece

    def release(self) -> None:
        """The stream is over: what was not read is of no use to its window, but the connection's is everybody's."""
        self.over = True
        if self._unread:
            self._connection.acknowledge(self, self._unread)
            self._unread = 0

    def eased(self) -> None:
        """Bytes have left."""
        if self.held and self.unsent <= LOW_WATER:
            self.held = False
            self.writable()

    def blocked(self) -> None:
        raise NotImplementedError

    def writable(self) -> None:
        raise NotImplementedError


class Http2Connection(asyncio.Protocol):
    """A connection's frames in and out. client: whether this end opens the streams. connects: whether it takes upgrades (RFC 8441)."""

    def __init__(self, *, client: bool, connects: bool = False):
        self._client, self._connects = client, connects
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._encoder, self._decoder = Encoder(), Decoder(MAX_HEADERS)
        self._greeting = b"" if client else PREFACE  # of the peer, still to come
        self._settled = self._ended = self._going = False
        self._buffer = b""
        self._out: list[bytes | memoryview] = []
        self._answers = 0
        self._empty = 0
        self._dirty: dict[int, Half] = {}
        self._stalled: dict[int, Half] = {}
        self._scheduled = self._full = False
        self._block: bytearray | None = None
        self._block_of = (0, False)
        self._last = 0  # the newest stream, whoever opens them
        self._room = frames.FIRST_WINDOW
        self._credit = CONNECTION_WINDOW
        self._unacknowledged = 0
        self.peer_window = frames.FIRST_WINDOW
        self._peer_frame = frames.FRAME
        self._peer_streams = frames.LAST_STREAM
        self._on = (
            self._data, self._headers, self._priority, self._reset, self._settings, self._push,
            self._ping, self._goaway, self._window, self._continuation,
        )  # fmt: skip

    # the transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        ours = {
            Setting.HEADER_TABLE_SIZE: TABLE,
            Setting.ENABLE_CONNECT_PROTOCOL: int(self._connects),
            Setting.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
            Setting.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
        }
        if self._client:
            self._out.append(PREFACE)
            ours = {Setting.ENABLE_PUSH: 0, **ours}
        self._out += (frames.settings(ours), frames.window_update(0, CONNECTION_WINDOW - frames.FIRST_WINDOW))
        self._schedule()

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return
        try:
            self._buffer = self._take(self._buffer + data if self._buffer else data)
        except Broken as broken:
            self._ended = True
            self._out.append(frames.goaway(0 if self._client else self._last, broken.code))
            self._flush()
            self._broken()
            return
        self._flush()

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self._full = True
        for half in self._halves():
            half.blocked()

    def resume_writing(self) -> None:
        self._full = False
        for half in self._halves():
            half.writable()

    # sending

    def dirty(self, half: Half) -> None:
        """The half has something to send."""
        self._dirty[half.id] = half
        self._schedule()

    def acknowledge(self, half: Half | None, size: int) -> None:
        """Bytes were taken in: the peer may send as many again, which is told when half a window has come together."""
        self._unacknowledged += size
        if self._unacknowledged >= CONNECTION_WINDOW // 2:
            self._out.append(frames.window_update(0, self._unacknowledged))
            self._credit += self._unacknowledged
            self._unacknowledged = 0
            self._schedule()
        if half is None or half.over or half.complete:
            return
        half.unacknowledged += size
        if half.unacknowledged >= STREAM_WINDOW // 2:
            self._out.append(frames.window_update(half.id, half.unacknowledged))
            half.credit += half.unacknowledged
            half.unacknowledged = 0
            self._schedule()

    def send_headers(self, half: Half, fields: Headers, *, end: bool) -> bool:
        """Whether there is still a connection to send them on."""
        if self._transport is None or self._ended:
            return False
        block = self._encoder.encode(fields)
        flags, most = frames.END_STREAM if end else 0, self._peer_frame
        if len(block) <= most:
            self._out.append(frames.frame(frames.HEADERS, flags | frames.END_HEADERS, half.id, block))
        else:
            self._out.append(frames.frame(frames.HEADERS, flags, half.id, block[:most]))
            for at in range(most, len(block), most):
                last = frames.END_HEADERS if at + most >= len(block) else 0
                self._out.append(frames.frame(frames.CONTINUATION, last, half.id, block[at : at + most]))
        half.ended = end
        self._schedule()
        return True

    def reset(self, half: Half, code: Code) -> None:
        """Give the stream up."""
        if half.ended and half.complete:
            return
        half.ended = half.complete = True
        half.release()
        self._forget(half)
        self._out.append(frames.rst_stream(half.id, code))
        self._schedule()

    def _forget(self, half: Half) -> None:
        self._dirty.pop(half.id, None)
        self._stalled.pop(half.id, None)

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        if self._dirty:
            waiting, self._dirty = self._dirty, {}
            for half in waiting.values():
                self._pump(half)
        if self._out:
            out, self._out = self._out, []
            if self._transport is not None and not self._transport.is_closing():
                self._transport.write(b"".join(out))
            if not self._full:
                self._answers = 0

    def _pump(self, half: Half) -> None:
        """Put what the windows allow into frames."""
        if half.over or half.ended:
            return
        while half.unsent:
            size = min(self._room, half.room, self._peer_frame)
            if size <= 0:
                self._stalled[half.id] = half
                break
            piece = half.taken(size)
            self._room -= len(piece)
            half.room -= len(piece)
            half.ended = half.ending and not half.unsent and not half.trailers
            self._out += (frames.head(len(piece), frames.DATA, frames.END_STREAM if half.ended else 0, half.id), piece)
        if half.ending and not half.unsent and not half.ended:
            if half.trailers:
                self.send_headers(half, http2_fields.sendable(half.trailers), end=True)
            else:
                half.ended = True
                self._out.append(frames.frame(frames.DATA, frames.END_STREAM, half.id))
        if half.held:
            half.eased()
        if half.ended:
            self._on_sent(half)

    def _answer(self, answer: bytes) -> None:
        """Reply to a frame that asks for it; a peer that asks without reading is not kept waiting for (CVE-2019-9512, 9515)."""
        self._answers += 1
        if self._answers > _MOST_ANSWERS:
            raise Broken(Code.ENHANCE_YOUR_CALM)
        self._out.append(answer)

    # receiving

    def _take(self, data: bytes) -> bytes:
        """Handle every whole frame; the rest is what is left. Raises Broken."""
        if self._greeting:
            size = len(self._greeting)
            if data[:size] != self._greeting[: len(data)]:
                raise Broken(Code.PROTOCOL_ERROR)
            if len(data) < size:
                return data
            self._greeting, data = b"", data[size:]
        at, end, unpack = 0, len(data), frames.HEAD.unpack_from
        while end - at >= frames.HEAD_SIZE and not self._ended:
            high, low, kind, flags, stream = unpack(data, at)
            length = high << 8 | low
            if length > frames.FRAME:
                raise Broken(Code.FRAME_SIZE_ERROR)
            if not self._settled:
                if kind != frames.SETTINGS:  # RFC 9113 3.4
                    raise Broken(Code.PROTOCOL_ERROR)
                self._settled = True
            start = at + frames.HEAD_SIZE
            if start + length > end:
                break
            at = start + length
            if self._block is not None and kind != frames.CONTINUATION:
                raise Broken(Code.PROTOCOL_ERROR)
            if kind <= frames.CONTINUATION:
                self._on[kind](flags, stream & frames.LAST_STREAM, data[start:at])
        return data[at:]

    def _data(self, flags: int, stream: int, payload: bytes) -> None:
        size = len(payload)
        if flags & frames.PADDED:
            payload = frames.bare(frames.PADDED, payload)
        self._credit -= size
        if self._credit < 0:
            raise Broken(Code.FLOW_CONTROL_ERROR)
        half = self._half(stream)
        if half is None or half.complete:
            self.acknowledge(None, size)
            return
        half.credit -= size
        if half.credit < 0:
            raise Broken(Code.FLOW_CONTROL_ERROR)
        ends = flags & frames.END_STREAM
        if payload:
            self._empty = 0
            half.got += len(payload)
            if half.expected is not None and half.got > half.expected:
                raise Broken(Code.PROTOCOL_ERROR)
            self._on_data(half, payload)
        elif not ends:
            self._empty += 1
            if self._empty > _EMPTY_FRAMES:  # CVE-2019-9518
                raise Broken(Code.ENHANCE_YOUR_CALM)
        if ends and not half.complete:
            self._finish(half)
        if size:
            half.arrived(size)

    def _headers(self, flags: int, stream: int, payload: bytes) -> None:
        if not stream:
            raise Broken(Code.PROTOCOL_ERROR)
        if flags & (frames.PADDED | frames.WITH_PRIORITY):
            payload = frames.bare(flags, payload)
        ends = bool(flags & frames.END_STREAM)
        if flags & frames.END_HEADERS:
            self._whole_block(stream, payload, ends)
        else:
            self._block, self._block_of = bytearray(payload), (stream, ends)

    def _continuation(self, flags: int, stream: int, payload: bytes) -> None:
        block, (expected, ends) = self._block, self._block_of
        if block is None or stream != expected:
            raise Broken(Code.PROTOCOL_ERROR)
        block += payload
        if len(block) > MAX_HEADERS or (not payload and not flags & frames.END_HEADERS):  # CVE-2024-27316
            raise Broken(Code.ENHANCE_YOUR_CALM)
        if flags & frames.END_HEADERS:
            self._block = None
            self._whole_block(stream, bytes(block), ends)

    def _whole_block(self, stream: int, block: bytes, ends: bool) -> None:
        try:
            fields = self._decoder.decode(block)
        except HpackError:
            raise Broken(Code.COMPRESSION_ERROR) from None
        try:
            self._on_headers(stream, fields, ends)
        except Malformed:  # Envoy ends the connection, not the stream, unless it is told otherwise
            raise Broken(Code.PROTOCOL_ERROR) from None

    def _trailers(self, half: Half, fields: Headers, ends: bool) -> None:
        """A second block of fields on a stream (RFC 9113 8.1)."""
        if half.complete:
            raise Broken(Code.STREAM_CLOSED)
        if not ends:
            raise Broken(Code.PROTOCOL_ERROR)
        half.received = http2_fields.trailers(fields)
        self._finish(half)

    def _finish(self, half: Half) -> None:
        if half.expected is not None and half.got != half.expected:
            raise Broken(Code.PROTOCOL_ERROR)
        half.complete = True
        self._on_end(half)

    def _priority(self, flags: int, stream: int, payload: bytes) -> None:
        """Obsolete (RFC 9113 5.3.2)."""
        if len(payload) != 5:
            raise Broken(Code.FRAME_SIZE_ERROR)

    def _reset(self, flags: int, stream: int, payload: bytes) -> None:
        code = frames.number_of(payload)
        half = self._half(stream)
        if half is not None:
            half.ended = half.complete = True
            self._forget(half)
            self._on_reset(half, code)

    def _settings(self, flags: int, stream: int, payload: bytes) -> None:
        if stream:
            raise Broken(Code.PROTOCOL_ERROR)
        if flags & frames.ACK:
            if payload:
                raise Broken(Code.FRAME_SIZE_ERROR)
            return
        for name, value in frames.settings_of(payload):
            if name == Setting.HEADER_TABLE_SIZE:
                self._encoder.resize(value)
            elif name == Setting.INITIAL_WINDOW_SIZE:
                self._resize_windows(value)
            elif name == Setting.MAX_FRAME_SIZE:
                if not frames.FRAME <= value <= frames.LONGEST_FRAME:
                    raise Broken(Code.PROTOCOL_ERROR)
                self._peer_frame = min(value, 4 * frames.FRAME)
            elif name == Setting.MAX_CONCURRENT_STREAMS:
                self._peer_streams = value
            elif name == Setting.ENABLE_PUSH and value > 1:
                raise Broken(Code.PROTOCOL_ERROR)
        self._answer(frames.frame(frames.SETTINGS, frames.ACK, 0))

    def _resize_windows(self, size: int) -> None:
        """Every stream's window changes by as much as the first size of one does (RFC 9113 6.9.2)."""
        if size > frames.LARGEST_WINDOW:
            raise Broken(Code.FLOW_CONTROL_ERROR)
        for half in self._halves():
            half.room += size - self.peer_window
        self.peer_window = size
        self._wake(None)

    def _push(self, flags: int, stream: int, payload: bytes) -> None:
        raise Broken(Code.PROTOCOL_ERROR)

    def _ping(self, flags: int, stream: int, payload: bytes) -> None:
        if stream:
            raise Broken(Code.PROTOCOL_ERROR)
        if len(payload) != 8:
            raise Broken(Code.FRAME_SIZE_ERROR)
        if not flags & frames.ACK:
            self._answer(frames.frame(frames.PING, frames.ACK, 0, payload))

    def _goaway(self, flags: int, stream: int, payload: bytes) -> None:
        if stream:
            raise Broken(Code.PROTOCOL_ERROR)
        self._on_goaway(frames.last_stream_of(payload))

    def _window(self, flags: int, stream: int, payload: bytes) -> None:
        size = frames.number_of(payload) & frames.LARGEST_WINDOW
        if not stream:
            self._room += size
            if not size or self._room > frames.LARGEST_WINDOW:
                raise Broken(Code.FLOW_CONTROL_ERROR if size else Code.PROTOCOL_ERROR)
            self._wake(None)
            return
        half = self._half(stream)
        if half is None:
            return
        half.room += size
        if not size or half.room > frames.LARGEST_WINDOW:
            raise Broken(Code.FLOW_CONTROL_ERROR if size else Code.PROTOCOL_ERROR)
        self._wake(half)

    def _wake(self, half: Half | None) -> None:
        """A window has opened: the stream's, or everybody's."""
        if half is None:
            self._dirty.update(self._stalled)
            self._stalled.clear()
        elif self._stalled.pop(half.id, None) is not None:
            self._dirty[half.id] = half
        if self._dirty:
            self._schedule()

    def _half(self, stream: int) -> Half | None:
        """The stream, or None for one that is over. Raises Broken for one that nobody opened (RFC 9113 5.1)."""
        half = self._find(stream)
        if half is None and (stream > self._last or stream % 2 == 0):
            raise Broken(Code.PROTOCOL_ERROR)
        return half

    # what an end does with it

    def _halves(self) -> list[Half]:
        """Streams that are under way."""
        raise NotImplementedError

    def _find(self, stream: int) -> Half | None:
        raise NotImplementedError

    def _on_headers(self, stream: int, fields: Headers, ends: bool) -> None:
        """Raises Malformed, Broken."""
        raise NotImplementedError

    def _on_data(self, half: Half, data: bytes) -> None:
        raise NotImplementedError

    def _on_end(self, half: Half) -> None:
        raise NotImplementedError

    def _on_sent(self, half: Half) -> None:
        """All that the half had to say is on its way."""

    def _on_reset(self, half: Half, code: int) -> None:
        raise NotImplementedError

    def _on_goaway(self, last: int) -> None:
        raise NotImplementedError

    def _broken(self) -> None:
        """The peer does not speak HTTP/2 as it should."""
        raise NotImplementedError
