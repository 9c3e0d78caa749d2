"""The mistakes that people make about egress: what they write, what it looks like from outside, and the finding that says why.

Each row is a shipped scenario that works, with one thing written wrongly. The call is made in the evaluator and on live proxies, and gets
the same answer and the same log line from both; `meshsim analyze` finds the mistake where it is one of the files and not of the call.
Mistakes about TLS itself are in test_tls_outcomes.py, about bypassing and NetworkPolicies in test_bypass.py; what people ask about
most is in test_pains.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any as Json
from typing import NamedTuple

import msgspec
import pytest

import meshsim
from meshsim import analysis
from meshsim.mesh import Mesh
from meshsim.routing import access_log
from tests.test_tls_outcomes import LOGGED, ended, tried

SCENARIOS = Path(__file__).parent.parent / "scenarios"
HTTP, HTTPS, MTLS, ORIGINATE, WRAPPED = (
    "egress-gateway-http", "egress-gateway-https", "egress-gateway-http-mtls", "tls-origination-gateway", "egress-gateway-https-mtls",
)  # fmt: skip
PLAIN, SECURE = "http://edition.cnn.com/politics", "https://edition.cnn.com/politics"
GATEWAY = "istio-egressgateway"
CLOSED: dict[int | str, str] = {"eof": "closed", "reset": "closed"}  # which of them a client sees is a race where it was sending
FORMAT = LOGGED | {"cluster": "%UPSTREAM_CLUSTER_RAW%"}
MESH = f"""
---
apiVersion: meshsim.dev/v1alpha1
kind: MeshConfig
metadata: {{name: istio}}
spec:
  accessLogFile: /dev/stdout
  accessLogEncoding: JSON
  accessLogFormat: '{msgspec.json.encode(FORMAT).decode().replace("%", "%%")}'
  outboundTrafficPolicy: {{mode: %s}}
"""


class Row(NamedTuple):
    """mistake: what is replaced in the scenario's YAML, by what. more: further YAML. client: a status, or how the call ended.

    flags, details, cluster: of the log line that shows it, details without what follows in braces. codes: of the findings that explain it;
    none where every file is right by itself, and only this call is not.
    """

    name: str
    scenario: str
    mistake: dict[str, str]
    client: int | str
    flags: str = "-"
    details: str = "-"
    cluster: str = "-"
    codes: tuple[str, ...] = ()
    url: str = PLAIN
    headers: tuple[tuple[str, str], ...] = ()
    more: str = ""
    mode: str = "ALLOW_ANY"


VS_HOSTS = "spec:\n  hosts:\n  - edition.cnn.com\n  gateways"
SNI = "      - edition.cnn.com\n"
BOUND = "  gateways:\n  - istio-egressgateway\n  - mesh\n"
MESH_RULE = """  - match:
    - gateways:
      - mesh
      port: 80
    route:
    - destination:
        host: istio-egressgateway.istio-system.svc.cluster.local
        subset: cnn
        port:
          number: 80
      weight: 100
"""
GATEWAY_RULE = """  - match:
    - gateways:
      - istio-egressgateway
      port: 80
    route:
    - destination:
        host: edition.cnn.com
        port:
          number: 80
      weight: 100
"""
HTTP_SERVER = "      number: 80\n      name: http\n      protocol: HTTP\n"
CLEAR = "HTTPS\n  resolution: DNS"
HOP, OUT, PAST = "outbound|80|cnn|istio-egressgateway.istio-system.svc.cluster.local", "outbound|80||edition.cnn.com", "PassthroughCluster"
TLS_HOP = HOP.replace("|80|", "|443|")
ORIGINATION = """
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: originate}
spec: {host: edition.cnn.com, trafficPolicy: {tls: {mode: SIMPLE}}}
"""
SECOND = """
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: later}
spec:
  hosts: [edition.cnn.com]
  http: [{fault: {abort: {httpStatus: 418, percentage: {value: 100}}}, route: [{destination: {host: edition.cnn.com}}]}]
