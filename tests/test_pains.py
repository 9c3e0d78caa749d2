"""What people who run egress ask about again and again: what they wrote, what they saw, and the finding that would have told them.

The rows are read as those of test_pitfalls.py, where the mistakes stand that have a name of their own. Here are their variants: the same
symptom for another reason, the word that looks right, and beside it what works. A row without a finding is a configuration that does what
it says, or a call that nobody could foresee.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import pytest

import meshsim
from meshsim import analysis
from meshsim.errors import NotSimulated
from meshsim.simulate import Call
from tests.test_bypass import TEAPOT
from tests.test_pitfalls import (
    GATEWAY_RULE,
    HTTP,
    HTTP_SERVER,
    HTTPS,
    MESH,
    MESH_RULE,
    MTLS,
    ORIGINATE,
    OUT,
    PAST,
    POLICY,
    SCENARIOS,
    SECURE,
    SITE,
    SNI,
    UPSTREAM,
    VS_HOSTS,
    WRAPPED,
    Row,
    shows,
)
from tests.test_tls_outcomes import originate, secret, server, site

HOP, TLS_HOP = (f"outbound|{port}|cnn|istio-egressgateway.istio-system.svc.cluster.local" for port in (80, 443))
TLS_OUT, ANY = "outbound|443||edition.cnn.com", "outbound|443||*.wikipedia.org"
OTHER, ALIAS = "http://other.example/", "http://alias.example/"
BY_ADDRESS = "https://151.101.65.67/politics"
NO_ROUTE = {"flags": "NR", "details": "route_not_found"}
SENT = {"details": "via_upstream"}

ELSEWHERE = """
---
apiVersion: meshsim.dev/v1alpha1
kind: ExternalServer
metadata: {name: elsewhere}
spec:
  hosts: [other.example, alias.example]
  addresses: [192.0.2.50]
  ports: [{port: 80}, {port: 443, protocol: https}, {port: 5432, protocol: tcp}]
"""
ENTRY = (
    ELSEWHERE
    + """
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: entry, namespace: %s}
spec: {hosts: [%s], resolution: DNS, ports: [{number: %d, name: port, protocol: %s}], exportTo: ["%s"]}
"""
)
OPEN = """
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: default}
spec: {outboundTrafficPolicy: {mode: ALLOW_ANY}}
"""
MUTUAL = originate("mode: MUTUAL, credentialName: own")
CERTIFIED = SITE % "certificate: {names: [edition.cnn.com, 151.101.65.67]}"
ASKING = SITE % "clientCertificates: {mode: required, trust: [partner]}"
OF_ANOTHER_TEAM = TEAPOT.partition("\n---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry")[0].replace(
    "httpbin.org", "other.example"
)
PRINCIPAL = POLICY % ("ALLOW", '{from: [{source: {principals: ["cluster.local/ns/default/sa/sleep"]}}]}')
CUSTOM = POLICY.replace("rules", "provider: {name: nobody}, rules") % ("CUSTOM", "{}")
ALIASED = {VS_HOSTS: VS_HOSTS.replace("  - edition.cnn.com\n", "  - edition.cnn.com\n  - alias.example\n")}
SERVED = ALIASED | {"    hosts:\n    - edition.cnn.com\n": "    hosts:\n    - edition.cnn.com\n    - alias.example\n"}
REWRITTEN = SERVED | {"      port: 443\n    route:\n": "      port: 443\n    rewrite: {authority: edition.cnn.com}\n    route:\n"}
KNOWN_ALIAS = ENTRY % ("default", "alias.example", 80, "HTTP", "*")


def to_wildcard(resolution: str) -> dict[str, str]:
    """The gateway's rule leads to the wildcard itself."""
    return {"host: www.wikipedia.org, port": 'host: "*.wikipedia.org", port', "resolution: NONE": f"resolution: {resolution}"}


