"""What an older Istio did otherwise, where pages written for it rely on that.

How this works: an `Era` is data, and those who act on it ask for one of its fields: the control plane how it compiles, the default mesh
which ports its gateway has. A mesh says its era in the annotation `meshsim.dev/istio-version` of its MeshConfig, where `--istio-version`
writes it too. Everything an era does not name is as in today's Istio, names and shapes of xds included.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any as Json
from typing import NamedTuple

from meshsim.errors import MeshsimError
from meshsim.resources.resource import Resource

ANNOTATION = "meshsim.dev/istio-version"


class GatewayPort(NamedTuple):
    """A port of the egress gateway's Service: its name decides the protocol."""

    name: str
    port: int
    target_port: int


@dataclass(frozen=True)
class Era:
    """An Istio version, by what it does.

    sniffs: listeners of HTTP ports look at the first bytes, and let pass what is no HTTP.
    gateways_resolve: a gateway has no hosts for `resolution: NONE`; it used to connect to the original destination, which is itself.
    verifies_servers: TLS origination without `caCertificates` trusts the system's roots; it used to trust anybody.
    takes_proto_names: field names in snake_case are ordinary.
    gateway_ports: of the default mesh's egress gateway. access_log_format: where MeshConfig gives none; empty: Istio's own of today.
    """

    version: str = ""
    sniffs: bool = True
    gateways_resolve: bool = True
    verifies_servers: bool = True
    takes_proto_names: bool = False
    gateway_ports: tuple[GatewayPort, ...] = (GatewayPort("http2", 80, 8080), GatewayPort("https", 443, 8443))
    access_log_format: str = ""


CURRENT = Era()
ERAS = {
    "1.0": Era(
        version="1.0",
        sniffs=False,
        gateways_resolve=False,
        verifies_servers=False,
        takes_proto_names=True,
        gateway_ports=(GatewayPort("http", 80, 80), GatewayPort("https", 443, 443)),
        access_log_format=(
            '[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% '
            "%BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "
            '"%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%"'
        ),
    )
}


def find(version: str) -> Era:
    """The era of that name; "" is today's. Raises MeshsimError."""
    if version and version not in ERAS:
        raise MeshsimError(f'no Istio version {version!r} is simulated; known: {", ".join(ERAS)}, and today\'s where none is named')
    return ERAS.get(version, CURRENT)


def of(resources: Iterable[Resource[Json]]) -> Era:
    """What the MeshConfig read last says. Raises MeshsimError for a version that nobody knows."""
    said = [r.metadata.annotations.get(ANNOTATION, "") for r in resources if r.kind == "MeshConfig"]
    return find(said[-1] if said else "")
