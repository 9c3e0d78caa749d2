"""DestinationRule, and the pool settings it shares with Sidecar (Istio: ValidateDestinationRule, validateTrafficPolicy, ValidateTLS)."""

from __future__ import annotations

import math

from meshsim.resources.destination_rule import (
    ClientTlsSettings,
    ConnectionPoolSettings,
    ConsistentHash,
    DestinationRuleSpec,
    HttpSettings,
    LoadBalancerSettings,
    OutlierDetection,
    PortTrafficPolicy,
    TcpSettings,
    TrafficPolicy,
    TunnelSettings,
)
from meshsim.resources.resource import ObjectMeta
from meshsim.resources.shape import nanoseconds
from meshsim.resources.validation import names
from meshsim.resources.validation.golang import quote
from meshsim.resources.validation.localities import locality_lb, zone_aware_lb
from meshsim.resources.validation.peer_authentication import selector
from meshsim.resources.validation.report import Report

At = tuple[str | int, ...]
_CONFIG_MAP = "configmap://"


def destination_rule(spec: DestinationRuleSpec, meta: ObjectMeta, report: Report) -> None:
    report.check(names.wildcard_domain(spec.host), "host")
    _traffic_policy(spec.traffic_policy, meta.namespace, report, ("trafficPolicy",))
    seen: set[str] = set()
    for i, subset in enumerate(spec.subsets):
        if subset.name in seen:
            report.error(f"duplicate subset names: {subset.name}", "subsets", i, "name")
        seen.add(subset.name)
        report.check(names.subset(subset.name), "subsets", i, "name")
        for said, key in names.labels(subset.labels):
            report.error(said, "subsets", i, "labels", key)
        _traffic_policy(subset.traffic_policy, meta.namespace, report, ("subsets", i, "trafficPolicy"), quiet=True)
    names.export_to(report, meta.namespace, spec.export_to, selects=spec.workload_selector is not None)
    selector(spec.workload_selector, report, "workloadSelector")


def _traffic_policy(policy: TrafficPolicy | None, namespace: str, report: Report, at: At, *, quiet: bool = False) -> None:
    """`quiet`: Istio loses the warnings of what stands in a subset, and of the settings of single ports."""
    if policy is None:
        return
    parts = (policy.outlier_detection, policy.connection_pool, policy.load_balancer, policy.tls, policy.tunnel, policy.proxy_protocol,
             policy.retry_budget)  # fmt: skip
    if all(part is None for part in parts) and not policy.port_level_settings:
        report.error("traffic policy must have at least one field", *at)
        return
    if policy.tunnel is not None and policy.proxy_protocol is not None:
        report.error("tunnel and proxyProtocol must not be set together", *at, "tunnel")
        return
    _settings(policy, namespace, report, at, quiet=quiet)
    for i, port in enumerate(policy.port_level_settings):
        here = (*at, "portLevelSettings", i)
        if port.port is None:
            report.error("portTrafficPolicy must have valid port", *here)
        if all(part is None for part in (port.outlier_detection, port.connection_pool, port.load_balancer, port.tls)):
            report.error("port traffic policy must have at least one field", *here)
        else:
            _settings(port, namespace, report, here, quiet=True)
    if policy.tunnel is not None:
        _tunnel(policy.tunnel, report, (*at, "tunnel"))


def _settings(policy: TrafficPolicy | PortTrafficPolicy, namespace: str, report: Report, at: At, *, quiet: bool) -> None:
    _outlier(policy.outlier_detection, report, (*at, "outlierDetection"), quiet=quiet)
    connection_pool(policy.connection_pool, report, (*at, "connectionPool"))
    _load_balancer(policy.load_balancer, policy.outlier_detection, report, (*at, "loadBalancer"), quiet=quiet)
    _tls(policy.tls, namespace, report, (*at, "tls"))


def _tunnel(tunnel: TunnelSettings, report: Report, at: At) -> None:
    if tunnel.protocol not in ("", "CONNECT", "POST"):
        report.error('tunnel protocol must be "CONNECT" or "POST"', *at, "protocol")
    name, address = names.fqdn(tunnel.target_host), names.ip(tunnel.target_host)
    if name and address:
        report.error(f"tunnel target host must be valid FQDN or IP address: {name}; {address}", *at, "targetHost")
    if said := names.port(tunnel.target_port):
        report.error(f"tunnel target port is invalid: {said}", *at, "targetPort")


