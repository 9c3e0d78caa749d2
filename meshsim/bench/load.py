"""The load client, a process of its own: `python -m meshsim.bench.load`, a `Load` as JSON on standard input, a `Result` on standard
output.

How this works: one thread, one epoll, no event loop library, so that the client costs little beside what it measures. Closed: each of N
connections sends its next request when it has the answer; that measures capacity. Open: requests are due at fixed times whatever
the answers do, and a latency counts from when a request was *due*, so that a stall of the proxy counts for every request it made
wait (no coordinated omission). A request without a free connection waits in the client, on the clock.

`started` on a line of its own says that the warm-up is over, so that the parent can look at the clocks of the processes.
"""

from __future__ import annotations

import itertools
import os
import resource
import select
import socket
import ssl
import sys
import time
from collections import deque
from typing import Literal

import msgspec

from meshsim.bench.histogram import Histogram

STARTED = "started"
ENDLESS = 1 << 62
NUMBER = b"{number}"
_CHUNK = 256 * 1024
_HEAD_END = b"\r\n\r\n"
_LENGTH = b"content-length: "
_APPLICATION_DATA, _HEADER, _SEAL = 23, 5, 17  # of a TLS 1.3 record: its type, its header's bytes, what encrypting adds to the others
_LARGE = 1 << 20  # bytes of an answer that nobody looks at
_GIVE_UP = 10.0  # seconds an answer may take


class Load(msgspec.Struct, kw_only=True):
    """What to do to whom.

    path: the Unix socket to connect to, else `host` and `port`. opening: bytes that a connection begins with, such as a PROXY header.
    tls: the name to speak TLS for, with whoever answers; empty for plain bytes. sealed: a body is counted by the records that carry it,
    and not decrypted; a connection has one answer then.
    request: the bytes of a request; NUMBER in them is replaced by the request's own. answer: how many bytes an answer has, 0 for an
    HTTP/1.1 message with a content-length, ENDLESS. mode: `closed`, or `open` at `rate` requests a second. fresh: a new connection for
    every request. requests: a closed load ends when so many are answered, however long that takes, without a
    warm-up; 0: when its time is over.
    """

    path: str = ""
    host: str = ""
    port: int = 0
    opening: bytes = b""
    tls: str = ""
    sealed: bool = False
    request: bytes = b""
    answer: int = 0
    mode: Literal["closed", "open"] = "closed"
    rate: float = 0.0
    connections: int = 1
    fresh: bool = False
    requests: int = 0
    warmup: float = 0.5
    seconds: float = 2.0


class Result(msgspec.Struct, kw_only=True):
    """What came of it, without the warm-up. received: bytes. cpu: seconds of this process. late: requests that were due and not sent."""

    requests: int
    errors: int
    received: int
    elapsed: float
    cpu: float
    latencies: dict[int, int]
    first_error: str = ""
    late: int = 0

    @property
    def histogram(self) -> Histogram:
        return Histogram(self.latencies)

    @property
    def rate(self) -> float:
        return self.requests / self.elapsed if self.elapsed else 0.0


class Refused(Exception):
    """An answer that is none, or none at all."""


class _Away:
    """A way to /dev/null that copies nothing: a client that looks at no byte should not pay for them."""

    def __init__(self) -> None:
        self._out, self._in = os.pipe()
        self._null = os.open(os.devnull, os.O_WRONLY)

    def take(self, sock: socket.socket) -> int:
        """How many bytes there were. Raises Refused."""
        size = os.splice(sock.fileno(), self._in, _CHUNK)
        if not size:
            raise Refused("the connection was closed")
        return os.splice(self._out, self._null, size)

    def close(self) -> None:
        for file in (self._out, self._in, self._null):
            os.close(file)


