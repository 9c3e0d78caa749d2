"""Settings that do less, or more, than they seem to: TLS without a CA, TCP without addresses, fields without effect."""

from __future__ import annotations

from collections.abc import Iterator

from meshsim.analysis.catalogue import Documents
from meshsim.analysis.findings import Finding, finding, full_name, listed
from meshsim.resources.destination_rule import ClientTlsSettings, DestinationRuleSpec
from meshsim.resources.resource import Resource
from meshsim.resources.telemetry import TelemetrySpec

AUTO_ALLOCATION = ("ISTIO_META_DNS_AUTO_ALLOCATE", "PILOT_ENABLE_IP_AUTOALLOCATE")


def certificate_authorities(documents: Documents) -> Iterator[Finding]:
    """TLS to a server without `caCertificates` (istioctl's reading; today's proxies then use the system's)."""
    for rule in documents.of("DestinationRule"):
        policy = rule.spec.traffic_policy
        if policy is None:
            continue
        name, namespace, host = full_name(rule), rule.namespace, rule.spec.host
        if policy.tls is not None and _unverified(policy.tls, rule.spec):
            yield finding("IST0128", rule, name, namespace, policy.tls.mode, host, at=("trafficPolicy", "tls"))
        for index, setting in enumerate(policy.port_level_settings):
            if setting.tls is not None and _unverified(setting.tls, rule.spec):
                port = f"number:{setting.port.number}" if setting.port and setting.port.number else ""
                at = ("trafficPolicy", "portLevelSettings", index, "tls")
                yield finding("IST0129", rule, name, namespace, setting.tls.mode, host, port, at=at)


def _unverified(tls: ClientTlsSettings, rule: DestinationRuleSpec) -> bool:
    if tls.mode not in ("SIMPLE", "MUTUAL") or tls.ca_certificates:
        return False
    return not (tls.credential_name and rule.workload_selector is not None)


def service_entry_addresses(documents: Documents) -> Iterator[Finding]:
    """A TCP port without an address: its listener takes every destination on that port."""
    config = documents.mesh.default_config
    metadata = config.proxy_metadata if config else {}
    if metadata.get("ISTIO_META_DNS_CAPTURE") == "true" and any(metadata.get(name) == "true" for name in AUTO_ALLOCATION):
        return
    for entry in documents.of("ServiceEntry"):
        allocated = (entry.raw.get("status") or {}).get("addresses")  # by Istio's address controller, if it runs
        for index, port in enumerate(entry.spec.ports if not (entry.spec.addresses or allocated) else []):
            if port.protocol.upper() in ("", "TCP"):
                yield finding("IST0134", entry, at=("ports", index))


def deprecated_fields(documents: Documents) -> Iterator[Finding]:
    for service in documents.of("VirtualService"):
        for index, rule in enumerate(service.spec.http):
            if rule.fault and rule.fault.delay and rule.fault.delay.percent > 0:
                text = "HTTPRoute.fault.delay.percent is deprecated; use HTTPRoute.fault.delay.percentage"
                yield finding("IST0002", service, text, at=("http", index, "fault", "delay", "percent"))
    for sidecar in documents.of("Sidecar"):
        outbound = sidecar.spec.outbound_traffic_policy
        if outbound is not None and outbound.egress_proxy is not None:
            at = ("outboundTrafficPolicy", "egressProxy")
            yield finding("IST0002", sidecar, "OutboundTrafficPolicy.EgressProxy ignored", at=at)


def telemetry_providers(documents: Documents) -> Iterator[Finding]:
    """Access logging that names no provider where MeshConfig has no default one."""
    if documents.mesh.default_providers and documents.mesh.default_providers.access_logging:
        return
    for telemetry in documents.of("Telemetry"):
        for index, logging in enumerate(telemetry.spec.access_logging):
            if not logging.disabled and not logging.providers:
                yield finding("IST0157", telemetry, telemetry.name, telemetry.namespace, at=("accessLogging", index))


def default_telemetries(documents: Documents) -> Iterator[Finding]:
    """Several Telemetries for every workload of a namespace, of which only one can count."""
    by_namespace: dict[str, list[Resource[TelemetrySpec]]] = {}
    for telemetry in documents.of("Telemetry"):
        if telemetry.spec.selector is None:
            by_namespace.setdefault(telemetry.namespace, []).append(telemetry)
    for namespace, found in by_namespace.items():
        for telemetry in found if len(found) > 1 else []:
            yield finding("IST0160", telemetry, listed(sorted(t.name for t in found)), namespace)


def port_names(documents: Documents) -> Iterator[Finding]:
    """A Service port whose protocol has to be guessed."""
    known = ("http", "http2", "https", "tcp", "tls", "grpc", "grpc-web", "mongo", "mysql", "redis", "udp")
    for service in documents.of("Service"):
        for index, port in enumerate(service.spec.ports):
            first = port.name.lower().partition("-")[0]
            named = bool(port.app_protocol) or first in known or port.protocol == "UDP" or port.port in (25, 53, 3306, 27017)
            if not named:
                target = port.target_port if port.target_port is not None else 0
                yield finding("IST0118", service, port.name, port.port, target, at=("ports", index))
