"""What becomes of TLS that goes wrong, and of the rows beside it that go right: live and simulated, the same answer and the same log line.

Each row changes a shipped scenario, makes one call from the pod `sleep`, and says what the client gets and what one proxy logs:
status, flags, response-code details, body, and why its transport failed. The words are Envoy's: those of a handshake on the hop
between the proxies were compared with Envoy 1.40 on the same configuration. The first rows are the outcomes that Istio's own
integration tests of egress TLS origination assert.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

import meshsim
from meshsim.mesh import Mesh
from meshsim.pod import LivePod
from meshsim.resources import loads
from meshsim.routing import access_log
from meshsim.simulate import Trace

SCENARIOS = Path(__file__).parent.parent / "scenarios"
LOGGED = {
    "details": "%RESPONSE_CODE_DETAILS%",
    "flags": "%RESPONSE_FLAGS%",
    "upstream": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    "downstream": "%DOWNSTREAM_TRANSPORT_FAILURE_REASON%",
}
LOGGING = f"""
apiVersion: meshsim.dev/v1alpha1
kind: MeshConfig
metadata: {{name: istio}}
spec: {{accessLogFile: /dev/stdout, accessLogEncoding: JSON, accessLogFormat: '{msgspec.json.encode(LOGGED).decode()}'}}
---
"""

ORIGINATE, SIDECAR = "tls-origination-gateway", "tls-origination-sidecar"
HOP, FILES, PASS, WRAPPED = (
    "egress-gateway-http-mtls",
    "egress-gateway-http-mtls-files",
    "egress-gateway-https",
    "egress-gateway-https-mtls",
)
HTTP, HTTPS = "http://edition.cnn.com/politics", "https://edition.cnn.com/politics"
CNN = "spec: {host: edition.cnn.com, trafficPolicy: {%s}}"
GATEWAY = "istio-egressgateway"


def site(port: str = "", number: int = 443) -> str:
    """The server outside, its port changed."""
    one = f"{{port: {number}, protocol: https, answers: [{{body: hello}}], {port}}}"
    spec = f"hosts: [edition.cnn.com], addresses: [151.101.65.67], ports: [{one}]"
    return f"apiVersion: meshsim.dev/v1alpha1\nkind: ExternalServer\nmetadata: {{name: cnn}}\nspec: {{{spec}}}\n---\n"


def originate(tls: str, policy: str = "") -> str:
    """The DestinationRule that originates TLS."""
    spec = f"host: edition.cnn.com, trafficPolicy: {{portLevelSettings: [{{port: {{number: 443}}, {policy} tls: {{{tls}}}}}]}}"
    return _istio("DestinationRule", "originate-tls-for-edition-cnn-com", spec)


def hop(policy: str) -> str:
    """The DestinationRule for the hop to the gateway."""
    host = f"{GATEWAY}.istio-system.svc.cluster.local"
    return _istio("DestinationRule", "egressgateway-for-cnn", f"host: {host}, subsets: [{{name: cnn{policy}}}]")


def server(tls: str, *, port: int = 80, protocol: str = "HTTPS", hosts: str = "edition.cnn.com") -> str:
    """The gateway's server."""
    one = f"{{port: {{number: {port}, name: {protocol.lower()}, protocol: {protocol}}}, hosts: [{hosts}]{', tls: ' + tls if tls else ''}}}"
    return _istio("Gateway", GATEWAY, f"selector: {{istio: egressgateway}}, servers: [{one}]")


def entry(protocol: str) -> str:
    """The ServiceEntry, its port 443 declared otherwise."""
    ports = f"ports: [{{number: 80, name: http, protocol: HTTP}}, {{number: 443, name: other, protocol: {protocol}}}]"
    return _istio("ServiceEntry", "cnn", f"hosts: [edition.cnn.com], resolution: DNS, {ports}")


