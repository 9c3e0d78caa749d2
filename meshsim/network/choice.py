"""Which network a mesh runs on: namespaces with real addresses where the machine has them, Unix sockets elsewhere.

`enter` must be called first thing in a program, while it has one thread: entering namespaces has no way back. `of_folder` is for the other
processes of a mesh, which find in the run folder what was chosen.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from meshsim.network import namespaces, netns
from meshsim.network.loopback import LoopbackNetwork
from meshsim.network.netns import NetnsNetwork

LOOPBACK, NETNS, AUTO = "loopback", "netns", "auto"
_BECAUSE = ", because "
KINDS = (AUTO, LOOPBACK, NETNS)


class Choice(NamedTuple):
    """The network chosen, and one line that says why."""

    kind: str
    reason: str

    @property
    def missing(self) -> str:
        """What kept the machine from having the other one, if something did."""
        return self.reason.partition(_BECAUSE)[2]


def enter(wanted: str) -> Choice:
    """Choose, and move this process into namespaces of its own if that is the choice.

    Raises NamespacesUnavailable where `netns` was asked for and cannot be had; the text says what to install or set.
    """
    if wanted == LOOPBACK:
        return Choice(LOOPBACK, "network: loopback, Unix sockets; applications come in by ALL_PROXY")
    missing = namespaces.unavailable()
    if missing and wanted == AUTO:
        return Choice(LOOPBACK, f"network: loopback{_BECAUSE}{missing}")
    namespaces.enter()  # says itself what is missing
    return Choice(NETNS, "network: netns, a network namespace for each pod; any program is captured")


def of_folder(folder: Path, seed: int = 0) -> LoopbackNetwork | NetnsNetwork:
    """The network of the mesh whose run folder this is."""
    return NetnsNetwork(folder) if netns.available(folder) else LoopbackNetwork(folder, seed=seed)