def _outlier(outlier: OutlierDetection | None, report: Report, at: At, *, quiet: bool) -> None:
    if outlier is None:
        return
    report.check(names.duration(outlier.base_ejection_time), *at, "baseEjectionTime")
    if outlier.consecutive_errors and not quiet:
        report.warn("outlier detection consecutive errors is deprecated, use consecutiveGatewayErrors or consecutive5xxErrors instead",
                    *at, "consecutiveErrors")
    if not outlier.split_external_local_origin_errors and (outlier.consecutive_local_origin_failures or 0) > 0:
        report.error("outlier detection consecutive local origin failures is specified, but split external local origin errors is set to "
                     "false", *at, "consecutiveLocalOriginFailures")
    report.check(names.duration(outlier.interval), *at, "interval")
    for field, percent in (("maxEjectionPercent", outlier.max_ejection_percent), ("minHealthPercent", outlier.min_health_percent)):
        if not 0 <= percent <= 100:
            report.error(f"percentage {percent} is not in range 0..100", *at, field)


def connection_pool(pool: ConnectionPoolSettings | None, report: Report, at: At) -> None:
    if pool is None:
        return
    if pool.http is None and pool.tcp is None:
        report.error("connection pool must have at least one field", *at)
        return
    if pool.http is not None:
        _http(pool.http, report, (*at, "http"))
    if pool.tcp is not None:
        _tcp(pool.tcp, report, (*at, "tcp"))


def _not_negative(value: int, what: str, report: Report, *at: str | int) -> None:
    if value < 0:
        report.error(f"{what} must be non-negative", *at)


def _http(http: HttpSettings, report: Report, at: At) -> None:
    _not_negative(http.http1_max_pending_requests, "http1 max pending requests", report, *at, "http1MaxPendingRequests")
    _not_negative(http.http2_max_requests, "http2 max requests", report, *at, "http2MaxRequests")
    _not_negative(http.max_requests_per_connection, "max requests per connection", report, *at, "maxRequestsPerConnection")
    _not_negative(http.max_retries, "max retries", report, *at, "maxRetries")
    report.check(names.duration(http.idle_timeout), *at, "idleTimeout")
    if http.h2_upgrade_policy == "UPGRADE" and http.use_client_protocol:
        report.error("use client protocol must not be true when H2UpgradePolicy is UPGRADE", *at, "useClientProtocol")
    _not_negative(http.max_concurrent_streams, "max concurrent streams", report, *at, "maxConcurrentStreams")
    if http.http2_keep_alive is not None:
        for field in ("interval", "timeout"):
            value = getattr(http.http2_keep_alive, field)
            said = f"http2 keepalive {field} is required" if value is None else names.duration(value)
            report.check(said, *at, "http2KeepAlive", field)


def _tcp(tcp: TcpSettings, report: Report, at: At) -> None:
    _not_negative(tcp.max_connections, "max connections", report, *at, "maxConnections")
    report.check(names.duration(tcp.connect_timeout), *at, "connectTimeout")
    report.check(names.duration(tcp.max_connection_duration), *at, "maxConnectionDuration")
    if tcp.idle_timeout is not None and abs(nanoseconds(tcp.idle_timeout)) >= 1_000_000:  # less is none at all, which is allowed
        report.check(names.duration(tcp.idle_timeout), *at, "idleTimeout")
    if tcp.tcp_keepalive is not None:
        report.check(names.duration(tcp.tcp_keepalive.time), *at, "tcpKeepalive", "time")
        report.check(names.duration(tcp.tcp_keepalive.interval), *at, "tcpKeepalive", "interval")


