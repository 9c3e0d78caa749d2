"""Where connections happen: the seam between a proxy and the machine it runs on.

How this works: a mesh has addresses of its own (10.244.1.10:15006, 151.101.65.67:443). A `Network` makes them real on this
machine, and a proxy, an external server or a client sees only the five things below; it cannot tell which network it is on.

    listen    take connections at a mesh address, or at a pipe (a path) where a redirected connection arrives
    connect   open a connection from a pod to a mesh address
    capture   open a connection as an application in a pod does: through its sidecar where it has one
    resolve   ask the mesh's DNS
    pod       the same five for one pod, so that its connections come from its address

Connections are plain non-blocking stream sockets, so that whoever uses one may peek, splice, or give it to any event loop
(`loop.create_connection(factory, sock=...)`, `loop.connect_accepted_socket(factory, sock)`). The mesh addresses of both
ends ride beside the socket, since the socket's own names mean nothing to the mesh on a network of Unix sockets.

A pipe carries redirected connections: each opens with a PROXY v2 header that holds the source and the *original*
destination. `listen` leaves that header unread, because it is the business of the listener's own `proxy_protocol` filter,
as on a real Envoy. At a mesh address there is nothing to read before the peer's first byte.

Failures are those of a real network: `ConnectionRefusedError` where nobody listens, `OSError` with EHOSTUNREACH or
ENETUNREACH where there is no way, and no answer at all (the call waits until it is cancelled) where packets are dropped.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol


class Address(NamedTuple):
    """An IP address (no name) and a port of the mesh; port 0 where any will do."""

    host: str
    port: int = 0

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only the pod itself can mean this address."""
        return self.host.startswith("127.") or self.host == "::1"

    @classmethod
    def parse(cls, text: str) -> Address:
        """`1.2.3.4:80` or `[2001:db8::1]:80`. Raises ValueError for anything else, names included."""
        host, colon, port = text.rpartition(":")
        if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
            raise ValueError(f"not an address and a port: {text!r}")
        bare = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
        return cls(str(ipaddress.ip_address(bare)), int(port))


class Connection(NamedTuple):
    """A connected, non-blocking stream socket, and who is at its ends as the mesh names them.

    `source` opened it, `destination` is where it was opened to; at a pipe both are unknown (None) until the PROXY header is read.
    The socket belongs to whoever receives it.
    """

    sock: socket.socket
    source: Address | None
    destination: Address | None


Accept = Callable[[Connection], None]
"""Called in the event loop for each new connection; takes the socket over. It must not raise."""


class Listening(Protocol):
    """A place where connections are taken."""

    accept: Accept
    """Who gets the next connection; may be replaced at any time (a listener that was updated takes the place over)."""

    def close(self) -> None:
        """Refuse connections from now on; those already given out live on. Closing twice is allowed."""


class Network(Protocol):
    """The machine's rendering of the mesh's addresses. One event loop uses one Network object."""

    async def listen(self, address: Address | str, accept: Accept, *, pod: str = "") -> Listening:
        """Take connections at a mesh address, or at the pipe of that path.

        `pod` is the address of the pod that listens, if one does. A loopback address is that pod's own. At its real address it is
        what the pod's proxy listens on, or the application of a pod without a sidecar; an application behind a sidecar
        listens on loopback.
        Raises OSError (EADDRINUSE) where another listens already.
        """

    async def connect(self, source: str, destination: Address) -> Connection:
        """Open a connection from the pod with address `source`, past its own sidecar (as its proxy does).

        A loopback address means the application behind the pod's sidecar; the pod's own address means what others reach there, its
        sidecar's inbound side where it has one (Istio's rule for a proxy that dials its own pod).
        Raises OSError as a real `connect` would; waits for ever where packets are dropped, so callers bring their own time limit.
        """

    async def capture(self, source: str, destination: Address) -> Connection:
        """Open a connection as an application in the pod would: it lands in the pod's sidecar, whatever the destination.

        Without a sidecar in that pod it is `connect`; and what a pod opens to itself is not redirected.
        """

    async def resolve(self, name: str, *, source: str = "") -> list[str]:
        """The addresses of an absolute name, in the order configured; empty when there is no such name.

        `source` is the pod that asks, past its DNS agent (as its proxy does). Where NetworkPolicies keep it from the cluster's DNS the
        answer is empty, at once: nobody needs to wait for a resolver's patience to end.
        """

    async def look_up(self, name: str, *, source: str) -> list[str]:
        """The same for an application in the pod: what the pod's DNS agent answers itself, where it has one, else `resolve`."""

    def pod(self, address: str) -> Pod:
        """The network as that pod sees it."""

    async def close(self) -> None:
        """Close every listener and let go of what this object made on the machine."""


class Pod(NamedTuple):
    """The network from inside one pod: what a proxy is given."""

    network: Network
    address: str

    async def listen(self, address: Address | str, accept: Accept) -> Listening:
        return await self.network.listen(address, accept, pod=self.address)

    def connect(self, destination: Address) -> Awaitable[Connection]:
        return self.network.connect(self.address, destination)

    def capture(self, destination: Address) -> Awaitable[Connection]:
        return self.network.capture(self.address, destination)

    def resolve(self, name: str) -> Awaitable[list[str]]:
        return self.network.resolve(name, source=self.address)

    def look_up(self, name: str) -> Awaitable[list[str]]:
        return self.network.look_up(name, source=self.address)
