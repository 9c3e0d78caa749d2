"""A network of namespaces: every pod has a real address, its traffic is redirected by the kernel, any client is captured.

How this works: the mesh's main process enters namespaces of its own (namespaces.py) and becomes the *node*: it forwards
between a bridge that every pod hangs on and the *world*, a namespace that owns every other address. A pod has its address
as /32 and sends everything to the node, so Service addresses can be translated there and return on the same way:

    pod eth0 10.244.1.10/32 ──┐
    pod eth0 10.244.0.20/32 ──┴─ br0 [node: forwards, Service dnat] w0 ── w1 [world: any address is local]

`Node` builds this from the run folder's directory and keeps it up to date; `NetnsNetwork` implements `base.Network` in any
process of the mesh, which finds the namespaces in the file that the node wrote. An address of the world that no server
listens on refuses, as it does on the loopback network.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import struct
from pathlib import Path

import msgspec

from meshsim.errors import MeshsimError
from meshsim.network import namespaces, netfilter
from meshsim.network.accepting import Acceptor
from meshsim.network.base import Accept, Address, Connection, Pod
from meshsim.network.directory import Capture, Directory, Reader
from meshsim.network.namespaces import Namespace
from meshsim.resources.network_policy import Walls

FILE = "namespaces.json"
GATEWAY = "169.254.1.1"  # the node as pods see it; link-local, so that no pod's address can collide
_NODE_END, _WORLD_END = "169.254.2.1", "169.254.2.2"
_GATEWAY_MAC = "02:00:a9:fe:01:01"  # fixed: a bridge without one takes the lowest of its ports', and pods would go on sending to the old
_BACKLOG = 1024
_SO_ORIGINAL_DST = 80
_IP_FREEBIND, _IP_TRANSPARENT = 15, 19
_SO_MARK = 36
_ETH_P_ALL = 3


class Places(msgspec.Struct, omit_defaults=True):
    """Where the other processes find the namespaces: paths below the node's own /proc entry."""

    node: str
    world: str
    pods: dict[str, str] = {}