def _load_balancer(lb: LoadBalancerSettings | None, outlier: OutlierDetection | None, report: Report, at: At, *, quiet: bool) -> None:
    if lb is None:
        return
    if lb.consistent_hash is not None:
        _consistent_hash(lb.consistent_hash, report, (*at, "consistentHash"), quiet=quiet)
    if lb.locality_lb_setting is not None and lb.zone_aware_lb_setting is not None:
        report.error("only one of localityLbSetting and zoneAwareLbSetting can be set", *at, "zoneAwareLbSetting")
    locality_lb(lb.locality_lb_setting, outlier is not None or quiet, report, (*at, "localityLbSetting"))
    zone_aware_lb(lb.zone_aware_lb_setting, outlier is not None or quiet, report, (*at, "zoneAwareLbSetting"))
    if (warmup := lb.warmup) is not None:
        here = (*at, "warmup")
        report.check("duration is required" if warmup.duration is None else names.duration(warmup.duration), *here, "duration")
        if (warmup.minimum_percent or 0) > 100:
            report.error("minimumPercent value should be less than or equal to 100", *here, "minimumPercent")
        if warmup.aggression is not None and warmup.aggression <= 0:
            report.error("aggression should be greater than 0", *here, "aggression")


def _consistent_hash(hashing: ConsistentHash, report: Report, at: At, *, quiet: bool) -> None:
    cookie = hashing.http_cookie
    if cookie is not None:
        here = (*at, "httpCookie")
        if not cookie.name:
            report.error("name required for HttpCookie", *here, "name")
        seen: set[str] = set()
        for i, attribute in enumerate(cookie.attributes):
            if not attribute.name:
                report.error("cookie attribute name cannot be empty", *here, "attributes", i)
            elif attribute.name in seen:
                report.error(f"duplicate cookie attribute name: {attribute.name}", *here, "attributes", i)
            seen.add(attribute.name)
    if hashing.minimum_ring_size:
        if not quiet:
            report.warn("consistent hash MinimumRingSize is deprecated, use ConsistentHashLB's RingHash configuration instead",
                        *at, "minimumRingSize")
        if hashing.ring_hash is not None or hashing.maglev is not None:
            report.error("only one of MinimumRingSize or Maglev/Ringhash can be specified", *at, "minimumRingSize")
    if hashing.maglev is not None:
        size, here = hashing.maglev.table_size, (*at, "maglev", "tableSize")
        if size == 0:
            report.error("tableSize must be set for maglev", *here)
        if size >= 5000011:
            report.error("tableSize must be less than 5000011 for maglev", *here)
        if not _is_prime(size):
            report.error("tableSize must be a prime number for maglev", *here)


def _is_prime(number: int) -> bool:
    """Envoy's own test; 1 passes, and so does any odd number too large to try."""
    if 0 < number < 4:
        return True
    return number % 2 == 1 and all(number % factor for factor in range(3, min(math.isqrt(number), 2_000_000) + 1, 2))


def _tls(tls: ClientTlsSettings | None, namespace: str, report: Report, at: At) -> None:
    if tls is None:
        return
    if tls.credential_name.startswith(_CONFIG_MAP):
        report.check(_config_map(tls.credential_name, namespace), *at, "credentialName")
    if tls.insecure_skip_verify:
        here = (*at, "insecureSkipVerify")
        if tls.mode == "SIMPLE" and (tls.ca_certificates or tls.credential_name or tls.subject_alt_names):
            report.error("cannot specify CaCertificates or CredentialName or SubjectAltNames when InsecureSkipVerify is set true", *here)
        if tls.mode == "MUTUAL" and (tls.ca_certificates or tls.subject_alt_names):
            report.error("cannot specify CaCertificates or SubjectAltNames when InsecureSkipVerify is set true", *here)
    if tls.mode in ("SIMPLE", "MUTUAL") and tls.credential_name:
        if tls.client_certificate or tls.ca_certificates or tls.private_key or tls.ca_crl:
            report.error("cannot specify client certificates or CA certificate or CA CRL If credentialName is set", *at, "credentialName")
    elif tls.mode == "MUTUAL":
        if not tls.client_certificate:
            report.error("client certificate required for mutual tls", *at)
        if not tls.private_key:
            report.error("private key required for mutual tls", *at)


def _config_map(credential: str, namespace: str) -> str | None:
    parts = credential.removeprefix(_CONFIG_MAP).split("/")
    said = "invalid configmap:// credentialName: "
    if len(parts) == 1 and parts[0]:
        return None
    if len(parts) == 2 and all(parts):
        return None if parts[0] == namespace else f"{said}namespace must match the configuration namespace {quote(namespace)}"
    return f"{said}invalid resource name {quote(credential)}. Expected namespace and name"
