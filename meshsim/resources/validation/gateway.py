"""Gateway, and the server TLS settings it shares with Sidecar (Istio: ValidateGateway, validateServer, validateTLSOptions)."""

from __future__ import annotations

from meshsim.resources.gateway import GatewaySpec, Port, Server, ServerTlsSettings
from meshsim.resources.resource import ObjectMeta
from meshsim.resources.validation import names
from meshsim.resources.validation.golang import listing, quote
from meshsim.resources.validation.report import Report

_CIPHERS = frozenset((
    "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-RSA-CHACHA20-POLY1305", "ECDHE-ECDSA-AES128-SHA", "ECDHE-RSA-AES128-SHA",
    "ECDHE-ECDSA-AES256-SHA", "ECDHE-RSA-AES256-SHA", "AES128-GCM-SHA256", "AES256-GCM-SHA384", "AES128-SHA", "AES256-SHA", "DES-CBC3-SHA",
))  # fmt: skip
_SUPPORTED = "HTTP, HTTP2, GRPC, GRPC-WEB, MONGO, REDIS, MYSQL, TCP"
_VERIFYING = ("SIMPLE", "MUTUAL", "OPTIONAL_MUTUAL")


def gateway(spec: GatewaySpec, meta: ObjectMeta, report: Report) -> None:
    if not names.is_label(meta.name):
        report.at(f"invalid gateway name: {quote(meta.name)}", ("metadata", "name"))
    if not spec.servers:
        report.error("gateway must have at least one server", "servers")
    for i, server in enumerate(spec.servers):
        _server(server, report, i)
    seen: set[str] = set()
    for i, server in enumerate(spec.servers):
        if server.port is None:
            continue
        if server.port.name in seen:
            report.error(f"port names in servers must be unique: duplicate name {server.port.name}", "servers", i, "port", "name")
        seen.add(server.port.name)
        if names.protocol(server.port.protocol) not in names.HTTP and server.tls and server.tls.https_redirect:
            report.warn("tls.httpsRedirect should only be used with http servers", "servers", i, "tls", "httpsRedirect")


def _server(server: Server, report: Report, i: int) -> None:
    at = ("servers", i)
    if not server.hosts:
        report.error("server config must contain at least one host", *at, "hosts")
    for j, host in enumerate(server.hosts):
        for said in names.namespaced_host(host, gateway=True):
            report.error(said, *at, "hosts", j)
    port_is_right = _port(server.port, server.bind, report, i)
    if server.bind.startswith(names.UNIX):
        report.check(names.unix_address(server.bind.removeprefix(names.UNIX)), *at, "bind")
        if server.port is not None and server.port.number:
            report.error(f"port number must be 0 for unix domain socket: {_print(server.port)}", *at, "port", "number")
    elif server.bind:
        report.check(names.ip(server.bind), *at, "bind")
    tls_options(server.tls, report, (*at, "tls"))
    if not port_is_right or server.port is None:
        return
    protocol, tls = names.protocol(server.port.protocol), server.tls
    if protocol in names.TLS:
        if tls is None:
            report.error("server must have TLS settings for HTTPS/TLS protocols", *at, "port", "protocol")
    elif tls is not None:
        if protocol not in names.HTTP:
            report.error("server cannot have TLS settings for non HTTPS/TLS ports", *at, "tls")
        elif tls.mode not in ("PASSTHROUGH", "AUTO_PASSTHROUGH") or tls.ca_certificates or tls.private_key or tls.server_certificate:
            report.error("server cannot have TLS settings for plain text HTTP ports", *at, "tls")


def _port(port: Port | None, bind: str, report: Report, i: int) -> bool:
    """Whether the server's port is right."""
    if port is None:
        report.error("port is required", "servers", i)
        return False
    at = ("servers", i, "port")
    before = len(report.problems)
    if not names.protocol(port.protocol):
        report.error(f"invalid protocol {quote(port.protocol)}, supported protocols are {_SUPPORTED}", *at, "protocol")
    if port.number > 0 or not bind.startswith(names.UNIX):
        report.check(names.port(port.number), *at, "number")
    if port.target_port > 0:
        report.error("targetPort has no impact on Gateways", *at, "targetPort")
    if not port.name:
        report.error(f"port name must be set: {_print(port)}", *at)
    return len(report.problems) == before


