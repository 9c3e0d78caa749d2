"""What a live golden case runs on: Unix sockets, new for each case, or one node of namespaces that all cases of a process share.

How this works: the recorder's pods were captured whatever the destination, their own address included, which a sidecar's rules do not
do. `redirect` does; in namespaces a table of its own in the pod sees to it, before the sidecar's.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Protocol

from meshsim.network import directory, namespaces, netfilter
from meshsim.network.base import Address, Connection, Network
from meshsim.network.choice import LOOPBACK, NETNS
from meshsim.network.loopback import LoopbackNetwork
from meshsim.network.namespaces import Namespace
from meshsim.network.netns import NetnsNetwork, Node

NETWORKS = (LOOPBACK, NETNS)


class Machine(Protocol):
    """A network, and how to reach what the mesh's directory says about it."""

    network: Network
    pipes: bool

    def update(self, plan: directory.Directory) -> None:
        """Make the network as the plan says."""

    async def redirect(self, source: str, destination: Address) -> Connection:
        """Open a connection that lands in the pod's sidecar whatever the destination."""


class OnSockets:
    """Unix sockets in a case's folder."""

    pipes = True

    def __init__(self, folder: Path):
        self._folder = folder
        self.network = LoopbackNetwork(folder)

    def update(self, plan: directory.Directory) -> None:
        directory.write(self._folder, plan)

    async def redirect(self, source: str, destination: Address) -> Connection:
        return await self.network.redirect(source, destination)


class InNamespaces:
    """A case's view of the node that this process, which has entered namespaces, keeps for all of them."""

    pipes = False

    def __init__(self) -> None:
        self._node, self._home, self._folder = _node()
        self.network = NetnsNetwork(self._folder)

    def update(self, plan: directory.Directory) -> None:
        directory.write(self._folder, plan)
        self._node.update(plan)
        for address, pod in plan.pods.items():
            if pod.outbound:
                with self.network.namespace(address).inside(self._home):
                    namespaces.run("nft", "-f", "-", text=_own_address_too(address))

    async def redirect(self, source: str, destination: Address) -> Connection:
        return await self.network.capture(source, destination)


def machine(network: str, folder: Path) -> Machine:
    """One for a case whose files go to `folder`."""
    return InNamespaces() if network == NETNS else OnSockets(folder)


@cache
def _node() -> tuple[Node, Namespace, Path]:
    folder = Path(tempfile.mkdtemp(prefix="msim-", dir="/tmp"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Node(folder), namespaces.current(), folder


def _own_address_too(pod: str) -> str:
    rule = f"meta mark != {netfilter.MARK} ip saddr {pod} ip daddr {pod} meta l4proto tcp redirect to :{netfilter.OUTBOUND_PORT}"
    body = f"chain output {{ type nat hook output priority -101; {rule}; }}"
    return f"table ip recorder {{}}\ndelete table ip recorder\ntable ip recorder {{\n{body}\n}}\n"
