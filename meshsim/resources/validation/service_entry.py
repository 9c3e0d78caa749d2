"""ServiceEntry, WorkloadEntry and WorkloadGroup (Istio: ValidateServiceEntry, validateWorkloadEntry, ValidateWorkloadGroup)."""

from __future__ import annotations

from meshsim.resources.resource import ObjectMeta
from meshsim.resources.service_entry import ServiceEntrySpec
from meshsim.resources.validation import names
from meshsim.resources.validation.addresses import is_ip
from meshsim.resources.validation.golang import quote, several
from meshsim.resources.validation.report import Report
from meshsim.resources.workload_entry import ReadinessProbe, WorkloadEntrySpec, WorkloadGroupSpec

_DYNAMIC = frozenset({"HTTP", "TLS", "GRPC", "HTTP2"})


def service_entry(spec: ServiceEntrySpec, meta: ObjectMeta, report: Report) -> None:
    if spec.workload_selector is not None:
        wrong = list(names.selector(spec.workload_selector.labels))
        for said, key in wrong:
            report.error(said, "workloadSelector", "labels", key)
        if wrong:
            return  # Istio stops here
        if not spec.workload_selector.labels:
            report.warn("service entry: workload selector specified without labels, will be applied to all services in namespace",
                        "workloadSelector")
        if spec.endpoints:
            report.error("only one of WorkloadSelector or Endpoints is allowed in Service Entry", "endpoints")
    _hosts(spec, report)
    for i, address in enumerate(spec.addresses):
        report.check(names.subnet(address), "addresses", i)
    if spec.resolution not in ("NONE", "STATIC"):
        cidr = next((i for i, address in enumerate(spec.addresses) if "/" in address), None)
        if cidr is not None:
            report.error("CIDR addresses are allowed only for NONE/STATIC resolution types", "addresses", cidr)
    _ports(spec, meta, report)
    _RESOLUTIONS[spec.resolution](spec, meta, report)
    if spec.resolution != "NONE" and len(spec.hosts) > 1:
        for i, port in enumerate(spec.ports):
            if names.protocol(port.protocol) not in names.HTTP | names.TLS:
                report.error("multiple hosts provided with non-HTTP, non-TLS ports", "ports", i)
                break
    names.export_to(report, meta.namespace, spec.export_to, service_entry=True)


def _hosts(spec: ServiceEntrySpec, report: Report) -> None:
    if not spec.hosts:
        report.error("service entry must have at least one host", "hosts")
    for i, host in enumerate(spec.hosts):
        if host == "*":
            report.error("invalid host *", "hosts", i)
            continue
        report.check(names.wildcard_domain(host), "hosts", i)
        if spec.resolution != "DYNAMIC_DNS" and (said := names.partial_wildcard(host)):
            report.warn(said, "hosts", i)


def _ports(spec: ServiceEntrySpec, meta: ObjectMeta, report: Report) -> None:
    allocates = spec.resolution != "NONE" and meta.labels.get("networking.istio.io/enable-autoallocate-ip", "").lower() != "false"
    seen_names: set[str] = set()
    seen_numbers: set[int] = set()
    for i, port in enumerate(spec.ports):
        if port.name in seen_names:
            report.error(f"service entry port name {quote(port.name)} already defined", "ports", i, "name")
        if port.number in seen_numbers:
            report.error(f"service entry port {port.number} already defined", "ports", i, "number")
        seen_names.add(port.name)
        seen_numbers.add(port.number)
        if port.target_port:
            report.check(names.port(port.target_port), "ports", i, "targetPort")
        if not spec.addresses and not allocates and port.protocol in ("", "TCP"):
            report.warn("addresses are required for ports serving TCP (or unset) protocol when IP Autoallocation is not enabled",
                        "ports", i)
        report.check(names.port_name(port.name), "ports", i, "name")
        report.check(names.known_protocol(port.protocol), "ports", i, "protocol")
        report.check(names.port(port.number), "ports", i, "number")


def _none(spec: ServiceEntrySpec, _meta: ObjectMeta, report: Report) -> None:
    if spec.endpoints:
        report.error("no endpoints should be provided for resolution type none", "endpoints")
    if spec.workload_selector is not None:
        report.warn("workloadSelector should not be set when resolution mode is NONE", "workloadSelector")


def _static(spec: ServiceEntrySpec, _meta: ObjectMeta, report: Report) -> None:
    ports = {port.name for port in spec.ports}
    for i, endpoint in enumerate(spec.endpoints):
        _workload(endpoint, report, ("endpoints", i), ports, names_allowed=False)


def _dns(spec: ServiceEntrySpec, _meta: ObjectMeta, report: Report) -> None:
    if not spec.endpoints:
        for i, host in enumerate(spec.hosts):
            if said := names.fqdn(host):
                report.error("hosts must be FQDN or contain only prefix wildcards if no endpoints are provided for resolution mode "
                             f"{spec.resolution}, {said}", "hosts", i)
                break
    if spec.resolution == "DNS_ROUND_ROBIN" and len(spec.endpoints) > 1:
        report.error(f"there must only be 0 or 1 endpoint for resolution mode {spec.resolution}", "endpoints", 1)
    ports = {port.name for port in spec.ports}
    for i, endpoint in enumerate(spec.endpoints):
        at = ("endpoints", i)
        if not is_ip(endpoint.address) and names.fqdn(endpoint.address):
            report.error(f"endpoint address {quote(endpoint.address)} is not a valid FQDN or an IP address", *at, "address")
        for said, key in names.labels(endpoint.labels):
            report.error(said, *at, "labels", key)
        _endpoint_ports(endpoint, report, at, ports)
    if spec.addresses and len(spec.hosts) > 1:
        tcp = next((i for i, port in enumerate(spec.ports) if names.protocol(port.protocol) in names.TCP), None)
        if tcp is not None:
            report.warn("service entry can not have more than one host specified simultaneously with address and tcp port", "ports", tcp)


