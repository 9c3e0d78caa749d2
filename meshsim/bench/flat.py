"""A mesh's addresses on 127.0.0.0/8, so that both engines talk over the same plain TCP without any rights.

How this works: each address of the mesh becomes one of this run's own 127.x.y.z, with the same port where that is not privileged.
`rehouse` puts those into placed xds: where to listen, and where hosts are; names become what DNS would have said. Filter chains still
match the mesh's own addresses, because a captured connection brings them in its PROXY header. Linux answers on all of 127.0.0.0/8;
elsewhere the bench refuses to run.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import itertools
import os
import socket
from collections.abc import Iterator, Mapping, Sequence

from meshsim import xds
from meshsim.errors import MeshsimError
from meshsim.network.base import Accept, Address, Connection, Listening, Pod
from meshsim.xds.endpoint import ClusterLoadAssignment
from meshsim.xds.message import SocketAddress

_RAISED = 20000  # added to privileged ports
_PRIVILEGED = 1024
_BACKLOG = 1024
_MADE = itertools.count()
_BIND_NO_PORT = 24  # IP_BIND_ADDRESS_NO_PORT, which Python does not name
_NAMED = ("STRICT_DNS", "LOGICAL_DNS")


class Unreachable(MeshsimError):
    """A cluster whose hosts the bench cannot stand in for."""


class Flat:
    """The addresses of one run. names: what DNS knows. services: the places behind each `ip:port` of a Service."""

    def __init__(self, names: Mapping[str, Sequence[str]], services: Mapping[str, Sequence[str]]):
        self._names, self._services = names, services
        self._base = int(ipaddress.IPv4Address("127.0.0.0")) + (1 + (os.getpid() * 8 + next(_MADE)) % 65000) * 256
        self._given: dict[str, str] = {}

    def another(self) -> Flat:
        """One that knows every address given out so far, and gives others of its own: two engines' pods must not meet."""
        made = Flat(self._names, self._services)
        made._given.update(self._given)
        made._base += len(self._given)
        return made

    def host(self, address: str) -> str:
        """This machine's address for a mesh address."""
        if address not in self._given:
            self._given[address] = str(ipaddress.IPv4Address(self._base + 1 + len(self._given)))
        return self._given[address]

    def place(self, address: str, port: int) -> tuple[str, int]:
        """Where an address and port of the mesh (or a name) really are."""
        if not _is_address(address):
            found = self._names.get(address.lower())
            if not found:
                raise Unreachable(f"nothing is known of {address}; the mesh needs an ExternalServer of that name")
            address = found[0]
        behind = self._services.get(f"{address}:{port}")
        if behind:
            address, _, number = behind[0].rpartition(":")
            port = int(number)
        return self.host(address), port + _RAISED if port < _PRIVILEGED else port

    def rehouse(self, placed: xds.ProxyConfig) -> xds.ProxyConfig:
        """A placed configuration with this machine's addresses. It is a copy: what is placed shares its parts with other engines' hops."""
        config = xds.decode(xds.encode(placed))
        for listener in config.listeners:
            at = listener.address.socket_address
            if at is not None and listener.bind_to_port is not False and not at.address.startswith("127."):
                self._move(at)
        for cluster in config.clusters:
            if cluster.load_assignment is not None and cluster.type in (*_NAMED, "STATIC"):
                for at in _places(cluster.load_assignment):
                    self._move(at)
                if cluster.type in _NAMED:
                    cluster.type, cluster.dns_lookup_family = "STATIC", "AUTO"
                    cluster.dns_refresh_rate = cluster.dns_jitter = None
                    cluster.respect_dns_ttl = False
        for assignment in config.endpoints:
            for at in _places(assignment):
                self._move(at)
        return config

    def _move(self, at: SocketAddress) -> None:
        if not at.address.startswith("127."):
            at.address, at.port_value = self.place(at.address, at.port_value)


def _places(assignment: ClusterLoadAssignment) -> Iterator[SocketAddress]:
    for locality in assignment.endpoints:
        for host in locality.lb_endpoints:
            if host.endpoint.address.socket_address is not None:
                yield host.endpoint.address.socket_address


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


class FlatNetwork:
    """`base.Network` over plain TCP, for the asyncio engine: what a real Envoy does with the same rehoused configuration."""

    def __init__(self) -> None:
        self._servers: list[_Listening] = []

    async def listen(self, address: Address | str, accept: Accept, *, pod: str = "") -> Listening:
        listening = _Listening(address, accept)
        self._servers.append(listening)
        return listening

    async def connect(self, source: str, destination: Address) -> Connection:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if source.startswith("127."):
                sock.setsockopt(socket.IPPROTO_IP, _BIND_NO_PORT, 1)
                sock.bind((source, 0))
            if not _at_once(sock, destination):
                await asyncio.get_running_loop().sock_connect(sock, destination)
        except BaseException:
            sock.close()
            raise
        return Connection(sock, Address(*sock.getsockname()[:2]), destination)

    async def capture(self, source: str, destination: Address) -> Connection:
        return await self.connect(source, destination)

    async def resolve(self, name: str, *, source: str = "") -> list[str]:
        return []

    async def look_up(self, name: str, *, source: str) -> list[str]:
        return []

    def pod(self, address: str) -> Pod:
        return Pod(self, address)

    async def close(self) -> None:
        for server in self._servers:
            server.close()


def _at_once(sock: socket.socket, place: Address) -> bool:
    """Connect. On this machine's own addresses that is done when the first call returns, which cannot say so yet: the second does."""
    return sock.connect_ex(place) == errno.EINPROGRESS and sock.connect_ex(place) == 0


class _Listening:
    def __init__(self, address: Address | str, accept: Accept):
        self.accept = accept
        self._loop = asyncio.get_running_loop()
        if isinstance(address, str):
            self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._sock.bind(address)
            os.chmod(address, 0o600)
        else:
            self._sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._sock.bind((address.host, address.port))
        self._is_pipe = isinstance(address, str)
        self._sock.setblocking(False)
        self._sock.listen(_BACKLOG)
        self._loop.add_reader(self._sock, self._take)

    def _take(self) -> None:
        while True:
            try:
                sock, peer = self._sock.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            sock.setblocking(False)
            if self._is_pipe:
                self.accept(Connection(sock, None, None))
            else:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.accept(Connection(sock, Address(*peer[:2]), Address(*sock.getsockname()[:2])))

    def close(self) -> None:
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock)
            self._sock.close()