"""
POLICY = """
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: way-out, namespace: istio-system}
spec: {selector: {matchLabels: {istio: egressgateway}}, action: %s, rules: [%s]}
"""
SIDECAR = """
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: default}
spec: {egress: [{hosts: [%s]}]}
"""
UPSTREAM = "upstream_reset_before_response_started"
UPGRADED = {"        mode: SIMPLE": "        mode: SIMPLE\n      connectionPool: {http: {h2UpgradePolicy: UPGRADE}}"}
SITE = """
---
apiVersion: meshsim.dev/v1alpha1
kind: ExternalServer
metadata: {name: site}
spec: {hosts: [edition.cnn.com], addresses: [151.101.65.67], ports: [{port: 80}, {port: 443, protocol: https, %s}]}
"""
ON_CALLERS = """
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-news}
spec: {selector: {matchLabels: {app: sleep}}, action: DENY, rules: [{to: [{operation: {hosts: [edition.cnn.com]}}]}]}
"""
OTHER_PORT = {"- number: 80\n    name: http-port": "- number: 8080\n    name: http-port"}
EXACT = MESH_RULE.replace("      port: 80\n", "      port: %d\n      authority: {exact: edition.cnn.com}\n", 1)

TABLE = [
    Row(
        "1: resolution NONE behind the gateway",
        HTTP,
        {"resolution: DNS": "resolution: NONE"},
        503,
        "UH",
        "no_healthy_upstream",
        OUT,
        ("MSIM0105",),
    ),
    Row(
        "2: HTTPS to a port declared HTTP goes past everything",
        HTTP,
        {"name: https\n    protocol: HTTPS": "name: https\n    protocol: HTTP"},
        200,
        cluster=PAST,
        codes=("MSIM0107",),
        url=SECURE,
    ),
    Row(
        "2: ... and nowhere under REGISTRY_ONLY",
        HTTP,
        {"name: https\n    protocol: HTTPS": "name: https\n    protocol: HTTP"},
        "closed",
        "UH",
        cluster="BlackHoleCluster",
        url=SECURE,
        mode="REGISTRY_ONLY",
    ),
    Row(
        "4: another SNI than the VirtualService's",
        HTTPS,
        {SNI: "      - www.cnn.com\n", VS_HOSTS: VS_HOSTS.replace("edition", "www")},
        200,
        cluster="outbound|443||edition.cnn.com",
        url=SECURE,
    ),
    Row(
        "6: a VirtualService for the gateway only",
        HTTP,
        {"  - mesh\n  http": "  http"},
        301,
        details="via_upstream",
        cluster=OUT,
        codes=("MSIM0110",),
    ),
    Row("7: a VirtualService for the mesh only", HTTP, {GATEWAY_RULE: ""}, 404, "NR", "route_not_found", "-", ("MSIM0102",)),
    Row(
        "8: the gateway rule matches the target port",
        HTTP,
        {GATEWAY_RULE: GATEWAY_RULE.replace("port: 80\n", "port: 8080\n", 1)},
        404,
        "NR",
        "route_not_found",
        "-",
        ("MSIM0102",),
    ),
    Row(
        "10: the subset's DestinationRule is in another namespace",
        HTTP,
        {"  name: egressgateway-for-cnn\n": "  name: egressgateway-for-cnn\n  namespace: elsewhere\n"},
        503,
        "NC",
        "cluster_not_found",
        "-",
        ("MSIM0101",),
    ),
    Row(
        "12: mutual TLS at the gateway, none from the sidecar",
        MTLS,
        {"          mode: ISTIO_MUTUAL\n          sni: edition.cnn.com\n": "          mode: DISABLE\n"},
        503,
        "UC",
        UPSTREAM,
        HOP,
        ("MSIM0103",),
    ),
    Row(
        "13: mutual TLS from the sidecar, none at the gateway",
        MTLS,
        {"      protocol: HTTPS\n": "      protocol: HTTP\n", "    tls:\n      mode: ISTIO_MUTUAL\n": ""},
        503,
        "URX,UF",
        UPSTREAM,
        HOP,
        ("MSIM0106",),
    ),
    Row(
        "14: mutual TLS without an SNI that the gateway knows",
        MTLS,
        {"          sni: edition.cnn.com\n": ""},
        503,
        "URX,UF",
        UPSTREAM,
        HOP,
        ("MSIM0103",),
    ),
    Row(
        "15: a gateway that terminates, with tls routes",
        HTTPS,
        {"      mode: PASSTHROUGH\n": "      mode: ISTIO_MUTUAL\n"},
        "closed",
        "UF,URX",
        cluster=TLS_HOP,
        codes=("MSIM0104",),
        url=SECURE,
    ),
    Row(
        "16: a gateway that passes through, with tcp routes",
        WRAPPED,
        {"    tls:\n      mode: ISTIO_MUTUAL\n": "    tls:\n      mode: PASSTHROUGH\n"},
        "closed",
        "UF,URX",
        cluster=TLS_HOP,
        codes=("MSIM0104",),
        url=SECURE,
    ),
    Row(
        "17: http routes for a port declared HTTPS",
        HTTP,
        {"  - number: 80\n    name: http-port\n    protocol: HTTP\n": "", "      port: 80\n": "      port: 443\n"},
        200,
        cluster="outbound|443||edition.cnn.com",
        codes=("MSIM0207",),
        url=SECURE,
    ),
    Row(
        "18: TLS originated for an application that speaks TLS",
        HTTPS,
        {},
        more=ORIGINATION,
        client="WRONG_VERSION_NUMBER",
        cluster="outbound|443||edition.cnn.com",
        codes=("MSIM0108",),
        url=SECURE,
    ),
    Row(
        "19: TLS originated on 443, the route leads to 80",
        ORIGINATE,
        {
            "host: edition.cnn.com\n        port:\n          number: 443": "host: edition.cnn.com\n        port:\n          number: 80"
        },
        301,
        details="via_upstream",
        cluster=OUT,
        codes=("MSIM0214",),
    ),
    Row("24: a Sidecar without the gateway's namespace", HTTP, {}, 301, details="via_upstream", cluster=OUT, more=SIDECAR % "./*"),
    Row(
        "23: a Sidecar without the host",
        HTTP,
        {},
        502,
        "-",
        "direct_response",
        codes=("MSIM0116",),
        more=SIDECAR % "istio-system/*",
        mode="REGISTRY_ONLY",
    ),
    Row(
        "23: ... which goes past everything elsewhere",
        HTTP,
        {},
        301,
        details="via_upstream",
        cluster=PAST,
        codes=("MSIM0209",),
        more=SIDECAR % "istio-system/*",
    ),
    Row(
        "25: an exact authority, and a Host with a port",
        HTTP,
        {MESH_RULE: MESH_RULE.replace("      port: 80\n", "      port: 80\n      authority: {exact: edition.cnn.com}\n", 1)},
        404,
        "NR",
        "route_not_found",
        headers=(("Host", "edition.cnn.com:80"),),
    ),
    Row("a Host that nobody declared", HTTP, {}, 502, details="direct_response", headers=(("Host", "www.cnn.com"),), mode="REGISTRY_ONLY"),
    Row(
        "an address and no name: no SNI that a rule could know",
        HTTPS,
        {},
        200,
        cluster=PAST,
        url="https://151.101.65.67/politics",
        more=SITE % "certificate: {names: [edition.cnn.com, 151.101.65.67]}",
    ),
    Row(
        "a Gateway that moved to another namespace",
        HTTP,
        {"  name: istio-egressgateway\nspec": "  name: istio-egressgateway\n  namespace: istio-system\nspec"},
        404,
        "NR",
        "route_not_found",
        codes=("IST0101", "MSIM0102"),
    ),
    Row("a policy on those who call", HTTP, {}, 301, details="via_upstream", cluster=OUT, codes=("MSIM0210",), more=ON_CALLERS),
    Row(
        "no origination for the port of the gateway's rule",
        ORIGINATE,
        {"mode: SIMPLE": "mode: DISABLE"},
        503,
        "UC",
        UPSTREAM,
        "outbound|443||edition.cnn.com",
        ("MSIM0107",),
    ),
    Row(
        "HTTP/2 to a site that knows HTTP/1.1 alone",
        ORIGINATE,
        UPGRADED,
        502,
        "UPE",
        UPSTREAM,
        "outbound|443||edition.cnn.com",
        ("MSIM0114",),
        more=SITE % "alpn: [http/1.1]",
    ),
    Row(
        "an exact authority, on a port that clients always say",
        HTTP,
        OTHER_PORT | {MESH_RULE: EXACT % 8080},
        404,
        "NR",
        "route_not_found",
        codes=("MSIM0211",),
        url="http://edition.cnn.com:8080/politics",
    ),
    Row("26: two VirtualServices for one host", HTTP, {}, 301, details="via_upstream", cluster=OUT, codes=("IST0109",), more=SECOND),
    Row(
        "27: path matches and no catch-all",
        HTTP,
        {MESH_RULE: MESH_RULE.replace("      port: 80\n", "      port: 80\n      uri: {prefix: /sport}\n", 1)},
        404,
        "NR",
        "route_not_found",
        "-",
        ("MSIM0201",),
    ),
    Row(
        "29: a selector that matches no pod",
        HTTP,
        {"    istio: egressgateway\n": "    istio: egress-gateway\n"},
        503,
        "URX,UF",
        UPSTREAM,
        HOP,
        ("MSIM0104",),
    ),
    Row(
        "30: a port that the gateway's Service has not",
        HTTP,
        {"          number: 80\n      weight: 100\n  - match": "          number: 8888\n      weight: 100\n  - match"},
        503,
        "NC",
        "cluster_not_found",
        "-",
        ("MSIM0101",),
    ),
    Row(
        "34: an endpoint whose name does not resolve",
        HTTP,
        {CLEAR: CLEAR + "\n  endpoints:\n  - address: nowhere.example"},
        503,
        "UH",
        "no_healthy_upstream",
        OUT,
        ("MSIM0105",),
    ),
    Row(
        "37: principals on a gateway that passes TLS through",
        HTTPS,
        {},
        "closed",
        cluster="outbound|443||edition.cnn.com",
        codes=("MSIM0204",),
        url=SECURE,
        more=POLICY % ("ALLOW", '{from: [{source: {principals: ["*/sa/sleep"]}}]}'),
    ),
    Row(
        "38: a policy for the Service's port",
        HTTP,
        {},
        403,
        details="rbac_access_denied_matched_policy[none]",
        cluster=OUT,
        codes=("MSIM0203",),
        more=POLICY % ("ALLOW", '{to: [{operation: {ports: ["80"]}}]}'),
    ),
    Row(
        "39: hosts in a policy for bytes",
        HTTPS,
        {},
        "closed",
        cluster="outbound|443||edition.cnn.com",
        codes=("MSIM0205",),
        url=SECURE,
        more=POLICY % ("ALLOW", "{to: [{operation: {hosts: [edition.cnn.com]}}]}"),
    ),
    Row(
        "44: httpsRedirect on the way out",
        HTTP,
        {
            HTTP_SERVER: HTTP_SERVER,
            "    hosts:\n    - edition.cnn.com\n": "    hosts:\n    - edition.cnn.com\n    tls: {httpsRedirect: true}\n",
        },
        301,
        details="direct_response",
        codes=("MSIM0215",),
    ),
]


def mesh_of(row: Row) -> Mesh:
    files = sorted(f for f in (SCENARIOS / row.scenario).glob("*.yaml") if f.name != "walkthrough.yaml")
    text = "\n---\n".join(f.read_text() for f in files)
    for right, wrong in row.mistake.items():
        assert right in text, f"{row.scenario} has no {right!r} that could be mistaken"
        text = text.replace(right, wrong)
    return meshsim.load("-", stdin=text + row.more + MESH % row.mode)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
async def test_mistake(row: Row) -> None:
    await shows(row)


async def shows(row: Row) -> set[str]:
    """Make the call of a row in the evaluator and on live proxies; the codes of what is found, its own among them."""
    mesh = mesh_of(row)
    headers = dict(row.headers)
    trace = mesh.simulate("sleep", row.url, headers=headers)
    expected = (row.flags, row.details, row.cluster)
    fields = access_log.record(FORMAT)
    assert CLOSED.get(ended(trace), ended(trace)) == row.client
    assert expected in [line(fields(hop.entry)) for hop in trace.hops]
    findings = analysis.analyze_mesh(mesh)
    found = {f.code for f in findings}
    assert found >= set(row.codes)
    assert all(f.witness for f in findings if f.code.startswith("MSIM") and f.level == analysis.ERROR)
    async with mesh.run() as live:
        end = (await tried(live.pod("sleep"), row.url, headers))[0]
        assert CLOSED.get(end, end) == row.client
        async with asyncio.timeout(5):
            while expected not in (logged := [line(msgspec.json.decode(text)) for proxy in live.proxies for text in proxy.log()]):
                assert len(logged) < len(trace.hops), logged
                await asyncio.sleep(0.005)
    return found


def line(fields: Mapping[str, Json]) -> tuple[str, str, str]:
    """Flags, details and cluster of a log line."""
    shown = {name: fields.get(name) or "-" for name in FORMAT}
    return shown["flags"], shown["details"].partition("{")[0], shown["cluster"]


DATABASES = """
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: first}
spec: {hosts: [first.example.com], ports: [{number: 5432, name: tcp, protocol: TCP}], resolution: DNS}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: second}
spec: {hosts: [second.example.com], %sports: [{number: 5432, name: tcp, protocol: TCP}], resolution: DNS}
---
apiVersion: meshsim.dev/v1alpha1
kind: ExternalServer
metadata: {name: second}
spec: {hosts: [second.example.com], addresses: [203.0.113.7], ports: [{port: 5432, protocol: tcp}]}
"""


@pytest.mark.parametrize(("address", "reached", "codes"), [("", "first", {"MSIM0113"}), ("addresses: [203.0.113.7], ", "second", set())])
async def test_two_databases_at_one_port(address: str, reached: str, codes: set[str]) -> None:
    mesh = meshsim.load("-", stdin=DATABASES % address + MESH % "ALLOW_ANY")
    answer = f"{reached}.example.com:5432 got hello"
    assert mesh.simulate("sleep", "tcp://second.example.com:5432", body=b"hello").client["received"] == answer
    assert {f.code for f in analysis.analyze_mesh(mesh) if f.code.startswith("MSIM")} == codes
    async with mesh.run() as live:
        reader, writer = await live.pod("sleep").open("second.example.com", 5432)
        writer.write(b"hello")
        assert (await reader.read()).decode() == answer
        writer.close()