class _Records:
    """A TLS 1.3 stream by the lengths of its records (RFC 8446 5.2): who decrypts what nobody looks at is busier than who encrypted it."""

    def __init__(self, buffer: memoryview) -> None:
        self._buffer = buffer
        self._left, self._head = 0, b""  # of the record that is coming, and of the header of the next

    def take(self, sock: socket.socket) -> int:
        """How many bytes those records carry that begin in what there is. Raises Refused."""
        size = socket.socket.recv_into(sock, self._buffer)  # the socket's own, not that of TLS
        if not size:
            raise Refused("the connection was closed")
        at, carried = self._left, 0
        while at < size:
            due = _HEADER - len(self._head)
            head = self._head + bytes(self._buffer[at : min(at + due, size)])
            at += due
            if len(head) < _HEADER:
                self._head = head
                break
            if head[0] != _APPLICATION_DATA:
                raise Refused(f"a TLS record of type {head[0]} in the middle of an answer")
            length = head[3] << 8 | head[4]
            carried += length - _SEAL
            at += length
            self._head = b""
        self._left = at - size if not self._head else 0
        return carried


class _Connection:
    """One connection, and the request under way on it. `due` is when that request should have been sent, in nanoseconds."""

    __slots__ = ("due", "head", "left", "records", "sock")

    def __init__(self, sock: socket.socket):
        self.sock, self.due, self.head, self.left = sock, 0, b"", -1
        self.records: _Records | None = None

    def take(self, buffer: memoryview, answer: int, away: _Away | _Records | None = None) -> int:
        """Read what there is of the answer, which is complete when nothing is `left`; how many bytes. Raises Refused."""
        away = self.records or away
        size = away.take(self.sock) if away else self.sock.recv_into(buffer)
        if not (size or away):
            raise Refused("the connection was closed")
        if self.left < 0:
            if answer:
                self.left = answer - size
            else:
                self._take_head(bytes(buffer[:size]))
        else:
            self.left -= size
        return size

    def _take_head(self, data: bytes) -> None:
        self.head = data = self.head + data if self.head else data
        end = data.find(_HEAD_END)
        if end < 0:
            return
        if not data.startswith(b"HTTP/1.1 200"):
            raise Refused(data[:end].decode("latin-1"))
        at = data.lower().find(_LENGTH, 0, end)
        if at < 0:
            raise Refused("an answer without content-length")
        at += len(_LENGTH)
        self.left = int(data[at : data.index(b"\r", at)]) - (len(data) - end - len(_HEAD_END))

    def ready(self) -> None:
        self.head, self.left = b"", -1


