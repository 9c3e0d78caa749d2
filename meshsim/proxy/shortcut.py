"""The shortcut of requests that repeat: bytes in, bytes out, without a parser, a stream or an exchange of their own.

How this works: a client says the same in every request but for the path and the id, so what was decided about the last one holds for the
next (routing/repeats.py has what "the same" is). A connection's first requests go the long way; the second that begins alike is learned
from. From then on `take` finds the request in what was learned, puts its id into the head that goes out, and sends that on a connection
that is free already; `respond` does the same with the response. Whatever is not as it was (another status, no free connection, half a
head, a configuration that changed) goes the long way, from where it is: `long_way` makes the stream that would be there.
Under MESHSIM_PATH=long nothing takes the shortcut; tests hold both ways against each other, byte for byte.
"""

from __future__ import annotations

import os
from copy import copy
from typing import TYPE_CHECKING

from meshsim.proxy.stream import Stream
from meshsim.routing import headers, repeats
from meshsim.routing.clusters import Host
from meshsim.routing.message import Headers, Response
from meshsim.routing.repeats import Repeat, Said
from meshsim.routing.retries import Reset

if TYPE_CHECKING:
    from meshsim.proxy.core import Core
    from meshsim.proxy.deadlines import Deadline
    from meshsim.proxy.http1_client import Http1Client
    from meshsim.proxy.http1_server import Http1Server
    from meshsim.proxy.pool import Pool
    from meshsim.proxy.stream import Upstream
    from meshsim.routing.facts import Downstream
    from meshsim.routing.manager import Manager

PATH = "MESHSIM_PATH"
_MOST = 8  # different heads remembered for a connection, and paths for each
_END = b"\r\n\r\n"


def open_() -> bool:
    """Whether requests may take it."""
    return os.environ.get(PATH) != "long"


class _Known:
    """A repeat, with what the proxy needs to carry it out. began, ended: the counters of a request, and of its end with a status."""

    def __init__(self, core: Core, manager: Manager, repeat: Repeat, pools: dict[Host, Pool]):
        self.repeat, self.pools = repeat, pools
        self.began = core.counted_at_begin(manager, "1") + core.counted_when_sent(repeat.cluster.stat_name)
        self.ended: dict[int, tuple[str, ...]] = {}
        self.loggers = [logger.after(repeat.entry) for logger in manager.loggers]
        self.meters = core.meters(manager, repeat.entry)


class _Alike:
    """Requests with the same headers: each route they get, and the paths that were seen. version: of the configuration they had then."""

    def __init__(self, version: int) -> None:
        self.version = version
        self.known: list[_Known] = []
        self.paths: dict[bytes, tuple[_Known, str]] = {}


