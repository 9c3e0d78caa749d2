"""A network of Unix sockets: works everywhere, needs no rights, and nothing of it is reachable from another machine or user.

How this works: every mesh address:port is a Unix socket in the run folder (mode 0700), named so that `ls` shows who listens. Whoever
connects first sends a PROXY v2 header with the mesh addresses of both ends, and `listen` takes it off again before it gives the
connection out. What iptables and kube-proxy do in a cluster is looked up in the run folder's directory file: a service's
virtual address becomes a place behind it, and a captured pod's traffic goes to its sidecar's pipe.

A socket that no process listens on refuses, so a killed proxy refuses connections exactly as a killed process does.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import itertools
import os
import random
import socket
import stat
from pathlib import Path

from meshsim.network import dns, proxy_protocol
from meshsim.network.accepting import Acceptor
from meshsim.network.base import Accept, Address, Connection, Pod
from meshsim.network.directory import Directory, Reader

BACKLOG = 1024
HEADER_TIMEOUT = 10.0  # seconds for the peer's PROXY header; it is sent together with the connection
MAX_PATH = 103  # bytes of a socket's path that macOS takes (104 with the final NUL; Linux takes 107)
FIRST_PORT, LAST_PORT = 32768, 60999  # Linux' default range of ephemeral ports
CONNECT_PATIENCE = 127.0  # seconds until Linux gives up a connection whose six SYNs nobody answered

_LOCALHOST = "127.0.0.1"
_BUSY_DELAY = 0.001  # seconds between attempts while the listener's backlog is full


class LoopbackNetwork:
    """Implements `base.Network` in a folder.

    Several processes may each hold one on the same folder. `seed` chooses among several places behind a service.
    """

    def __init__(self, folder: Path, *, seed: int = 0):
        self.folder = folder
        self._sockets = folder / "n"
        self._sockets.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._reader = Reader(folder)
        self._listening: set[_Listening] = set()
        self._ports = itertools.cycle(range(FIRST_PORT + os.getpid() % 1024, LAST_PORT))
        self._rng = random.Random(seed)

    @property
    def directory(self) -> Directory:
        return self._reader.current()

    def path(self, address: Address, pod: str = "") -> str:
        """The socket's path for a mesh address; a loopback address is named by its pod (`10.244.1.10@8080`)."""
        name = f"{pod}@{address.port}" if address.is_loopback else str(address)
        return short_path(self._sockets, name)

    async def listen(self, address: Address | str, accept: Accept, *, pod: str = "") -> _Listening:
        if isinstance(address, str):
            listening = _Listening(self, address, None, accept)
        else:
            listening = _Listening(self, self.path(address, pod), address, accept)
        self._listening.add(listening)
        return listening

    async def connect(self, source: str, destination: Address) -> Connection:
        directory = self.directory
        behind = directory.services.get(str(destination))
        if behind:
            destination = Address.parse(behind[0] if len(behind) == 1 else self._rng.choice(behind))
        if destination.is_loopback:
            return await self._inside(source, destination)
        if directory.walls.blocking(source, destination.host, destination.port):
            await _dropped(destination)
        return await self._reach(self._entrance(destination), source, destination)

    async def capture(self, source: str, destination: Address) -> Connection:
        capture = self.directory.pods.get(source)
        if capture and capture.nameserver and destination == Address(capture.nameserver, dns.DNS_PORT):
            return await self._inside(source, dns.AGENT)
        if destination.is_loopback:
            return await self._inside(source, destination, _LOCALHOST)
        if not capture or not capture.outbound:
            return await self.connect(source, destination)
        if destination.host == source:
            return await self._inside(source, destination)
        if capture.interception.passes_out(destination.host, destination.port):
            return await self.connect(source, destination)
        return await self.redirect(source, destination)

    async def redirect(self, source: str, destination: Address) -> Connection:
        """Open a connection that lands in the pod's sidecar whatever the destination, its own address too."""
        capture = self.directory.pods.get(source)
        if capture is None or not capture.outbound:
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"pod {source} has no sidecar")
        return await self._reach(capture.outbound, source, destination)

    def _entrance(self, destination: Address) -> str:
        """Who takes a connection to this address: a sidecar, whoever listens there, or the application that it leaves the port to."""
        capture = self.directory.pods.get(destination.host)
        if not capture or not capture.inbound:
            return self.path(destination)
        if capture.interception.passes_in(destination.port):
            return self.path(Address(_LOCALHOST, destination.port), destination.host)
        return capture.inbound

    async def _inside(self, pod: str, destination: Address, source: str = "") -> Connection:
        """To the application behind the pod's sidecar, which sees the pod's address or that `source`."""
        return await self._reach(self.path(Address(_LOCALHOST, destination.port), pod), source or pod, destination)

    async def _reach(self, path: str, source: str, destination: Address) -> Connection:
        try:
            return await self._dial(path, Address(source, next(self._ports)), destination)
        except FileNotFoundError:
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"nothing listens on {destination}") from None

    async def resolve(self, name: str, *, source: str = "") -> list[str]:
        directory = self.directory
        return [] if directory.walls.blocking_dns(source) else directory.resolve(name)

    async def look_up(self, name: str, *, source: str) -> list[str]:
        known = self.directory.known(name, source)
        return known if known is not None else await self.resolve(name, source=source)

    def pod(self, address: str) -> Pod:
        return Pod(self, address)

    async def close(self) -> None:
        for listening in list(self._listening):
            listening.close()

    async def _dial(self, path: str, source: Address, destination: Address) -> Connection:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            while True:
                try:
                    sock.connect(path)
                    break
                except BlockingIOError:  # the backlog is full; a Unix socket has no "in progress"
                    await asyncio.sleep(_BUSY_DELAY)
            sock.send(proxy_protocol.encode(source, destination))  # fits into the empty buffer of a new socket
        except BaseException:
            sock.close()
            raise
        return Connection(sock, source, destination)