class Client:
    """Carries out one Load."""

    def __init__(self, load: Load):
        self.load = load
        self._epoll = select.epoll()
        self._connections: dict[int, _Connection] = {}
        self._free: deque[_Connection] = deque()
        self._buffer = memoryview(bytearray(_CHUNK))
        self._away = _Away() if load.answer >= _LARGE else None
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._tls.check_hostname, self._tls.verify_mode = False, ssl.CERT_NONE  # it is a yardstick: what answers is ours
        self._latencies: list[int] = []
        self._received = self._errors = 0
        self._alike, self._numbers = NUMBER not in load.request, itertools.count()
        self._first_error = ""

    def run(self) -> Result:
        """Connect, warm up, measure."""
        load = self.load
        if not load.fresh:
            for _ in range(load.connections):
                self._free.append(self._connect())
        if not load.requests:
            self._drive(load.warmup)
        self._latencies.clear()
        self._received = self._errors = 0
        self._first_error = ""
        print(STARTED, flush=True)
        cpu, begin = time.process_time(), time.perf_counter()
        late = self._drive(load.seconds)
        elapsed = time.perf_counter() - begin
        histogram = Histogram()
        cpu = time.process_time() - cpu
        histogram.extend(self._latencies)
        return Result(
            requests=len(self._latencies),
            errors=self._errors,
            received=self._received,
            elapsed=elapsed,
            cpu=cpu,
            latencies=histogram.counts,
            first_error=self._first_error,
            late=late,
        )

    def close(self) -> None:
        for connection in self._connections.values():
            connection.sock.close()
        self._epoll.close()
        if self._away:
            self._away.close()

    def _drive(self, seconds: float) -> int:
        """Work for that long; the number of requests that were due and never sent."""
        if self.load.mode == "open":
            return self._open(seconds)
        self._closed(seconds)
        return 0

    def _closed(self, seconds: float) -> None:
        now = time.perf_counter_ns()
        end = now + int(seconds * 1e9)
        while self._free:
            self._send(self._free.popleft(), now)
        if self.load.fresh:
            while len(self._connections) < self.load.connections:
                self._send_fresh(time.perf_counter_ns())
        wanted = self.load.requests
        while len(self._latencies) < wanted if wanted else time.perf_counter_ns() < end:
            now = time.perf_counter_ns()
            for number, _ in self._epoll.poll(_GIVE_UP):
                if self._answered(number) and (not wanted or len(self._latencies) < wanted):
                    again = time.perf_counter_ns()
                    if self.load.fresh:
                        self._send_fresh(again)
                    else:
                        self._send(self._free.popleft(), again)
            self._stuck(now)

    def _open(self, seconds: float) -> int:
        gap = 1e9 / self.load.rate
        begin = time.perf_counter_ns()
        end, sent = begin + int(seconds * 1e9), 0
        while (now := time.perf_counter_ns()) < end:
            while begin + int(sent * gap) <= now and (self._free or self.load.fresh):
                if self.load.fresh:
                    self._send_fresh(begin + int(sent * gap))
                else:
                    self._send(self._free.popleft(), begin + int(sent * gap))
                sent += 1
            due = begin + int(sent * gap)
            wait = max(0.0, (due - time.perf_counter_ns()) / 1e9) if self._free or self.load.fresh else 0.05
            if select.select([self._epoll], [], [], wait)[0]:  # epoll itself knows milliseconds only
                for number, _ in self._epoll.poll(0):
                    self._answered(number)
        return max(0, int(seconds * self.load.rate) - sent)

    def _connect(self) -> _Connection:
        load = self.load
        family, place = (socket.AF_UNIX, load.path) if load.path else (socket.AF_INET, (load.host, load.port))
        sock = socket.socket(family, socket.SOCK_STREAM)
        if not load.path:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.connect(place)
        sock.setblocking(False)
        if load.opening:
            sock.send(load.opening)
        if load.tls:
            sock.setblocking(True)
            sock = self._tls.wrap_socket(sock, server_hostname=load.tls)
            sock.setblocking(False)
        connection = _Connection(sock)
        self._connections[sock.fileno()] = connection
        self._epoll.register(sock, select.EPOLLIN)
        return connection

    def _send(self, connection: _Connection, due: int) -> None:
        connection.due = due
        connection.sock.send(self.load.request if self._alike else self.load.request.replace(NUMBER, b"%d" % next(self._numbers)))

    def _send_fresh(self, due: int) -> None:
        self._send(self._connect(), due)

    def _answered(self, number: int) -> bool:
        """Take what a connection has to say; whether it may send again."""
        connection = self._connections[number]
        try:
            self._received += connection.take(self._buffer, self.load.answer, self._away)
            if self.load.sealed and connection.left > 0 and connection.records is None:
                self._seal(connection)
            if connection.left:
                return False
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        except (OSError, Refused) as e:
            self._errors += 1
            self._first_error = self._first_error or str(e)
            self._drop(connection)
            if not self.load.fresh:
                self._free.append(self._connect())
            if self._errors > 1000:
                raise Refused(f"more than 1000 errors, the first: {self._first_error}") from None
            return True
        self._latencies.append(time.perf_counter_ns() - connection.due)
        connection.ready()
        if self.load.fresh:
            self._drop(connection)
        else:
            self._free.append(connection)
        return True

    def _seal(self, connection: _Connection) -> None:
        """Read on by records: what OpenSSL has read of the socket ends where one does. Raises Refused."""
        assert isinstance(connection.sock, ssl.SSLSocket)
        if connection.sock.version() != "TLSv1.3":
            raise Refused(f"a sealed answer in {connection.sock.version()}")
        if not connection.sock.pending():
            connection.records = _Records(self._buffer)

    def _drop(self, connection: _Connection) -> None:
        del self._connections[connection.sock.fileno()]
        connection.sock.close()

    def _stuck(self, now: int) -> None:
        limit = now - int(_GIVE_UP * 1e9)
        if not (self._latencies or self._received) and any(c.due and c.due < limit for c in self._connections.values()):
            raise Refused(f"no answer in {_GIVE_UP:.0f} s")


def main() -> None:
    load = msgspec.json.decode(sys.stdin.buffer.read(), type=Load)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit[1], limit[1]))
    client = Client(load)
    try:
        result = client.run()
    except (OSError, Refused) as e:
        sys.exit(f"load: {e}")
    finally:
        client.close()
    print(msgspec.json.encode(result).decode(), flush=True)


if __name__ == "__main__":
    main()
