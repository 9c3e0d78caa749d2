"""What a proxy tells its host of its client's certificate (x-forwarded-client-cert), for each of Envoy's settings."""

from __future__ import annotations

import random

import pytest

from meshsim.routing import headers
from meshsim.routing.facts import Downstream, Endpoint, Peer
from meshsim.routing.message import Request
from meshsim.xds.http_connection_manager import ClientCertDetails, HttpConnectionManager

PEER = Peer(uris=("spiffe://a/ns/b/sa/c",), dns=("c.test",), subject="CN=c", sha256="ab12", pem="-----BEGIN\nx=\n")
MINE, CLAIMED = "By=spiffe://a/ns/g/sa/g;Hash=ab12", "By=x;Hash=y"
ALL = ClientCertDetails(subject=True, cert=True, chain=True, dns=True, uri=True)
QUOTED = "-----BEGIN%0Ax%3D%0A"

# forward_client_cert_details, set_current_client_cert_details, whether the client has shown a certificate, what it claims: what goes on.
ROWS: list[tuple[str, ClientCertDetails | None, bool, str, str | None]] = [
    ("SANITIZE", None, True, CLAIMED, None),
    ("SANITIZE", ALL, True, "", None),
    ("FORWARD_ONLY", ALL, True, CLAIMED, CLAIMED),
    ("FORWARD_ONLY", ALL, False, CLAIMED, None),
    ("ALWAYS_FORWARD_ONLY", ALL, False, CLAIMED, CLAIMED),
    ("APPEND_FORWARD", None, True, CLAIMED, f"{CLAIMED},{MINE}"),
    ("APPEND_FORWARD", None, True, "", MINE),
    ("APPEND_FORWARD", None, False, CLAIMED, None),
    ("SANITIZE_SET", None, True, CLAIMED, MINE),
    ("SANITIZE_SET", ClientCertDetails(subject=True, uri=True), True, "", f'{MINE};Subject="CN=c";URI=spiffe://a/ns/b/sa/c'),
    (
        "SANITIZE_SET", ALL, True, "",
        f'{MINE};Cert="{QUOTED}";Chain="{QUOTED}";Subject="CN=c";URI=spiffe://a/ns/b/sa/c;DNS=c.test',
    ),
]  # fmt: skip


@pytest.mark.parametrize(("mode", "details", "shown", "claimed", "told"), ROWS)
def test_what_is_told(mode: str, details: ClientCertDetails | None, shown: bool, claimed: str, told: str | None) -> None:
    manager = HttpConnectionManager(stat_prefix="t", forward_client_cert_details=mode, set_current_client_cert_details=details)
    downstream = Downstream(
        Endpoint("10.0.0.1", 1), Endpoint("10.0.0.2", 2), secure=True, peer=PEER if shown else None, local_uris=("spiffe://a/ns/g/sa/g",)
    )
    request = Request("GET", "/", "h", headers=[(headers.XFCC, claimed)] if claimed else [])
    headers.incoming(request, downstream, manager, random.Random(1))
    assert request.first(headers.XFCC) == told