TABLE = [
    # the gateway's log stays empty, and the request works
    Row(
        "the rule for the mesh asks for another port",
        HTTP,
        {MESH_RULE: MESH_RULE.replace("      port: 80\n", "      port: 443\n", 1)},
        301,
        **SENT,
        cluster=OUT,
        codes=("MSIM0110",),
    ),
    Row("the mesh is no Gateway of a namespace", HTTP, {"  - mesh\n": "  - default/mesh\n"}, 301, **SENT, cluster=OUT, codes=("MSIM0110",)),
    # 503 NC
    Row("a subset, misspelt", HTTP, {"        subset: cnn\n": "        subset: cn\n"}, 503, "NC", "cluster_not_found", codes=("MSIM0101",)),
    Row(
        "a host, misspelt in the gateway's rule",
        HTTP,
        {GATEWAY_RULE: GATEWAY_RULE.replace("host: edition", "host: editoin")},
        503,
        "NC",
        "cluster_not_found",
        codes=("MSIM0101",),
    ),
    Row(
        "exportTo does not widen where a DestinationRule is looked for",
        HTTP,
        {"  name: egressgateway-for-cnn\nspec:\n": "  name: egressgateway-for-cnn\n  namespace: elsewhere\nspec:\n  exportTo: ['*']\n"},
        503,
        "NC",
        "cluster_not_found",
        codes=("MSIM0101", "MSIM0206"),
    ),
    Row(
        "a rule for the mesh that applies at the gateway too",
        HTTP,
        {"    - gateways:\n      - mesh\n      port: 80\n": "    - port: 80\n"},
        503,
        "NC",
        "cluster_not_found",
        codes=("MSIM0101",),
    ),
    # the gateway does not listen
    Row(
        "a server on a port that the gateway's Service lacks",
        HTTP,
        {HTTP_SERVER: HTTP_SERVER.replace("80", "8888")},
        503,
        "URX,UF",
        UPSTREAM,
        HOP,
        ("MSIM0104",),
    ),
    Row(
        "TLS that is terminated has tcp routes, where HTTPS has http routes",
        MTLS,
        {"      protocol: HTTPS\n": "      protocol: TLS\n"},
        503,
        "URX,UF",
        UPSTREAM,
        HOP,
        ("MSIM0104",),
    ),
    Row("... and tcp routes work", WRAPPED, {}, 200, cluster=TLS_HOP, url=SECURE),
    Row("HTTPS is TLS in a ServiceEntry", HTTPS, {"protocol: TLS\n  res": "protocol: HTTPS\n  res"}, 200, cluster=TLS_HOP, url=SECURE),
    Row(
        "... and where TLS passes through",
        HTTPS,
        {"protocol: TLS\n    hosts": "protocol: HTTPS\n    hosts"},
        200,
        cluster=TLS_HOP,
        url=SECURE,
    ),
    Row(
        "a second Gateway for the same names, whose server is left out",
        MTLS,
        {},
        301,
        **SENT,
        cluster=OUT,
        codes=("MSIM0202",),
        more="\n---\n" + server("{mode: ISTIO_MUTUAL}").replace("name: istio-egressgateway}", "name: later}"),
    ),
    # other names than the declared ones
    Row(
        "a name that the sidecar leads to the gateway, which has not heard of it",
        HTTP,
        ALIASED,
        404,
        **NO_ROUTE,
        codes=("MSIM0102",),
        url=ALIAS,
        more=KNOWN_ALIAS,
    ),
    Row("... and has", HTTP, SERVED, 301, **SENT, cluster=OUT, url=ALIAS, more=KNOWN_ALIAS),
    Row(
        "an address as sniHosts",
        HTTPS,
        {SNI: "      - 151.101.65.67\n", VS_HOSTS: VS_HOSTS.replace("edition.cnn.com", "151.101.65.67")},
        200,
        cluster=PAST,
        codes=("IST0133",),
        url=BY_ADDRESS,
        more=CERTIFIED,
    ),
    Row("a Host header is no SNI", HTTPS, {}, 200, cluster=PAST, url=BY_ADDRESS, headers=(("Host", "edition.cnn.com"),), more=CERTIFIED),
    Row(
        "a DestinationRule that asks the gateway for another name",
        MTLS,
        {"sni: edition.cnn.com": "sni: www.cnn.com"},
        503,
        "URX,UF",
        UPSTREAM,
        HOP,
        ("MSIM0103",),
    ),
    *(
        Row(
            f"a wildcard behind the gateway, resolution {resolution}",
            "wildcard-gateway",
            to_wildcard(resolution),
            "closed",
            "UH",
            cluster=ANY,
            codes=("MSIM0105",),
            url="https://en.wikipedia.org/",
        )
        for resolution in ("NONE", "DYNAMIC_DNS")
    ),
    # one's own port, somebody else's protocol
    Row(
        "other sites on a port that is declared HTTP",
        HTTP,
        {"name: https\n    protocol: HTTPS": "name: https\n    protocol: HTTP"},
        200,
        cluster=PAST,
        codes=("MSIM0107",),
        url="https://other.example/",
        more=ELSEWHERE,
    ),
    Row(
        "a port that a second entry declares otherwise",
        HTTP,
        {},
        301,
        **SENT,
        cluster=PAST,
        codes=("IST0177", "MSIM0110"),
        more=ENTRY % ("default", "edition.cnn.com", 80, "HTTPS", "*"),
    ),
    Row(
        "a team's rules for a host of another team",
        HTTP,
        {},
        418,
        details="direct_response",
        codes=("MSIM0212",),
        url=OTHER,
        more=ENTRY % ("default", "other.example", 80, "HTTP", "*") + OF_ANOTHER_TEAM % "",
    ),
    Row(
        "... which are kept to their team",
        HTTP,
        {},
        200,
        **SENT,
        cluster="outbound|80||other.example",
        url=OTHER,
        more=ENTRY % ("default", "other.example", 80, "HTTP", "*") + OF_ANOTHER_TEAM % 'exportTo: ["."], ',
    ),
    # origination
    Row(
        "originated on the port that nobody is led to",
        ORIGINATE,
        {"        number: 443\n      tls:": "        number: 80\n      tls:"},
        503,
        "UC",
        UPSTREAM,
        TLS_OUT,
        ("MSIM0107", "MSIM0214"),
    ),
    Row(
        "originated in a namespace where nobody looks",
        ORIGINATE,
        {"  name: originate-tls-for-edition-cnn-com\n": "  name: originate-tls-for-edition-cnn-com\n  namespace: elsewhere\n"},
        503,
        "UC",
        UPSTREAM,
        TLS_OUT,
        ("MSIM0107", "MSIM0206"),
    ),
    Row(
        "a site that nobody vouches for",
        ORIGINATE,
        {},
        503,
        "URX,UF",
        UPSTREAM,
        TLS_OUT,
        ("MSIM0111",),
        more=SITE % "certificate: {ca: unknown}",
    ),
    Row(
        "the site is asked for the Host that the application says",
        ORIGINATE,
        SERVED,
        503,
        "URX,UF",
        UPSTREAM,
        TLS_OUT,
        ("MSIM0111",),
        url=ALIAS,
        more=KNOWN_ALIAS,
    ),
    Row("... or for what it is rewritten to", ORIGINATE, REWRITTEN, 200, **SENT, cluster=TLS_OUT, url=ALIAS, more=KNOWN_ALIAS),
    Row(
        "a Secret that is not with the gateway",
        ORIGINATE,
        {},
        503,
        "URX,UF",
        UPSTREAM,
        TLS_OUT,
        ("MSIM0118",),
        more="\n---\n" + secret("trust: public").replace("istio-system", "default") + originate("mode: SIMPLE, credentialName: own"),
    ),
    Row(
        "a Secret for sidecars, which read none",
        "tls-origination-sidecar",
        {},
        503,
        "UC",
        UPSTREAM,
        TLS_OUT,
        ("MSIM0107", "MSIM0208"),
        more="\n---\n" + site() + secret("trust: public") + originate("mode: SIMPLE, credentialName: own"),
    ),
    Row(
        "a server's Secret that nobody made",
        MTLS,
        {},
        503,
        "URX,UF",
        UPSTREAM,
        HOP,
        ("MSIM0118",),
        more="\n---\n" + server("{mode: MUTUAL, credentialName: own}"),
    ),
    Row("a site that wants to know its clients", ORIGINATE, {}, 503, "UC", UPSTREAM, TLS_OUT, ("MSIM0115",), more=ASKING),
    Row(
        "... and trusts others to name them",
        ORIGINATE,
        {},
        503,
        "UC",
        UPSTREAM,
        TLS_OUT,
        ("MSIM0115",),
        more=ASKING + "---\n" + secret("certificate: {names: [client], ca: unknown}, trust: public") + MUTUAL,
    ),
    Row(
        "one's own CA, to verify the site by",
        ORIGINATE,
        {},
        503,
        "URX,UF",
        UPSTREAM,
        TLS_OUT,
        ("MSIM0111",),
        more=f"\n---\n{secret('trust: partner')}{originate('mode: SIMPLE, credentialName: own')}",
    ),
    # policies
    Row(
        "principals, where the hop is plaintext",
        HTTP,
        {},
        403,
        details="rbac_access_denied_matched_policy[none]",
        cluster=OUT,
        codes=("MSIM0204",),
        more=PRINCIPAL,
    ),
    Row("... and where it is mutual TLS", MTLS, {}, 301, **SENT, cluster=OUT, more=PRINCIPAL),
    Row(
        "an authorizer that the mesh does not know",
        HTTP,
        {},
        403,
        cluster=OUT,
        codes=("MSIM0213",),
        more=CUSTOM,
        details=(
            "rbac_access_denied_matched_policy[istio-ext-authz-nobody-ns[istio-system]-policy[way-out]-rule[0]-deny-due-to-bad-CUSTOM-action]"
        ),
    ),
    # REGISTRY_ONLY "does not block", and blocks without a word
    Row(
        "registry only: any team's entry opens a host",
        HTTP,
        {},
        200,
        **SENT,
        cluster="outbound|80||other.example",
        url=OTHER,
        more=ENTRY % ("team", "other.example", 80, "HTTP", "*"),
        mode="REGISTRY_ONLY",
    ),
    Row(
        "registry only: an entry that its team keeps",
        HTTP,
        {},
        502,
        details="direct_response",
        url=OTHER,
        more=ENTRY % ("team", "other.example", 80, "HTTP", "."),
        mode="REGISTRY_ONLY",
    ),
    Row(
        "registry only: a Sidecar that says otherwise",
        HTTP,
        {},
        200,
        **SENT,
        cluster=PAST,
        url=OTHER,
        more=ELSEWHERE + OPEN,
        mode="REGISTRY_ONLY",
    ),
    Row(
        "registry only: TLS is closed, and there is a log line",
        HTTP,
        {},
        "closed",
        "UH",
        cluster="BlackHoleCluster",
        url="https://other.example/",
        more=ELSEWHERE,
        mode="REGISTRY_ONLY",
    ),
    # a server that ends its connections
    Row("a connection that ends before the answer", ORIGINATE, {}, 503, "UC", UPSTREAM, TLS_OUT, more=SITE % "answers: [{fault: close}]"),
]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
async def test_pain(row: Row) -> None:
    found = await shows(row)
    assert {code for code in found if code.startswith("MSIM")} == {code for code in row.codes if code.startswith("MSIM")}