def led(sni: str) -> str:
    """The VirtualService that leads the site's SNI to the gateway, which routes another one."""
    to = f"{{destination: {{host: {GATEWAY}.istio-system.svc.cluster.local, subset: cnn, port: {{number: 443}}}}}}"
    out = "{destination: {host: edition.cnn.com, port: {number: 443}}}"
    tls = f"{{match: [{{gateways: [mesh], port: 443, sniHosts: [edition.cnn.com]}}], route: [{to}]}}, "
    tls += f"{{match: [{{gateways: [{GATEWAY}], port: 443, sniHosts: [{sni}]}}], route: [{out}]}}"
    return _istio(
        "VirtualService", "direct-cnn-through-egress-gateway", f"hosts: [edition.cnn.com, {sni}], gateways: [mesh, {GATEWAY}], tls: [{tls}]"
    )


def secret(contents: str) -> str:
    """A Secret in the gateway's namespace."""
    where = "{name: own, namespace: istio-system}"
    return f"apiVersion: meshsim.dev/v1alpha1\nkind: IssuedSecret\nmetadata: {where}\nspec: {{{contents}}}\n---\n"


def mounted() -> str:
    """The gateway's Deployment, with the Secret as files."""
    labels, mounts = "{app: istio-egressgateway, istio: egressgateway}", "volumeMounts: [{name: own, mountPath: /etc/own}]"
    pod = f"containers: [{{name: istio-proxy, image: proxyv2, {mounts}}}], volumes: [{{name: own, secret: {{secretName: own}}}}]"
    spec = f"selector: {{matchLabels: {labels}}}, template: {{metadata: {{labels: {labels}}}, "
    spec += f"spec: {{serviceAccountName: istio-egressgateway-service-account, {pod}}}}}"
    return f"apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {GATEWAY}, namespace: istio-system}}\nspec: {{{spec}}}\n---\n"


def _istio(kind: str, name: str, spec: str) -> str:
    return f"apiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n---\n"


class Row(NamedTuple):
    """client: a status, or how its own TLS ended. at: whose log line. says: words of its transport failure, upstream's or downstream's.

    without: a resource that is taken away. host: the Host header, where it is not the URL's.
    """

    name: str
    scenario: str
    changes: str
    client: int | str
    flags: str = "-"
    details: str = "via_upstream"
    says: str = ""
    body: str = ""
    at: str = GATEWAY
    url: str = HTTP
    without: str = ""
    host: str = ""


OWN = "clientCertificate: /etc/certs/cert-chain.pem, privateKey: /etc/certs/key.pem"
WORKLOAD = "serverCertificate: /etc/certs/cert-chain.pem, privateKey: /etc/certs/key.pem"
ROOT = "caCertificates: /etc/certs/root-cert.pem"
MUTUAL = "mode: MUTUAL, credentialName: own"
ASKING = "clientCertificates: {mode: required, trust: [partner]}"
PARTNER = "certificate: {names: [client.example.com], ca: partner}, trust: public"
RESET = "upstream_reset_before_response_started{%s}"
REMOTE = "upstream connect error or disconnect/reset before headers. retried and the latest reset reason: remote connection failure"
ENDED = "upstream connect error or disconnect/reset before headers. reset reason: connection termination"
TIMED_OUT = "upstream connect error or disconnect/reset before headers. retried and the latest reset reason: connection timeout"
VERIFY, DEPTH = "CERTIFICATE_VERIFY_FAILED:verify_cert_failed:_", "X509_verify_cert:_certificate_verification_error_at_depth_0:_"
LIST = "certificate_revocation_check_against_provided_CRLs_failed:_"
UNKNOWN = f"{VERIFY}{DEPTH}unable_to_get_local_issuer_certificate"
NO_SECRET = "TLS_error:_Secret_is_not_supplied_by_SDS"
NOT_TLS = "SSL_routines:OPENSSL_internal:WRONG_VERSION_NUMBER"
PRESSED = "connectionPool: {tcp: {connectTimeout: 50ms}},"


def refused(name: str, scenario: str, changes: str, says: str, **more: str) -> Row:
    """A handshake that the originating proxy gives up, three times."""
    details = RESET % "remote_connection_failure|{says}"
    return Row(name, scenario, changes, 503, "URX,UF", details, says, REMOTE, **more)


