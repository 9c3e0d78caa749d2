"""What every process of one mesh must agree on: names, virtual addresses, and which pods are captured.

How this works: the mesh writes one small JSON file into its run folder and replaces it by rename. Every process holds a
`Reader`, which looks at the file's stamp before each question and reads again when it changed: a name added to a running
mesh resolves at once, everywhere. In one process the file is still the truth, so that both arrangements behave alike.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from meshsim.resources.interception import Interception
from meshsim.resources.network_policy import Walls
from meshsim.xds.name_table import NameTable

FILE = "directory.json"


class Capture(msgspec.Struct, omit_defaults=True):
    """Where a pod's traffic is redirected to, as iptables does in a real pod.

    outbound: the pipe that takes what the pod's applications open; empty for a pod without a sidecar.
    inbound: the pipe that takes what others open to the pod.
    interception: what of both goes there after all, by the pod's annotations.
    nameserver: the address whose port 53 is redirected to the pod's DNS agent; empty for a pod without one.
    """

    outbound: str = ""
    inbound: str = ""
    interception: Interception = Interception()
    nameserver: str = ""


class Directory(msgspec.Struct, omit_defaults=True):
    """Names (absolute, lower case, no final dot) to addresses; virtual `ip:port` to the places behind it; pods by address; the
    walls that NetworkPolicies put around pods. datagrams: those of `services` that are for UDP. dns: the pods that answer as the cluster's
    DNS, and nameserver: the address where they are asked. agents: what the DNS agents of pods answer themselves, by the pod's address."""

    names: dict[str, list[str]] = {}
    services: dict[str, list[str]] = {}
    pods: dict[str, Capture] = {}
    walls: Walls = Walls()
    datagrams: list[str] = []
    dns: list[str] = []
    nameserver: str = ""
    agents: dict[str, NameTable] = {}

    def known(self, name: str, pod: str) -> list[str] | None:
        """The addresses that the pod's DNS agent answers an absolute name with; None where it asks further, or there is no agent."""
        found = self.agents[pod].find(name) if pod in self.agents else None
        return found.addresses if found is not None else None

    def resolve(self, name: str) -> list[str]:
        """The addresses of an absolute name, or of the closest `*.` wildcard above it; empty for an unknown one (NXDOMAIN)."""
        name = name.lower().rstrip(".")
        found = self.names.get(name)
        while found is None and "." in name:
            name = name.partition(".")[2]
            found = self.names.get(f"*.{name}")
        return list(found or ())


class Reader:
    """The directory as it is now."""

    def __init__(self, folder: Path):
        self._path = folder / FILE
        self._stamp: tuple[int, int] | None = None
        self._current = Directory()
        self._decoder = msgspec.json.Decoder(Directory)

    def current(self) -> Directory:
        try:
            stat = os.stat(self._path)
        except FileNotFoundError:
            return self._current
        stamp = (stat.st_ino, stat.st_mtime_ns)
        if stamp != self._stamp:
            self._current = self._decoder.decode(self._path.read_bytes())
            self._stamp = stamp
        return self._current


def write(folder: Path, directory: Directory) -> None:
    """Replace the run folder's directory; readers see the old one or the new one, never a part."""
    temporary = folder / f".{FILE}.{os.getpid()}"
    temporary.write_bytes(msgspec.json.format(msgspec.json.encode(directory), indent=1))
    temporary.replace(folder / FILE)