class Said(NamedTuple):
    """A client that writes bytes of its own. line: how what it gets back begins. found: every finding."""

    name: str
    more: str
    host: str
    port: int
    data: bytes
    line: bytes
    cluster: str
    flags: tuple[str, ...] = ()
    found: tuple[str, ...] = ()


CONNECT = b"CONNECT alias.example:80 HTTP/1.1\r\nHost: alias.example:80\r\n\r\n"
FORWARD = """
---
apiVersion: meshsim.dev/v1alpha1
kind: ExternalServer
metadata: {name: proxy}
spec: {hosts: [proxy.example], addresses: [192.0.2.51], ports: [{port: 3128, connect: true}]}
"""
BYTES = [
    Said(
        "a forward proxy, declared HTTP",
        FORWARD + ENTRY % ("default", "proxy.example", 3128, "HTTP", "*"),
        "proxy.example",
        3128,
        CONNECT,
        b"HTTP/1.1 404 Not Found\r\n",
        "",
        ("NR",),
    ),
    Said(
        "a forward proxy, declared TCP",
        FORWARD + ENTRY % ("default", "proxy.example", 3128, "TCP", "*"),
        "proxy.example",
        3128,
        CONNECT,
        b"HTTP/1.1 200 OK",
        "outbound|3128||proxy.example",
        found=("IST0134",),
    ),
    Said(
        "HTTP/1.0 goes past the routes",
        "",
        "edition.cnn.com",
        80,
        b"GET / HTTP/1.0\r\nHost: edition.cnn.com\r\n\r\n",
        b"HTTP/1.1 301 ",
        PAST,
    ),
    Said(
        "... to a gateway, which does not take it",
        "",
        "istio-egressgateway.istio-system.svc.cluster.local",
        80,
        b"GET / HTTP/1.0\r\nHost: edition.cnn.com\r\n\r\n",
        b"HTTP/1.1 426 Upgrade Required\r\n",
        PAST,
    ),
    Said(
        "bytes to a port that somebody claims without an address",
        ENTRY % ("default", "alias.example", 5432, "TCP", "*"),
        "203.0.113.7",
        5432,
        b"hello",
        b"other.example:5432 got hello",
        "outbound|5432||alias.example",
        found=("IST0134",),
    ),
]