TABLE = [
    # what Istio's integration tests assert of origination at the gateway
    Row("SIMPLE, right CA", ORIGINATE, site() + secret("trust: public") + originate("mode: SIMPLE, credentialName: own"), 200),
    refused("SIMPLE, wrong CA", ORIGINATE, site() + secret("trust: partner") + originate("mode: SIMPLE, credentialName: own"), UNKNOWN),
    refused("SIMPLE, missing secret", ORIGINATE, site() + originate("mode: SIMPLE, credentialName: own"), NO_SECRET),
    Row("MUTUAL, right", ORIGINATE, site(ASKING) + secret(PARTNER) + originate(MUTUAL), 200),
    Row(
        "MUTUAL, wrong client certificate",
        ORIGINATE,
        site(ASKING) + secret(PARTNER.replace("ca: partner", "ca: unknown")) + originate(MUTUAL),
        503,
        "UC",
        RESET % "connection_termination",
        body=ENDED,
    ),
    refused("MUTUAL, missing secret", ORIGINATE, site(ASKING) + originate(MUTUAL), NO_SECRET),
    refused(
        "MUTUAL, secret without a client certificate", ORIGINATE, site(ASKING) + secret("trust: public") + originate(MUTUAL), NO_SECRET
    ),
    refused(
        "MUTUAL, revoked server certificate",
        ORIGINATE,
        site(ASKING + ", certificate: {recipe: revoked}") + secret(PARTNER + ", revocations: true") + originate(MUTUAL),
        f"{VERIFY}{DEPTH}{LIST}certificate_revoked",
    ),
    Row(
        "MUTUAL, a list without the server's certificate",
        ORIGINATE,
        site(ASKING) + secret(PARTNER + ", revocations: true") + originate(MUTUAL),
        200,
    ),
    refused(
        "the list of another CA",
        ORIGINATE,
        site() + secret("trust: partner, revocations: true") + mounted() + originate("mode: SIMPLE, caCrl: /etc/own/ca.crl"),
        f"{VERIFY}{DEPTH}{LIST}unable_to_get_certificate_CRL",
    ),
    Row("revoked, and nobody has the list", ORIGINATE, site("certificate: {recipe: revoked}"), 200),
    # the site's certificate
    Row("system's CA", ORIGINATE, site(), 200),
    refused("unknown CA", ORIGINATE, site("certificate: {ca: unknown}"), UNKNOWN),
    refused("the mesh's own CA outside", ORIGINATE, site("certificate: {recipe: mesh-ca}"), UNKNOWN),
    refused("expired", ORIGINATE, site("certificate: {recipe: expired}"), f"{VERIFY}{DEPTH}certificate_has_expired"),
    refused("not yet valid", ORIGINATE, site("certificate: {recipe: not-yet-valid}"), f"{VERIFY}{DEPTH}certificate_is_not_yet_valid"),
    refused("self-signed", ORIGINATE, site("certificate: {recipe: self-signed}"), f"{VERIFY}{DEPTH}self_signed_certificate"),
    refused("for clients only", ORIGINATE, site("certificate: {recipe: wrong-usage}"), f"{VERIFY}{DEPTH}unsupported_certificate_purpose"),
    refused(
        "another name",
        ORIGINATE,
        site("certificate: {recipe: wrong-name}"),
        f"{VERIFY}verify_SAN_list,_expected_SANs:_[edition.cnn.com],_certificate_SANs:_[wrong.name.invalid]",
    ),
    Row(
        "any certificate, as the field says",
        ORIGINATE,
        site("certificate: {recipe: expired}") + originate("mode: SIMPLE, insecureSkipVerify: true"),
        200,
    ),
    Row("a name that is asked for", ORIGINATE, site() + originate("mode: SIMPLE, subjectAltNames: [edition.cnn.com]"), 200),
    refused(
        "a name that is not there",
        ORIGINATE,
        site() + originate("mode: SIMPLE, subjectAltNames: [other.example]"),
        f"{VERIFY}SAN_matcher,_certificate_SANs_are_[edition.cnn.com]",
    ),
    # the client's certificate
    Row("client certificate by file", ORIGINATE, site(ASKING.replace("partner", "mesh")) + originate(f"mode: MUTUAL, {OWN}"), 200),
    Row("no client certificate", ORIGINATE, site(ASKING), 503, "UC", RESET % "connection_termination", body=ENDED),
    refused(
        "no client certificate, TLS 1.2",
        ORIGINATE,
        site(ASKING + ', maxTls: "1.2"'),
        "OPENSSL_internal:SSLV3_ALERT_HANDSHAKE_FAILURE:TLS_error_end",
    ),
    Row(
        "client certificate of the mesh, for a site of a partner",
        ORIGINATE,
        site(ASKING) + originate(f"mode: MUTUAL, {OWN}"),
        503,
        "UC",
        RESET % "connection_termination",
        body=ENDED,
    ),
    # the hop to the gateway
    Row("mTLS by ISTIO_MUTUAL", HOP, "", 301),
    Row("mTLS by files", FILES, "", 301),
    Row(
        "client certificate of another mesh",
        FILES,
        secret("trust: partner") + mounted() + server(f"{{mode: MUTUAL, {WORKLOAD}, caCertificates: /etc/own/ca.crt}}"),
        503,
        "UC",
        RESET % "connection_termination",
        body=ENDED,
        at="sleep",
    ),
    Row(
        "client certificate that is not the one named by its hash",
        FILES,
        secret("certificate: {names: [edition.cnn.com], ca: mesh}, trust: mesh")
        + hop(f", trafficPolicy: {{tls: {{mode: MUTUAL, {OWN}, {ROOT}, sni: edition.cnn.com}}}}")
        + server(f"{{mode: MUTUAL, credentialName: own, verifyCertificateHash: [{'ab' * 32}]}}"),
        503,
        "UC",
        RESET % "connection_termination",
        body=ENDED,
        at="sleep",
    ),
    Row(
        "client certificate without the name asked for, and the field that lets any in",
        FILES,
        server(f"{{mode: MUTUAL, {WORKLOAD}, {ROOT}, subjectAltNames: [nobody], insecureSkipVerify: true}}"),
        301,
        at="sleep",
    ),
    Row(
        "client certificate without the name asked for",
        FILES,
        server(f"{{mode: MUTUAL, {WORKLOAD}, {ROOT}, subjectAltNames: [nobody]}}"),
        503,
        "UC",
        RESET % "connection_termination",
        body=ENDED,
        at="sleep",
    ),
    Row(
        "no client certificate to the gateway",
        FILES,
        hop(f", trafficPolicy: {{tls: {{mode: SIMPLE, {ROOT}, sni: edition.cnn.com}}}}"),
        503,
        "UC",
        RESET % "connection_termination",
        body=ENDED,
        at="sleep",
    ),
    Row(
        "TLS without a client certificate to the gateway, which asks for none",
        FILES,
        hop(f", trafficPolicy: {{tls: {{mode: SIMPLE, {ROOT}, sni: edition.cnn.com}}}}")
        + server(f"{{mode: SIMPLE, {WORKLOAD}}}"),
        301,
        at="sleep",
    ),
    refused(
        "no version in common",
        FILES,
        server(f"{{mode: MUTUAL, {WORKLOAD}, {ROOT}, minProtocolVersion: TLSV1_0, maxProtocolVersion: TLSV1_1}}"),
        "OPENSSL_internal:TLSV1_ALERT_PROTOCOL_VERSION:TLS_error_end",
        at="sleep",
    ),
    refused(
        "no cipher in common",
        FILES,
        server(f"{{mode: MUTUAL, {WORKLOAD}, {ROOT}, maxProtocolVersion: TLSV1_2, cipherSuites: [ECDHE-RSA-AES128-GCM-SHA256]}}"),
        "SSLV3_ALERT_HANDSHAKE_FAILURE|268435610:SSL_routines:OPENSSL_internal:HANDSHAKE_FAILURE_ON_CLIENT_HELLO",
        at="sleep",
    ),
    Row(
        "no version in common, at a gateway that relays",
        WRAPPED,
        server(f"{{mode: MUTUAL, {WORKLOAD}, {ROOT}, minProtocolVersion: TLSV1_0, maxProtocolVersion: TLSV1_1}}", port=443, protocol="TLS"),
        "reset",
        "-",
        "-",
        "OPENSSL_internal:UNSUPPORTED_PROTOCOL",
        url=HTTPS,
    ),
    Row("plaintext to a TLS port of the gateway", HOP, hop(""), 503, "UC", RESET % "connection_termination", body=ENDED, at="sleep"),
    refused("TLS to a plaintext port of the gateway", HOP, server("", protocol="HTTP"), NOT_TLS, at="sleep"),
    Row("missing subset DestinationRule", HOP, "", 503, "NC", "cluster_not_found", at="sleep", without="egressgateway-for-cnn"),
    # the site's port
    Row(
        "plaintext to a TLS port of the site",
        ORIGINATE,
        site(),
        503,
        "UC",
        RESET % "connection_termination",
        body=ENDED,
        without="originate-tls-for-edition-cnn-com",
    ),
    refused("TLS to a plaintext port of the site", ORIGINATE, site("protocol: http").replace("protocol: https, ", ""), NOT_TLS),
    Row(
        "credentialName on a sidecar, which sends plaintext",
        SIDECAR,
        site() + secret("trust: public") + originate("mode: SIMPLE, credentialName: own"),
        503,
        "UC",
        RESET % "connection_termination",
        body=ENDED,
        at="sleep",
    ),
    Row(
        "a handshake that never completes",
        ORIGINATE,
        site("handshake: stall") + originate("mode: SIMPLE", PRESSED),
        503,
        "URX,UF",
        RESET % "connection_timeout",
        body=TIMED_OUT,
    ),
    refused("a handshake that is reset", ORIGINATE, site("handshake: reset"), "system_library:OPENSSL_internal:Connection_reset_by_peer"),
    # the application's own TLS
    Row("passed through by SNI", PASS, "", 200, details="-", url=HTTPS),
    Row("TLS inside mTLS", WRAPPED, "", 200, details="-", url=HTTPS),
    Row("double TLS", PASS, originate("mode: SIMPLE"), "WRONG_VERSION_NUMBER", details="-", url=HTTPS),
    Row(
        "an SNI that no server has",
        PASS,
        server("{mode: PASSTHROUGH}", port=443, protocol="TLS", hosts="other.example") + led("other.example"),
        "reset",
        "NR",
        "filter_chain_not_found",
        url=HTTPS,
    ),
    Row("SNI differing from Host", PASS, "", 200, details="-", url=HTTPS, host="other.example"),
    Row(
        "TLS to a port declared HTTP, which goes past its routes", SIDECAR, site() + entry("HTTP"), 200, details="-", at="sleep", url=HTTPS
    ),
    Row("reset in mid-handshake, passed through", PASS, site("handshake: reset"), "reset", details="-", url=HTTPS),
]


