"""Sidecar (Istio: ValidateSidecar)."""

from __future__ import annotations

from meshsim.resources.resource import ObjectMeta
from meshsim.resources.sidecar import IstioEgressListener, IstioIngressListener, OutboundTrafficPolicy, SidecarPort, SidecarSpec
from meshsim.resources.validation import names
from meshsim.resources.validation.destination_rule import connection_pool
from meshsim.resources.validation.gateway import tls_options
from meshsim.resources.validation.golang import integer, quote, split_host_port
from meshsim.resources.validation.report import Report
from meshsim.resources.validation.virtual_service import destination

_LOCAL = ("", "127.0.0.1", "0.0.0.0", "::1", "::")


def sidecar(spec: SidecarSpec, meta: ObjectMeta, report: Report) -> None:
    labels = spec.workload_selector.labels if spec.workload_selector else {}
    wrong = list(names.selector(labels))
    for said, key in wrong:
        report.error(said, "workloadSelector", "labels", key)
    if wrong:
        return  # Istio stops here
    if not spec.egress and not spec.ingress and spec.outbound_traffic_policy is None and spec.inbound_connection_pool is None:
        report.error("sidecar: empty configuration provided")
        return
    if spec.workload_selector is not None and not labels:
        report.warn("sidecar: workload selector specified without labels, will be applied to all services in namespace", "workloadSelector")
    seen: set[int] = set()
    for i, listener in enumerate(spec.ingress):
        _ingress(listener, seen, report, i)
    connection_pool(spec.inbound_connection_pool, report, ("inboundConnectionPool",))
    _egress_listeners(spec.egress, meta.namespace, report)
    if spec.outbound_traffic_policy is not None:
        _outbound(spec.outbound_traffic_policy, report)


def _ingress(listener: IstioIngressListener, seen: set[int], report: Report, i: int) -> None:
    at, port = ("ingress", i), listener.port
    if port is None:
        report.error("sidecar: port is required for ingress listeners", *at)
        return
    if port.target_port > 0:
        report.error("targetPort has no impact on Sidecars", *at, "port", "targetPort")
    if port.name:
        report.check(names.port_name(port.name), *at, "port", "name")
    report.check(names.known_protocol(port.protocol), *at, "port", "protocol")
    report.check(names.port(port.number), *at, "port", "number")
    if listener.bind:
        report.check(names.ip(listener.bind), *at, "bind")
    if port.number in seen:
        report.error("sidecar: ports on IP bound listeners must be unique", *at, "port", "number")
    seen.add(port.number)
    if listener.default_endpoint:
        _endpoint(listener.default_endpoint, report, (*at, "defaultEndpoint"))
    if listener.tls is not None:
        _ingress_tls(listener, port, report, (*at, "tls"))
    connection_pool(listener.connection_pool, report, (*at, "connectionPool"))
    if listener.connection_pool and listener.connection_pool.http and names.protocol(port.protocol) not in names.HTTP:
        report.warn(f"sidecar: HTTP connection pool settings are configured for port {port.number} ({quote(port.name)}) but its protocol "
                    f"is not HTTP ({port.protocol}); only TCP settings will apply", *at, "connectionPool", "http")


def _endpoint(endpoint: str, report: Report, at: tuple[str | int, ...]) -> None:
    if endpoint.startswith(names.UNIX):
        report.check(names.unix_address(endpoint.removeprefix(names.UNIX)), *at)
        return
    host, port, said = split_host_port(endpoint)
    report.check(said, *at)
    if host not in _LOCAL:
        report.error("sidecar: defaultEndpoint must be of form 127.0.0.1:<port>,0.0.0.0:<port>,[::1]:port,[::]:port,unix://filepath or "
                     "unset", *at)
    number = integer(port)
    if number is None:
        report.error(f"sidecar: defaultEndpoint port ({port}) is not a number: strconv.Atoi: parsing {quote(port)}: invalid syntax", *at)
    else:
        report.check(names.port(number), *at)


