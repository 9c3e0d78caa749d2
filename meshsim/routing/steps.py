"""What an exchange asks its caller to do: the steps that come out of it (exchange.py), and a mirrored request."""

from __future__ import annotations

from dataclasses import dataclass

from meshsim.routing.clusters import Cluster, Host
from meshsim.routing.message import Request, Response
from meshsim.routing.transport import Transport


@dataclass(slots=True)
class Reply:
    """A response of the proxy's own. `close`: the connection ends with it."""

    response: Response
    body: bytes = b""
    close: bool = False


@dataclass(slots=True)
class Wait:
    """Do nothing for some seconds, then `resume`."""

    seconds: float


@dataclass(slots=True)
class Attempt:
    """Send the request to a host.

    request: the head as it goes out. http2: how. transport: TLS and PROXY header, if any. name: what a dynamic cluster must resolve first.
    per_try_timeout: seconds for this attempt, 0 for none.
    """

    cluster: Cluster
    host: Host
    request: Request
    http2: bool
    transport: Transport
    per_try_timeout: float = 0.0
    number: int = 1


@dataclass(slots=True)
class Forward:
    """The upstream's response, as the client gets it; the body follows as it comes."""

    response: Response


@dataclass(slots=True)
class Cut:
    """End the downstream stream: the response had begun."""


@dataclass(slots=True)
class Lookup:
    """Resolve a name, then `looked_up`: the cluster's hosts are what requests ask for."""

    name: str
    port: int


Step = Reply | Wait | Attempt | Forward | Cut | Lookup


@dataclass(slots=True)
class Mirror:
    """A copy of the request to send beside the real one; nobody waits for it."""

    cluster: Cluster
    request: Request