class Shortcut:
    """One downstream connection's; the stream of that connection, and the asker of a host, while a request is on it."""

    def __init__(self, core: Core, server: Http1Server, manager: Manager, downstream: Downstream):
        self._core, self._server, self._manager = core, server, manager
        self._destination = downstream.destination if downstream.restored else None
        self._learned: dict[bytes, _Alike] = {}
        self._last = b""
        self._learning: Said | None = None
        self._as_of = 0
        """The configuration's version when the request came that is being learned from."""
        self._client: Http1Client | None = None
        self._known: _Known
        self._host: Host
        self._path = self._own = ""
        self._start = self._moved = 0.0
        self._sent = 0
        self._answer: tuple[int, Headers] | None = None
        self._idle_timer: Deadline | None = None
        self._late: Deadline | None = None

    @property
    def manager(self) -> Manager:
        """The connection manager that serves it."""
        return self._manager

    @property
    def answered(self) -> bool:
        """Whether its client has a response, at least the head of it."""
        return self._client is None or self._answer is not None

    # requests

    def take(self, data: bytes) -> bool:
        """Send on what a client sent, if it is a whole request that has been here before; False: it has not."""
        if data.find(_END) != len(data) - len(_END) or len(data) > self._manager.rules.max_headers:
            return False
        core = self._core
        self._as_of = core.runtime.version
        said = repeats.said(data)
        alike = self._learned.get(said.rest)
        if alike is None:
            self._learning = said if said.rest == self._last else None
            self._last = said.rest
            return False
        self._learning = None
        if alike.version != self._as_of:
            return self._forget(said)
        found = alike.paths.get(said.line) or self._route(alike, said)
        if found is None:
            return False
        known, path = found
        repeat = known.repeat
        cluster = repeat.cluster
        if repeat.hosts is not cluster.hosts:
            return self._forget(said)
        for pool in known.pools.values():
            if not pool.has_free():
                return self._forget(said) if pool.gone else False
        limits = cluster.limits
        if limits.requests >= limits.max_requests:
            return False
        own = headers.request_id(core.runtime.rng) if repeat.own_id else said.id.decode()  # drawn before the host is, as ever
        host = cluster.pick(destination=self._destination)
        if host is None or host not in known.pools:
            return False
        self._known, self._path, self._host, self._own = known, path, host, own
        self._start, self._moved = core.runtime.clock(), core.loop.time()
        self._answer = None
        limits.requests += 1
        host.active += 1
        core.streams.add(self)
        core.stats.add(known.began)
        self._server.carry(self)
        self._client = client = known.pools[host].free.pop()
        if repeat.idle and self._idle_timer is None:
            self._idle_timer = core.deadlines.after(repeat.idle, self._idle)
        if repeat.timeout:
            self._late = core.deadlines.after(repeat.timeout, self._too_late)
        client.lend(self, b"%b%b%b%b" % (said.line, repeat.before, own.encode() if repeat.after else b"", repeat.after))
        return True

    def _forget(self, said: Said) -> bool:
        """What was learned is out of date; learn it again."""
        del self._learned[said.rest]
        self._learning = said
        return False

    def learn(self, stream: Stream) -> None:
        """A stream of the long way has ended: remember what became of its request, if it was the second of its kind."""
        said, self._learning = self._learning, None
        if said is None or stream.attempt is None or self._as_of != self._core.runtime.version:
            return
        repeat = Repeat.of(stream.exchange, stream.attempt, said)
        if repeat is None:
            return
        pools: dict[Host, Pool] = {}
        for host in repeat.hosts or [stream.attempt.host]:
            pool = self._core.pools.find(repeat.sent_to(host), stream.exchange.downstream)
            if pool is None:
                return
            pools[host] = pool
        alike = self._learned.get(said.rest)
        if alike is None:
            if len(self._learned) >= _MOST:
                self._learned.clear()
            alike = self._learned[said.rest] = _Alike(self._as_of)
        alike.known.append(_Known(self._core, self._manager, repeat, pools))

    def _route(self, alike: _Alike, said: Said) -> tuple[_Known, str] | None:
        """What is known of a path that is asked for for the first time."""
        path = repeats.path_of(said.line)
        for known in alike.known if path is not None else ():
            assert path is not None
            if known.repeat.fits(path):
                if len(alike.paths) >= _MOST:
                    alike.paths.clear()
                alike.paths[said.line] = found = known, path
                return found
        self._learning = said  # perhaps its route can be learned too
        return None

    # the response

    def respond(self, data: bytes) -> bool:
        """The first bytes from the host: send them on; False: the request is one of the long way now, and they belong to it."""
        repeat, client = self._known.repeat, self._client
        assert client is not None
        now = self._core.runtime.clock()
        end = data.find(_END) + len(_END)
        head, size = data[:end], len(data) - end
        answer = repeat.answers.get(head)
        if answer is None or answer.second not in (0, int(now)):
            found = client.head(head)
            answer = found and repeat.learn(head, Response(found[0].status, found[0].headers, False, found[0].version), found[1])
        if not answer or size > answer.length or not self._server.stays:
            self.long_way()
            return False
        took = str(int((now - self._start) * 1000))
        self._sent = size
        self._answer = answer.status, answer.headers(took)
        self._moved = self._core.loop.time()
        if repeat.detects:
            repeat.cluster.report(self._host, answer.status)
        self._server.write_now(b"%b%b%b%b" % (answer.before, took.encode() if answer.after else b"", answer.after, data[end:]))
        left = answer.length - size
        if not left:
            self._end(now)
        client.returned(left)
        return True

    def response_data(self, data: bytes) -> None:
        self._sent += len(data)
        self._moved = self._core.loop.time()
        self._server.send_data(data)

    def response_end(self, trailers: Headers | None = None) -> None:
        self._end(self._core.runtime.clock())

    def _end(self, now: float) -> None:
        """Request and response are over: count and log them."""
        core, known, host, client = self._core, self._known, self._host, self._client
        assert client is not None and self._answer is not None
        repeat = known.repeat
        self._client = None
        host.active -= 1
        repeat.cluster.limits.requests -= 1
        core.streams.discard(self)
        if self._late is not None:
            self._late.cancel()
            self._late = None
        entry = repeat.entry if core.on_log is None else copy(repeat.entry)
        entry.start, entry.end, entry.path, entry.sent = self._start, now, self._path, self._sent
        entry.code, entry.response_headers = self._answer
        entry.request_headers = repeat.fields(self._own)
        entry.upstream, entry.upstream_name, entry.upstream_local = host.name, host.hostname or host.name, client.local
        names = known.ended.get(entry.code)
        if names is None:
            names = known.ended[entry.code] = core.counted_at_end(self._manager, entry)
        core.stats.add(names)
        core.time(known.meters, now - self._start)
        core.log(entry, known.loggers)
        self._server.closed()

    # leaving it

    def long_way(self) -> Stream:
        """The stream that is in its place from now on."""
        core, client, host, repeat = self._core, self._client, self._host, self._known.repeat
        assert client is not None
        self._client = None
        core.streams.discard(self)
        if self._late is not None:
            self._late.cancel()
            self._late = None
        exchange, attempt = repeat.exchange(self._path, self._own, host, self._start)
        if self._answer is not None:
            exchange.forwarded(*self._answer)
        stream = Stream(core, self._server, exchange)
        stream.take_over(attempt, client, moved=self._moved, sent=self._sent if self._answer else None)
        client.hand_over(stream)
        self._server.hand_over(stream)
        return stream

    def _idle(self) -> None:
        """The idle time of some request is over; perhaps not of the one that is here now."""
        self._idle_timer = None
        if self._client is None:
            return
        left = self._moved + self._known.repeat.idle - self._core.loop.time()
        if left > 0.001:
            self._idle_timer = self._core.deadlines.after(left, self._idle)
        else:
            self.long_way()  # whose own time is over at once

    def _too_late(self) -> None:
        self._late = None
        self.long_way()  # as above

    def stop(self) -> None:
        """The connection is no more."""
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None

    # what a stream and an asker are told besides; most of it ends the repetition

    def client_gone(self, *, reset: bool = False) -> None:
        self.long_way().client_gone(reset=reset)

    def client_blocked(self) -> None:
        if self._client is not None:
            self._client.pause()

    def client_writable(self) -> None:
        if self._client is not None:
            self._client.resume()

    def host_blocked(self) -> None:
        """There is no body that could be held back."""

    def host_writable(self) -> None:
        """See host_blocked."""

    def ready(self, upstream: Upstream) -> None:
        """Not told to a shortcut, and neither are the next: `respond` hears of a response before they would be."""

    def not_ready(self, reset: Reset, reason: str = "") -> None:
        """See ready."""

    def may_continue(self) -> None:
        """See ready."""

    def response(self, head: Response) -> None:
        """See ready."""

    def tunnel_ended(self) -> None:
        """See ready."""

    def failed(self, reset: Reset, reason: str = "") -> None:
        self.long_way().failed(reset, reason)