class Node:
    """Makes the namespaces and the wires between them. Lives in the mesh's main process, inside `namespaces.enter()`.

    Raises MeshsimError outside: what it would change is the machine's.
    """

    def __init__(self, folder: Path):
        if not namespaces.entered():
            raise MeshsimError(
                "network netns: this program has to enter namespaces of its own, before it starts a thread:"
                " meshsim.network.choice.enter('netns')"
            )
        self._folder = folder
        self._home = namespaces.current()
        self._world = namespaces.new(self._home)
        self._pods: dict[str, Namespace] = {}
        self._captures: dict[str, Capture] = {}
        self._services: dict[str, list[str]] = {}
        self._datagrams: list[str] = []
        self._walls = Walls()
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        Path("/proc/sys/net/ipv4/conf/all/send_redirects").write_text("0")
        Path("/proc/sys/net/ipv4/conf/default/send_redirects").write_text("0")
        _ip(
            f"link add br0 address {_GATEWAY_MAC} type bridge",
            f"addr add {GATEWAY}/32 dev br0",
            "link set br0 up",
            f"link add w0 type veth peer name w1 netns {self._world.path}",
            f"addr add {_NODE_END}/30 dev w0",
            "link set w0 up",
        )
        with self._world.inside(self._home):
            _ip(
                "link set lo up",
                f"addr add {_WORLD_END}/30 dev w1",
                "link set w1 up",
                f"route add {_NODE_END} dev w1 table local",  # every other address is the world's own, the pods' excepted
                "route add local default dev lo table local",
            )
        _ip(f"route add default via {_WORLD_END}")

    def update(self, directory: Directory) -> None:
        """Make what the directory has and the kernel has not: pods, their capture rules, Service addresses, NetworkPolicies.

        A pod that went away leaves its namespace and wires behind: the next pod with its
        address takes them over, and whoever has the namespace open still has the right one.

        Raises OSError with the kernel's or the tool's words.
        """
        fresh = {}
        for address in directory.pods:
            if ":" in address:
                raise OSError(errno.EAFNOSUPPORT, f"pod address {address}: the netns network has IPv4 only")
            if address not in self._pods:
                fresh[address] = self._pods[address] = namespaces.new(self._home)
        _ip(*(line for address, pod in fresh.items() for line in _pod_wires(address, pod)))
        with self._world.inside(self._home):
            _ip(*(f"route add {address} via {_NODE_END} dev w1 table local" for address in fresh))
        for address, captured in directory.pods.items():
            if self._captures.get(address) == captured:
                continue
            with self._pods[address].inside(self._home):
                if address in fresh:
                    _ip(
                        "link set lo up",
                        f"addr add {address}/32 dev eth0",
                        "link set eth0 up",
                        f"route add default via {GATEWAY} dev eth0 onlink",
                    )
                rules = netfilter.capture(captured)
                if rules or address in self._captures:
                    namespaces.run("nft", "-f", "-", text=rules or "flush ruleset")
            self._captures[address] = captured
        if directory.services != self._services or directory.datagrams != self._datagrams:
            namespaces.run("nft", "-f", "-", text=netfilter.services(directory.services, directory.datagrams))
            self._services, self._datagrams = dict(directory.services), list(directory.datagrams)
        if directory.walls != self._walls:
            namespaces.run("nft", "-f", "-", text=netfilter.walls(directory.walls) or netfilter.NO_WALLS)
            self._walls = directory.walls
        self._write(directory)

    def _write(self, directory: Directory) -> None:
        places = Places(self._home.path, self._world.path, {a: n.path for a, n in self._pods.items() if a in directory.pods})
        temporary = self._folder / f".{FILE}"
        temporary.write_bytes(msgspec.json.encode(places))
        temporary.replace(self._folder / FILE)

    def close(self) -> None:
        """Let go of every namespace. The kernel removes each after its last process and socket is gone; its wire goes now, so
        that another mesh of this process can have the address; and so do the node's rules, or it would stand behind this one's walls.
        """
        if self._services or self._walls != Walls():
            namespaces.run("nft", "-f", "-", text="flush ruleset\n")
        wires = [_wire(address) for address in self._pods]
        for pod in self._pods.values():
            pod.close()
        self._pods.clear()
        self._world.close()
        for link in ("br0", "w0", *wires):
            with contextlib.suppress(OSError):  # the kernel may have taken it already, with the namespace at its other end
                _ip(f"link del {link}")
        self._home.close()
        (self._folder / FILE).unlink(missing_ok=True)