class _Listening:
    """One bound socket and its accept loop. `address` None: a pipe, whose header the receiver reads."""

    def __init__(self, network: LoopbackNetwork, path: str, address: Address | None, accept: Accept):
        self.accept = accept
        self._network, self._path, self._address = network, path, address
        self._loop = asyncio.get_running_loop()
        self._waiting: set[_HeaderReader] = set()
        self._acceptor = Acceptor(_bind(path), self._take)
        self._inode = os.stat(path).st_ino

    def close(self) -> None:
        if not self._acceptor.is_open:
            return
        self._acceptor.close()
        for reader in list(self._waiting):
            reader.abandon()
        self._network._listening.discard(self)
        try:
            if os.stat(self._path).st_ino == self._inode:
                os.unlink(self._path)
        except FileNotFoundError:
            pass

    def _take(self, sock: socket.socket, peer: object) -> None:
        if self._address is None:
            self.accept(Connection(sock, None, None))
        else:
            _HeaderReader(self, sock)


class _HeaderReader:
    """Takes the PROXY header off a new connection, then gives the connection out."""

    def __init__(self, listening: _Listening, sock: socket.socket):
        self._listening, self._sock, self._data = listening, sock, b""
        self._timer: asyncio.TimerHandle | None = None
        self._read()

    def _read(self) -> None:
        try:
            while True:
                header = proxy_protocol.decode(self._data)
                if header is not None:
                    break
                size = 16 if len(self._data) < 16 else 16 + int.from_bytes(self._data[14:16], "big")
                more = self._sock.recv(size - len(self._data))
                if not more:
                    return self.abandon()
                self._data += more
        except BlockingIOError:
            return self._wait()
        except (OSError, ValueError):
            return self.abandon()
        self._stop()
        self._listening.accept(Connection(self._sock, header.source, header.destination))
        return None

    def _wait(self) -> None:
        if self._timer is None:
            loop = self._listening._loop
            self._timer = loop.call_later(HEADER_TIMEOUT, self.abandon)
            loop.add_reader(self._sock, self._read)
            self._listening._waiting.add(self)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._listening._loop.remove_reader(self._sock)
            self._listening._waiting.discard(self)

    def abandon(self) -> None:
        self._stop()
        self._sock.close()


async def _dropped(destination: Address) -> None:
    """What the sender of packets that nobody answers sees: nothing, until its system gives up."""
    await asyncio.sleep(CONNECT_PATIENCE)
    raise TimeoutError(errno.ETIMEDOUT, f"no answer from {destination}")


def short_path(folder: Path, name: str) -> str:
    """The path of a socket called `name`, or of a digest of that where the name is too long for a socket's path.

    Raises OSError (ENAMETOOLONG) where the folder itself leaves no room.
    """
    path = str(folder / name)
    if len(os.fsencode(path)) > MAX_PATH:
        path = str(folder / hashlib.sha256(name.encode()).hexdigest()[:16])
    if len(os.fsencode(path)) > MAX_PATH:
        raise OSError(errno.ENAMETOOLONG, f"{folder} is too long a path for Unix sockets; choose a run folder with a shorter one")
    return path


def _bind(path: str) -> socket.socket:
    """A listening socket at `path`; what a killed process left there is replaced."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        try:
            sock.bind(path)
        except OSError as e:
            if e.errno != errno.EADDRINUSE or not _is_dead(path):
                raise
            os.unlink(path)
            sock.bind(path)
        os.chmod(path, stat.S_IRUSR | stat.S_IWUSR)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _is_dead(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.setblocking(False)
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
        return False