def mesh_of(row: Row) -> Mesh:
    mesh = meshsim.load(SCENARIOS / row.scenario)
    over = loads(LOGGING + row.changes.rstrip("-\n")).require().resources
    kept = {(r.kind, r.name) for r in over}
    old = [r for r in mesh.documents.resources if (r.kind, r.name) not in kept and r.name != row.without]
    return mesh.changed([*old, *over])


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
async def test_live_and_simulated_give_the_same(row: Row) -> None:
    mesh = mesh_of(row)
    headers = {"Host": row.host} if row.host else {}
    trace = mesh.simulate("sleep", row.url, headers=headers)
    async with mesh.run() as live:
        client, body = await tried(live.pod("sleep"), row.url, headers)
        log = live.proxy(row.at)
        async with asyncio.timeout(5):
            while not log.log():  # a relay logs when its connection ends
                await asyncio.sleep(0.005)
        line = msgspec.json.decode(log.log()[-1])
    fields = access_log.record(LOGGED)
    entry = next(hop.entry for hop in trace.hops if hop.proxy.partition(".")[0] == row.at)
    simulated = {name: fields(entry).get(name) or "-" for name in LOGGED}
    assert (ended(trace), client) == (row.client, row.client), (line, simulated)
    for found in (simulated, {name: line.get(name) or "-" for name in LOGGED}):
        failure = found["upstream"] if found["upstream"] != "-" else found["downstream"]
        assert row.says in failure
        flags = "-" if row.url == HTTPS and found["flags"] == "UR" else found["flags"]  # whether a relay sees who reset first is a race
        assert (flags, found["details"]) == (row.flags, row.details.replace("{says}", found["upstream"]))
    assert (body if client != 200 else "").startswith(row.body)
    assert trace.client.get("body", "").startswith(row.body)


