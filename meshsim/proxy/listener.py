"""From an accepted socket to the protocol of its filter chain.

How this works: an `Arrival` takes a connection through what Envoy's listener filters do. A PROXY header is read off; a redirected
connection is handed to the listener of its original destination; then TLS and HTTP inspectors look at the first bytes with
MSG_PEEK, so that nothing is consumed and the chain's own protocol reads everything. While the bytes do not suffice the socket is
looked at again when more are there, as `edges` tell. A system without them has a level-triggered loop, which would spin on unread bytes:
there it waits for the first ones, and then a time that doubles from a millisecond.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, cast

from meshsim.network import proxy_protocol
from meshsim.network.base import Accept, Connection
from meshsim.proxy import edges, inspect
from meshsim.proxy.deadlines import Deadline
from meshsim.proxy.expiry import Expiry
from meshsim.proxy.http1_server import Http1Server
from meshsim.proxy.http2 import Http2Server
from meshsim.proxy.relay import Relay
from meshsim.proxy.tls import HandshakeFailed, NoSecret, TlsTransport
from meshsim.proxy.wire import Wire
from meshsim.routing import inspection
from meshsim.routing.facts import RAW, TLS, Downstream, Endpoint
from meshsim.routing.lifetime import Lifetime
from meshsim.routing.manager import Manager
from meshsim.routing.runtime import Chain, ListenerRules

if TYPE_CHECKING:
    from meshsim.proxy.core import Core

_PEEK = 64 * 1024
_FIRST_DELAY, _LONGEST_DELAY = 0.001, 0.25  # seconds between looks at bytes that do not suffice
_NOWHERE = Endpoint("0.0.0.0", 0)


def acceptor(core: Core, rules: ListenerRules) -> Accept:
    """What a listener does with each connection."""

    def accept(connection: Connection) -> None:
        Arrival(core, rules, connection).start()

    return accept


class Arrival:
    """A connection that has no filter chain yet."""

    def __init__(self, core: Core, rules: ListenerRules, connection: Connection):
        self._core, self._rules, self._sock = core, rules, connection.sock
        self._start = core.runtime.clock()
        source, destination = connection.source, connection.destination
        self._downstream = Downstream(Endpoint(*source) if source else _NOWHERE, Endpoint(*destination) if destination else _NOWHERE)
        self._header_due = rules.takes_proxy_header
        self._seen = 0
        self._delay = _FIRST_DELAY
        self._peeked = b""
        self._timer: asyncio.TimerHandle | None = None
        self._limit: Deadline | None = None
        self._reading = self._chosen = False
        self._fd = self._sock.fileno()
        self._told = 0
        """What `edges` said of the socket, which its next user will not be told."""

    def start(self) -> None:
        self._core.arriving.add(self)
        self._core.stats.inc(self._core.place(self._rules.name) + "downstream_cx_total")
        if not self._header_due:
            self._hand_over()
        self._patience = self._rules.timeout
        self._look()

    def close(self) -> None:
        """Give the connection up."""
        self._stop()
        self._give_up()

    def _give_up(self) -> None:
        self._core.edges.forget(self._fd)
        self._sock.close()

    # looking

    def _look(self) -> None:
        try:
            if self._header_due and not self._read_header():
                return
            data, ended = self._peek()
        except OSError:
            self.close()
            return
        try:
            self._inspect(data)
        except inspect.Incomplete:
            if ended:
                self._core.stats.inc(self._core.place(self._rules.name) + "downstream_listener_filter_remote_close")
                self.close()
            else:
                self._wait(len(data))
            return
        if data:
            self._told |= edges.READABLE
        self._choose()

    def _read_header(self) -> bool:
        """Take the PROXY header off, exactly; whether it was all there."""
        try:
            data = self._sock.recv(_PEEK, socket.MSG_PEEK)
        except BlockingIOError:
            self._wait(0)
            return False
        header = None
        if data:
            try:
                header = proxy_protocol.decode(data)
            except proxy_protocol.Malformed:
                data = b""
        if not data:
            self.close()
            return False
        if header is None:
            self._wait(len(data))
            return False
        self._sock.recv(header.size)
        self._peeked = data[header.size :]
        self._header_due = False
        self._seen, self._delay = 0, _FIRST_DELAY
        if header.source is not None and header.destination is not None:
            self._downstream.source, self._downstream.destination = Endpoint(*header.source), Endpoint(*header.destination)
            self._downstream.restored = True
        self._hand_over()
        return True

    def _hand_over(self) -> None:
        """The listener of the original destination takes a redirected connection."""
        if self._rules.restores_destination:
            self._downstream.restored = True
        if self._rules.config.use_original_dst:
            self._rules = self._core.runtime.handed_to(self._downstream.destination) or self._rules

    def _peek(self) -> tuple[bytes, bool]:
        """What has arrived, and whether that is all there will be."""
        if not (self._rules.inspects_tls or self._rules.inspects_http):
            return b"", False
        if self._peeked:  # behind the PROXY header
            data, self._peeked = self._peeked, b""
            return data, False
        try:
            data = self._sock.recv(_PEEK, socket.MSG_PEEK)
        except BlockingIOError:
            return b"", False
        return data, not data

    def _inspect(self, data: bytes) -> None:
        downstream, rules = self._downstream, self._rules
        if rules.inspects_tls:
            hello = inspect.client_hello(data)
            if hello is not None:
                downstream.transport, downstream.sni, downstream.alpn = TLS, hello.sni, hello.alpn
        if rules.inspects_http and downstream.transport == RAW:
            if not data:
                raise inspect.Incomplete
            version = inspection.http_protocol(data)
            if version is None:
                raise inspect.Incomplete
            if version:
                downstream.alpn = (version,)

    def _wait(self, size: int) -> None:
        """Look again when there can be more than `size` bytes."""
        if self._limit is None and self._patience:
            self._limit = self._core.deadlines.after(self._patience, self._too_slow)
        if edges.known:
            self._told = edges.ENDED  # maybe
            self._core.edges.watch(self._fd, self._on_edge)
            return
        if size == 0:
            if not self._reading:
                self._reading = True
                self._core.loop.add_reader(self._sock, self._on_readable)
            return
        self._unread()
        self._delay = _FIRST_DELAY if size > self._seen else min(self._delay * 2, _LONGEST_DELAY)
        self._seen = size
        self._timer = self._core.loop.call_later(self._delay, self._look)

    def _on_edge(self, _events: int) -> None:
        if not self._chosen:
            self._look()

    def _on_readable(self) -> None:
        self._unread()
        self._look()

    def _unread(self) -> None:
        if self._reading:
            self._reading = False
            self._core.loop.remove_reader(self._sock)

    def _too_slow(self) -> None:
        """The inspectors had their time."""
        self._core.stats.inc(self._core.place(self._rules.name) + "downstream_pre_cx_timeout")
        self._limit = None
        if self._rules.goes_on_after_timeout and not self._header_due:
            self._choose()
        else:
            self.close()

    def _stop(self) -> None:
        self._unread()
        for timer in (self._timer, self._limit):
            if timer is not None:
                timer.cancel()
        self._core.arriving.discard(self)

    # the chain

    def _choose(self) -> None:
        self._stop()
        self._chosen = True
        chain = self._rules.chain(self._downstream)
        if chain is None:
            self._core.stats.inc(self._core.place(self._rules.name) + "no_filter_chain_match")
            self._core.log(self._rules.no_chain(self._downstream, self._start), self._rules.loggers)
            self._give_up()
            return
        self._core.spawn(self._serve(chain))

    async def _serve(self, chain: Chain) -> None:
        core = self._core
        core.arriving.add(self)
        try:
            if chain.tls is None:
                protocol = self._protocol(chain, None)
                if isinstance(protocol, Relay) and not await protocol.reached():
                    self._give_up()  # with what the client sent unread, which makes it a reset
                elif isinstance(protocol, Relay) and edges.known:
                    Wire(core.loop, core.edges, self._sock, protocol, told=self._told)
                else:
                    await self._leave_to(protocol)
            else:
                await self._serve_tls(chain)
        except (OSError, NoSecret):
            self._give_up()
        finally:
            core.arriving.discard(self)

    async def _leave_to(self, protocol: asyncio.Protocol) -> None:
        """Give the socket to a transport of the event loop."""
        self._core.edges.forget(self._fd)
        await self._core.loop.connect_accepted_socket(lambda: protocol, self._sock)

    async def _serve_tls(self, chain: Chain) -> None:
        assert chain.tls is not None
        core = self._core
        prepared = core.tls.downstream(chain.tls)
        self._downstream.secure = True
        relay = Relay(core, chain, self._downstream) if chain.tcp is not None else None
        done: asyncio.Future[None] = core.loop.create_future()

        def ready(tls: TlsTransport) -> None:
            self._downstream.peer, self._downstream.local_uris = tls.peer(), tls.own_uris
            if not done.done():
                done.set_result(None)
            tls.start(relay or self._protocol(chain, tls.alpn or ""))

        def failed(error: HandshakeFailed) -> None:
            if relay is not None:
                relay.handshake_failed(error.reason, at_hello=error.at_hello)
            if not done.done():
                done.set_result(None)

        meter = core.stats.meter(core.place(self._rules.name) + "ssl.")
        tls = TlsTransport(prepared, server=True, meter=meter, on_ready=ready, on_failure=failed)
        if relay is not None:
            relay.begin(handshaking=True)  # a TCP proxy connects as soon as its chain is chosen, before the handshake is done
        await self._leave_to(tls)
        await done

    def _protocol(self, chain: Chain, alpn: str | None) -> asyncio.Protocol:
        if chain.http is None:
            return Relay(self._core, chain, self._downstream)
        kind = chain.http.config.codec_type
        if kind == "HTTP2" or (kind == "AUTO" and alpn == "h2"):
            return Http2Server(self._core, chain.http, self._downstream)
        if kind == "HTTP1" or (kind == "AUTO" and alpn):
            return Http1Server(self._core, chain.http, self._downstream)
        return Either(self._core, chain.http, self._downstream)


class Either(asyncio.Protocol):
    """A connection whose first bytes say which HTTP it speaks: the preface of HTTP/2, or anything else."""

    def __init__(self, core: Core, manager: Manager, downstream: Downstream):
        self._core, self.manager, self._downstream = core, manager, downstream
        self._lifetime = Lifetime(manager.limits, core.loop.time())
        self._data = b""
        self._transport: asyncio.Transport | None = None
        self._chosen: asyncio.Protocol | None = None

    @property
    def listener(self) -> str:
        return self.manager.listener

    @property
    def idle(self) -> bool:
        return True

    @property
    def spoken(self) -> bool:
        return False

    def ask_to_go(self) -> None:
        """Nobody is there yet who could be asked."""

    def retire(self) -> None:
        self.drain()

    def drain(self) -> None:
        if self._transport is not None and self._chosen is None:
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._core.connections.add(self)
        self._expiry = Expiry(self._core, self.manager, self._lifetime, self)

    def data_received(self, data: bytes) -> None:
        if self._chosen is not None:
            self._chosen.data_received(data)
            return
        self._data += data
        preface = inspection.PREFACE
        if preface.startswith(self._data[: len(preface)]) and len(self._data) < len(preface):
            return
        kind = Http2Server if self._data.startswith(preface) else Http1Server
        self._choose(kind(self._core, self.manager, self._downstream, self._lifetime))

    def _choose(self, protocol: asyncio.Protocol) -> None:
        self._chosen = protocol
        self._expiry.stop()
        self._core.connections.discard(self)
        assert self._transport is not None
        protocol.connection_made(self._transport)
        self._transport.set_protocol(protocol)
        protocol.data_received(self._data)

    def eof_received(self) -> bool | None:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._expiry.stop()
        self._core.connections.discard(self)

    def pause_writing(self) -> None:
        """Nothing is written before a protocol is chosen."""

    def resume_writing(self) -> None:
        """See pause_writing."""