class NetnsNetwork:
    """Implements `base.Network` on a `Node`'s namespaces, in the node's process or in any other of the mesh.

    Its thread is the only one that may use it; between calls the thread is in the namespace where it started.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._reader = Reader(folder)
        self._home = namespaces.current()
        self._open: dict[str, Namespace] = {}
        self._listening: set[_Listening] = set()

    @property
    def directory(self) -> Directory:
        return self._reader.current()

    async def listen(self, address: Address | str, accept: Accept, *, pod: str = "") -> _Listening:
        if isinstance(address, str):
            raise OSError(errno.EAFNOSUPPORT, f"{address}: redirected connections arrive at a port here, not at a pipe")
        with self._namespace(pod).inside(self._home):
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if not pod:
                sock.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
            sock.bind(address)
            sock.listen(_BACKLOG)
        except BaseException:
            sock.close()
            raise
        listening = _Listening(self, sock, accept)
        self._listening.add(listening)
        return listening

    async def connect(self, source: str, destination: Address) -> Connection:
        pod = self._place(source)
        return await self._dial(pod, source, destination, mark=bool(pod))

    async def capture(self, source: str, destination: Address) -> Connection:
        return await self._dial(self._place(source), source, destination)

    async def resolve(self, name: str, *, source: str = "") -> list[str]:
        return [] if self.directory.walls.blocking_dns(source) else self.directory.resolve(name)

    async def look_up(self, name: str, *, source: str) -> list[str]:
        known = self.directory.known(name, source)
        return known if known is not None else await self.resolve(name, source=source)

    def pod(self, address: str) -> Pod:
        return Pod(self, address)

    def tap(self, pod: str) -> socket.socket:
        """A non-blocking packet socket that hears all of a pod's interfaces. Raises OSError for an address that is no pod's."""
        with self._namespace(pod).inside(self._home):
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL))
        sock.setblocking(False)
        return sock

    def datagrams(self, address: Address, *, pod: str = "", mark: bool = False) -> socket.socket:
        """A non-blocking UDP socket at an address of a pod, or of the world. mark: it is the pod's sidecar's own, past capture.

        Raises OSError for a pod that is not there.
        """
        with self._namespace(pod).inside(self._home):
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            if not pod:
                sock.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
            if mark:
                sock.setsockopt(socket.SOL_SOCKET, _SO_MARK, netfilter.MARK)
            sock.bind(address)
        except BaseException:
            sock.close()
            raise
        return sock

    def namespace(self, pod: str) -> Namespace:
        """The namespace of a pod, for a program to start in. Raises OSError (EHOSTUNREACH) for an address that is no pod's."""
        return self._namespace(pod)

    async def close(self) -> None:
        for listening in list(self._listening):
            listening.close()
        for namespace in self._open.values():
            namespace.close()
        self._open.clear()
        self._home.close()

    def _place(self, source: str) -> str:
        """The pod with that address; anything else is an address of the world."""
        return source if source in self.directory.pods else ""

    async def _dial(self, pod: str, source: str, destination: Address, *, mark: bool = False) -> Connection:
        with self._namespace(pod).inside(self._home):
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            if mark:
                sock.setsockopt(socket.SOL_SOCKET, _SO_MARK, netfilter.MARK)
            if not pod:
                sock.setsockopt(socket.IPPROTO_IP, _IP_TRANSPARENT, 1)
            if not pod or (mark and destination.is_loopback):  # an application sees who its sidecar speaks for: the pod
                sock.bind((source, 0))
            await asyncio.get_running_loop().sock_connect(sock, destination)
            return Connection(sock, Address(source, sock.getsockname()[1]), destination)
        except BaseException:
            sock.close()
            raise

    def _namespace(self, pod: str) -> Namespace:
        if pod not in self._open:
            places = msgspec.json.decode((self.folder / FILE).read_bytes(), type=Places)
            path = places.pods.get(pod) if pod else places.world
            if path is None:
                raise OSError(errno.EHOSTUNREACH, f"no pod has the address {pod}")
            self._open[pod] = Namespace(path)
        return self._open[pod]


class _Listening:
    """One bound socket."""

    def __init__(self, network: NetnsNetwork, sock: socket.socket, accept: Accept):
        self.accept = accept
        self._network = network
        self._acceptor = Acceptor(sock, self._take)

    def close(self) -> None:
        self._acceptor.close()
        self._network._listening.discard(self)

    def _take(self, sock: socket.socket, peer: tuple[str, int]) -> None:
        try:
            destination = original_destination(sock)
        except OSError:  # the peer is gone already
            sock.close()
            return
        self.accept(Connection(sock, Address(*peer[:2]), destination))


def original_destination(sock: socket.socket) -> Address:
    """Where the peer meant to connect to, before the kernel redirected it; its own address where nothing did."""
    try:
        raw = sock.getsockopt(socket.SOL_IP, _SO_ORIGINAL_DST, 16)
    except OSError as e:
        if e.errno not in (errno.ENOENT, errno.ENOPROTOOPT):
            raise
        return Address(*sock.getsockname()[:2])
    port, packed = struct.unpack_from("!2xH4s", raw)
    return Address(socket.inet_ntoa(packed), port)


def _wire(address: str) -> str:
    """The node's end of a pod's wire."""
    return "p" + socket.inet_aton(address).hex()


def _pod_wires(address: str, pod: Namespace) -> tuple[str, ...]:
    name = _wire(address)
    return (
        f"link add {name} type veth peer name eth0 netns {pod.path}",
        f"link set {name} master br0 up",
        f"route add {address}/32 dev br0",
    )


def _ip(*lines: str) -> None:
    """One `ip` process for all the lines, in the thread's current namespace."""
    if lines:
        namespaces.run("ip", "-batch", "-", text="\n".join(lines) + "\n")


def available(folder: Path) -> bool:
    """Whether a node has built namespaces for this run folder."""
    return os.path.exists(folder / FILE)