@pytest.mark.parametrize("row", BYTES, ids=lambda row: row.name)
async def test_bytes(row: Said) -> None:
    mesh = meshsim.load(SCENARIOS / HTTP, "-", stdin=row.more + MESH % "ALLOW_ANY")
    trace = mesh.simulation().call(Call("sleep.default", row.host, row.port, http=None, data=row.data))
    first = trace.hops[0]
    assert (tuple(first.entry.flags), first.cluster.name if first.cluster else "") == (row.flags, row.cluster)
    assert str(trace.client["received"]).startswith(row.line.decode())
    assert {f.code for f in analysis.analyze_mesh(mesh)} == set(row.found)
    async with mesh.run() as live:
        reader, writer = await live.pod("sleep").open(row.host, row.port)
        writer.write(row.data)
        async with asyncio.timeout(5):
            assert await reader.readexactly(len(row.line)) == row.line
        writer.close()


def test_an_operator_that_nobody_knows_is_refused_where_it_stands() -> None:
    rule = "  http:\n  - headers: {request: {set: {x-who: '%WHO%'}}}\n    route: [{destination: {host: a.example}}]\n"
    entry = "kind: VirtualService\nmetadata: {name: a}\nspec:\n  hosts: [a.example]\n"
    mesh = meshsim.load("-", stdin=f"apiVersion: networking.istio.io/v1\n{entry}{rule}")
    with pytest.raises(NotSimulated, match=r"<stdin>:7:\d+: not simulated yet: header value '%WHO%'"):
        mesh.simulate("sleep", "http://a.example/")