def _dynamic(spec: ServiceEntrySpec, meta: ObjectMeta, report: Report) -> None:
    resolution = spec.resolution
    if not spec.hosts:
        report.error(f"at least one wildcard host must be provided for resolution type {resolution}", "hosts")
    for i, host in enumerate(spec.hosts):
        if not host.startswith("*"):
            report.error(f"host must be wildcarded for resolution mode {resolution}", "hosts", i)
    if spec.addresses:
        report.error(f"addresses cannot be set for resolution type {resolution}. HTTP route domains will only be generated"
                     "from the hosts field values", "addresses")
    if spec.endpoints:
        report.error(f"endpoints cannot be set for resolution type {resolution}. Destination IP address determined from hosts"
                     "field values", "endpoints")
    for i, port in enumerate(spec.ports):
        if names.protocol(port.protocol) not in _DYNAMIC:
            report.error(f"only HTTP, TLS, GRPC, and HTTP2 protocols are supported for resolution type {resolution}",
                         "ports", i, "protocol")
    if spec.location == "MESH_INTERNAL" and meta.labels.get("istio.io/use-waypoint", "").lower() not in ("", "none"):
        report.error(f"location MESH_INTERNAL with resolution type {resolution} is not supported when using waypoints", "location")


_RESOLUTIONS = {"NONE": _none, "STATIC": _static, "DNS": _dns, "DNS_ROUND_ROBIN": _dns, "DYNAMIC_DNS": _dynamic}


def workload_entry(spec: WorkloadEntrySpec, _meta: ObjectMeta, report: Report) -> None:
    _workload(spec, report, (), None, names_allowed=True)


def _workload(spec: WorkloadEntrySpec, report: Report, at: tuple[str | int, ...], ports: set[str] | None, *, names_allowed: bool) -> None:
    """An endpoint; `ports` are the service's port names where it is one of a ServiceEntry's."""
    address = spec.address
    if not address:
        if not spec.network:
            report.error("address is required", *at, "address")
            return
        report.warn(f"address is unset with network {quote(spec.network)}", *at, "network")
    if address.startswith(names.UNIX):
        report.check(names.unix_address(address.removeprefix(names.UNIX)), *at, "address")
        if spec.ports:
            report.error(f"unix endpoint {address} must not include ports", *at, "ports")
    elif address and not is_ip(address):
        if not names_allowed:
            report.error(f"endpoint address {quote(address)} is not a valid IP address", *at, "address")
        elif names.fqdn(address):
            report.error(f"endpoint address {quote(address)} is not a valid FQDN or an IP address", *at, "address")
    _endpoint_ports(spec, report, at, ports)
    for said, key in names.labels(spec.labels):
        report.error(said, *at, "labels", key)
    if address.startswith(names.UNIX) and ports is not None and len(ports) != 1:
        report.error("exactly 1 service port required for unix endpoints", *at, "address")


def _endpoint_ports(spec: WorkloadEntrySpec, report: Report, at: tuple[str | int, ...], ports: set[str] | None) -> None:
    for name, number in spec.ports.items():
        if ports is not None and name not in ports:
            report.error(f"endpoint port {number} is not defined by the service entry", *at, "ports", name)
        report.check(names.port_name(name), *at, "ports", name)
        report.check(names.port(number), *at, "ports", name)


def workload_group(spec: WorkloadGroupSpec, _meta: ObjectMeta, report: Report) -> None:
    if spec.template is None:
        report.error("template is required", "template")
        return
    wrong = list(names.labels(spec.metadata.labels)) if spec.metadata else []
    if wrong:
        report.error(f"invalid labels: {several([said for said, _ in wrong])}", "metadata", "labels")
        return
    if spec.probe is not None:
        _probe(spec.probe, report)


def _probe(probe: ReadinessProbe, report: Report) -> None:
    counts = {
        "periodSeconds": probe.period_seconds, "initialDelaySeconds": probe.initial_delay_seconds, "timeoutSeconds": probe.timeout_seconds,
        "successThreshold": probe.success_threshold, "failureThreshold": probe.failure_threshold,
    }  # fmt: skip
    for name, count in counts.items():
        if count < 0:
            report.error(f"{name} must be non-negative", "probe", name)
    if probe.http_get is not None:
        report.check(names.port(probe.http_get.port), "probe", "httpGet", "port")
        if probe.http_get.scheme not in ("", "HTTP", "HTTPS"):
            report.error('httpGet.scheme must be one of "HTTPS", "HTTP"', "probe", "httpGet", "scheme")
        for i, header in enumerate(probe.http_get.http_headers):
            at = ("probe", "httpGet", "httpHeaders", i, "name")
            if not header.name:
                report.error("header name cannot be empty", *at)
            elif not header.name.replace("-", "").isalnum() or not header.name.isascii():
                report.error(f"header name {header.name} is not a valid header name", *at)
    elif probe.tcp_socket is not None:
        report.check(names.port(probe.tcp_socket.port), "probe", "tcpSocket", "port")
    elif probe.exec is not None:
        if not probe.exec.command:
            report.error("exec.command is required", "probe", "exec")
    else:
        kind = "<nil>" if probe.grpc is None else "*v1alpha3.ReadinessProbe_Grpc"
        report.error(f"unknown health check method {kind}", "probe")