HANDSHAKE = {"handshake": 1, "versions.TLSv1.3": 1, "ciphers.": 1}
COUNTED: dict[str, dict[str, dict[str, int]]] = {  # row: what each proxy counts below `listener.ADDRESS.ssl.` or `cluster.NAME.ssl.`
    "mTLS by ISTIO_MUTUAL": {"sleep": HANDSHAKE, GATEWAY: HANDSHAKE},
    "TLS without a client certificate to the gateway, which asks for none": {
        "sleep": HANDSHAKE,
        GATEWAY: HANDSHAKE | {"no_certificate": 1},
    },
    "no client certificate to the gateway": {"sleep": HANDSHAKE | {"connection_error": 1}, GATEWAY: {"fail_verify_no_cert": 1}},
    "client certificate of another mesh": {"sleep": HANDSHAKE | {"connection_error": 1}, GATEWAY: {"fail_verify_error": 1}},
    "client certificate that is not the one named by its hash": {GATEWAY: {"fail_verify_cert_hash": 1}},
    "client certificate without the name asked for, and the field that lets any in": {
        "sleep": HANDSHAKE,
        GATEWAY: HANDSHAKE | {"fail_verify_san": 1},
    },
    "no cipher in common": {"sleep": {"connection_error": 3}, GATEWAY: {"connection_error": 3}},
    "another name": {"sleep": {}, GATEWAY: {"fail_verify_san": 3}},
    "expired": {"sleep": {}, GATEWAY: {"fail_verify_error": 3}},
    "a handshake that is reset": {"sleep": {}, GATEWAY: {}},
}