def _print(port: Port) -> str:
    """A protobuf message as Go's `%v` prints it."""
    parts = [f"number:{port.number}" if port.number else "", f"protocol:{quote(port.protocol)}" if port.protocol else "",
             f"name:{quote(port.name)}" if port.name else "", f"target_port:{port.target_port}" if port.target_port else ""]  # fmt: skip
    return "  ".join(p for p in parts if p)


def _is_cipher(name: str) -> bool:
    """Names that begin with an operator (`-ALL`, `+RSA`) are taken as they are."""
    return name in ("", "ALL") or not name[0].isalnum() or name in _CIPHERS


def tls_options(tls: ServerTlsSettings | None, report: Report, at: tuple[str | int, ...]) -> None:
    if tls is None:
        return
    if tls.min_protocol_version in ("TLSV1_0", "TLSV1_1") and not tls.cipher_suites:
        report.warn("TLS version below TLSV1_2 require setting compatible ciphers as by default they no longer include compatible ciphers.",
                    *at, "minProtocolVersion")
    invalid = sorted({c for c in tls.cipher_suites if not _is_cipher(c)})
    twice = sorted({c for c in tls.cipher_suites if _is_cipher(c) and tls.cipher_suites.count(c) > 1})
    if invalid:
        report.warn(f"ignoring invalid cipher suites: {listing(invalid)}", *at, "cipherSuites")
    if twice:
        report.warn(f"ignoring duplicate cipher suites: {listing(twice)}", *at, "cipherSuites")
    if tls.mode == "ISTIO_MUTUAL":
        _own_certificates(tls, report, at)
        return
    named = bool(tls.credential_name or tls.credential_names)
    files = bool(tls.server_certificate or tls.private_key or tls.ca_certificates or tls.ca_crl)
    if tls.mode in ("PASSTHROUGH", "AUTO_PASSTHROUGH") and (files or named or tls.tls_certificates):
        report.warn(f"{tls.mode} mode does not use certificates, they will be ignored", *at)
    sources = (tls.server_certificate and tls.private_key, tls.credential_name, tls.credential_names, tls.tls_certificates)
    if sum(map(bool, sources)) > 1:
        report.error("only one of credential_name, credential_names, server_certificate/private_key, tls_certificates should be specified",
                     *at)
    if tls.mode in _VERIFYING:
        if named:
            return  # the secret is looked at when it arrives
        _certificates(tls, report, at)
    if tls.ca_crl:
        if tls.credential_name:
            report.error("CRL is not supported with credentialName. CRL has to be specified in the credential", *at, "caCrl")
        if tls.mode == "SIMPLE":
            report.error("CRL is not supported with SIMPLE TLS", *at, "caCrl")


def _own_certificates(tls: ServerTlsSettings, report: Report, at: tuple[str | int, ...]) -> None:
    """ISTIO_MUTUAL uses the workload's certificate, so nothing may name another."""
    given = {
        "serverCertificate": (tls.server_certificate, "server certificate"), "privateKey": (tls.private_key, "private key"),
        "caCertificates": (tls.ca_certificates, "CA bundle"), "tlsCertificates": (tls.tls_certificates, "tlsCertificates"),
        "credentialName": (tls.credential_name, "credentialName"), "credentialNames": (tls.credential_names, "credentialNames"),
    }  # fmt: skip
    for field, (value, what) in given.items():
        if value:
            report.error(f"ISTIO_MUTUAL TLS cannot have associated {what}", *at, field)


def _certificates(tls: ServerTlsSettings, report: Report, at: tuple[str | int, ...]) -> None:
    kind = "SIMPLE TLS" if tls.mode == "SIMPLE" else "MUTUAL TLS"
    if tls.mode != "SIMPLE" and not tls.ca_certificates:
        report.error(f"{kind} requires a client CA bundle", *at, "caCertificates")
    if len(tls.tls_certificates) > 2:
        report.warn(f"{kind} can support up to 2 server certificates", *at, "tlsCertificates")
    pairs = [(c.server_certificate, c.private_key) for c in tls.tls_certificates] or [(tls.server_certificate, tls.private_key)]
    for certificate, key in pairs:
        if not certificate:
            report.error(f"{kind} requires a server certificate", *at)
        if not key:
            report.error(f"{kind} requires a private key", *at)