def _ingress_tls(listener: IstioIngressListener, port: SidecarPort, report: Report, at: tuple[str | int, ...]) -> None:
    tls = listener.tls
    assert tls is not None
    unsupported = {
        "subjectAltNames": (tls.subject_alt_names, "subjectAltNames is not supported in ingress tls"),
        "httpsRedirect": (tls.https_redirect, "httpsRedirect is not supported"),
        "credentialName": (tls.credential_name, "credentialName is not currently supported"),
        "credentialNames": (tls.credential_names, "credentialNames is not currently supported"),
        "tlsCertificates": (tls.tls_certificates, "tls_certificates is not currently supported"),
    }
    for field, (value, said) in unsupported.items():
        if value:
            report.error(f"sidecar: {said}", *at, field)
    if tls.mode in ("ISTIO_MUTUAL", "AUTO_PASSTHROUGH"):
        report.error(f"configuration is invalid: cannot set mode to {tls.mode} in sidecar ingress tls", *at, "mode")
    if names.protocol(port.protocol) not in names.TLS:
        report.error("server cannot have TLS settings for non HTTPS/TLS ports", *at)
    tls_options(tls, report, at)


def _egress_listeners(listeners: list[IstioEgressListener], namespace: str, report: Report) -> None:
    numbers: set[int] = set()
    sockets: set[str] = set()
    for i, listener in enumerate(listeners):
        at, port = ("egress", i), listener.port
        if port is None:
            if i != len(listeners) - 1:
                report.error("sidecar: the egress listener with empty port should be the last listener in the list", *at)
        else:
            _egress_port(listener, port, report, i)
            if port.number == 0:
                if listener.bind in sockets:
                    report.error("sidecar: unix domain socket values for listeners must be unique", *at, "bind")
                sockets.add(listener.bind)
            elif port.number in numbers:
                report.error("sidecar: ports on IP bound listeners must be unique", *at, "port", "number")
            else:
                numbers.add(port.number)
        _egress_hosts(listener.hosts, namespace, report, i)


def _egress_port(listener: IstioEgressListener, port: SidecarPort, report: Report, i: int) -> None:
    at = ("egress", i)
    if port.target_port > 0:
        report.error("targetPort has no impact on Sidecars", *at, "port", "targetPort")
    if port.name:
        report.check(names.port_name(port.name), *at, "port", "name")
    report.check(names.known_protocol(port.protocol), *at, "port", "protocol")
    if port.number == 0:
        if not listener.bind.startswith(names.UNIX):
            report.error("sidecar: ports with 0 value must have a unix domain socket bind address", *at, "port")
        else:
            report.check(names.unix_address(listener.bind.removeprefix(names.UNIX)), *at, "bind")
        if listener.capture_mode == "IPTABLES":
            report.error("sidecar: captureMode must be DEFAULT/NONE for unix domain socket listeners", *at, "captureMode")
        return
    report.check(names.port(port.number), *at, "port", "number")
    if listener.bind:
        report.check(names.ip(listener.bind), *at, "bind")


def _egress_hosts(hosts: list[str], namespace: str, report: Report, i: int) -> None:
    at = ("egress", i, "hosts")
    if not hosts:
        report.error("sidecar: egress listener must contain at least one host", *at)
        return
    taken: dict[str, set[str]] = {}
    for j, host in enumerate(hosts):
        where, slash, name = host.partition("/")
        if slash and not where.startswith("~"):
            others = taken.setdefault(namespace if where == "." else where, set())
            if (name in others or "*" in others) if name != "*" else others:
                report.warn(f"duplicated egress host: {host}", *at, j)
            others.add(name)
        for said in names.namespaced_host(host, gateway=False):
            report.error(said, *at, j)
    if "*" in taken.get("*", ()) and len(taken) != 1:
        report.warn("`*/*` host select all resources, no other hosts can be added", *at)


def _outbound(policy: OutboundTrafficPolicy, report: Report) -> None:
    at = ("outboundTrafficPolicy", "egressProxy")
    if policy.egress_proxy is None:
        return
    if policy.mode != "ALLOW_ANY":
        report.error("sidecar: egress_proxy must be set only with ALLOW_ANY outbound_traffic_policy mode", *at)
        return
    report.check(names.fqdn(policy.egress_proxy.host), *at, "host")
    if policy.egress_proxy.port is None:
        report.error("sidecar: egress_proxy port must be non-nil", *at)
        return
    destination(policy.egress_proxy, report, at)