@pytest.mark.parametrize("name", COUNTED)
async def test_handshakes_are_counted_as_envoy_does(name: str) -> None:
    row = next(row for row in TABLE if row.name == name)
    async with mesh_of(row).run() as live:
        await tried(live.pod("sleep"), row.url, {})
        found = {proxy: Counter[str]() for proxy in COUNTED[name]}
        for proxy, counts in found.items():
            for line in (await live.proxy(proxy).admin("/stats?filter=ssl")).splitlines():
                counter, _, value = line.partition(".ssl.")[2].rpartition(": ")
                counts["ciphers." if counter.startswith("ciphers.") else counter] += int(value)
    assert {proxy: dict(+counts) for proxy, counts in found.items()} == COUNTED[name]


async def tried(pod: LivePod, url: str, headers: dict[str, str]) -> tuple[int | str, str]:
    """A status, or how the client's TLS ended; and the body."""
    try:
        reply = await pod.get(url, headers)
    except ssl.SSLEOFError:
        return "eof", ""
    except ssl.SSLError as e:
        return e.reason or "", ""
    except ConnectionResetError:
        return "reset", ""
    return reply.status, reply.text


def ended(trace: Trace) -> int | str:
    """The same of a trace."""
    shown = trace.client.get("tls", {}).get("error", "")
    return trace.client["status"] if "status" in trace.client else shown.removeprefix("tls: ")
