"""What an analysis says: findings with a code, a level, and the place in the user's YAML each is about."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any as Json

from meshsim.errors import Location
from meshsim.resources.resource import Resource

ERROR, WARNING, INFO = "Error", "Warning", "Info"
LEVELS = (ERROR, WARNING, INFO)  # most severe first

# code: (level, name, text); the IST codes, levels and texts are istioctl's
CATALOG: dict[str, tuple[str, str, str]] = {
    "IST0002": (WARNING, "Deprecated", "Deprecated: {}"),
    "IST0101": (ERROR, "ReferencedResourceNotFound", 'Referenced {} not found: "{}"'),
    "IST0106": (ERROR, "SchemaValidationError", "Schema validation error: {}"),
    "IST0109": (
        ERROR,
        "ConflictingMeshGatewayVirtualServiceHosts",
        "The VirtualServices {} associated with mesh gateway define the same host {} which can lead to undefined behavior. "
        "This can be fixed by merging the conflicting VirtualServices into a single resource.",
    ),
    "IST0110": (
        ERROR,
        "ConflictingSidecarWorkloadSelectors",
        'The Sidecars {} in namespace "{}" select the same workload pod "{}", which can lead to undefined behavior.',
    ),
    "IST0111": (
        ERROR,
        "MultipleSidecarsWithoutWorkloadSelectors",
        'The Sidecars {} in namespace "{}" have no workload selector, which can lead to undefined behavior.',
    ),
    "IST0112": (
        ERROR,
        "VirtualServiceDestinationPortSelectorRequired",
        'This VirtualService routes to a service "{}" that exposes multiple ports {}. '
        "Specifying a port in the destination is required to disambiguate.",
    ),
    "IST0118": (
        INFO,
        "PortNameIsNotUnderNamingConvention",
        "Port name {} (port: {}, targetPort: {}) doesn't follow the naming convention of Istio port.",
    ),
    "IST0127": (WARNING, "NoMatchingWorkloadsFound", "No matching workloads for this resource with the following labels: {}"),
    "IST0128": (
        WARNING,
        "NoServerCertificateVerificationDestinationLevel",
        "DestinationRule {} in namespace {} has TLS mode set to {} but no caCertificates are set to validate server identity for host: {}",
    ),
    "IST0129": (
        WARNING,
        "NoServerCertificateVerificationPortLevel",
        "DestinationRule {} in namespace {} has TLS mode set to {} but no caCertificates are set to validate server identity for host: {} "
        "at port {}",
    ),
    "IST0130": (WARNING, "VirtualServiceUnreachableRule", "VirtualService rule {} not used ({})."),
    "IST0131": (
        INFO,
        "VirtualServiceIneffectiveMatch",
        "VirtualService rule {} match {} is not used (duplicate/overlapping match in rule {}).",
    ),
    "IST0132": (
        WARNING,
        "VirtualServiceHostNotFoundInGateway",
        "one or more host {} defined in VirtualService {} not found in Gateway {}.",
    ),
    "IST0133": (WARNING, "SchemaWarning", "Schema validation warning: {}"),
    "IST0134": (WARNING, "ServiceEntryAddressesRequired", "ServiceEntry addresses are required for this protocol."),
    "IST0138": (
        WARNING,
        "GatewayDuplicateCertificate",
        "Duplicate certificate in multiple gateways {} may cause 404s if clients re-use HTTP2 connections.",
    ),
    "IST0145": (ERROR, "ConflictingGateways", "Conflict with gateways {} (workload selector {}, port {}, hosts {})."),
    "IST0157": (WARNING, "InvalidTelemetryProvider", 'The Telemetry {} in namespace "{}" with empty providers will be ignored.'),
    "IST0160": (
        ERROR,
        "MultipleTelemetriesWithoutWorkloadSelectors",
        'The Telemetries {} in namespace "{}" have no workload selector, which can lead to undefined behavior.',
    ),
    "IST0161": (
        ERROR,
        "InvalidGatewayCredential",
        "The credential referenced by the Gateway {} in namespace {} is invalid, which can cause the traffic not to work as expected.",
    ),
    "IST0162": (
        WARNING,
        "GatewayPortNotDefinedOnService",
        "The gateway is listening on a target port (port {}) that is not defined in the Service associated with its workload instances "
        "(Pod selector {}). If you need to access the gateway port through the gateway Service, it will not be available.",
    ),
    "IST0173": (
        ERROR,
        "DestinationRuleSubsetNotSelectPods",
        "The Subset {} defined in the DestinationRule does not select any pods. Which may lead to 503 UH (NoHealthyUpstream).",
    ),
    "IST0174": (
        WARNING,
        "UnknownDestinationRuleHost",
        "The host {} defined in the DestinationRule does not match any services in the mesh.",
    ),
    "IST0177": (
        WARNING,
        "ConflictingServiceEntryProtocol",
        'Multiple ServiceEntries ({}) define the same host "{}" and port {} with conflicting protocols ({}).',
    ),
    "MSIM0101": (ERROR, "DestinationDoesNotExist", "The rule sends requests nowhere: {} (at {})."),
    "MSIM0102": (ERROR, "GatewayHasNoRoute", "Requests for {} reach {}, which has no route for them: {}."),
    "MSIM0103": (ERROR, "GatewayHasNoFilterChain", "Connections for {} reach {}, which closes them: the client {}; served names: {}."),
    "MSIM0104": (ERROR, "GatewayDoesNotListen", "Connections for {} are sent to {} port {}, where nobody listens: {}."),
    "MSIM0105": (ERROR, "NoEndpoint", "Nothing can be reached behind {} from {}: {}."),
    "MSIM0106": (ERROR, "TlsToPlaintextServer", "{} is spoken to with TLS from {}, but answers in plaintext."),
    "MSIM0107": (ERROR, "PlaintextToTlsServer", "{} is spoken to in plaintext from {}, but expects TLS: no DestinationRule originates it."),
    "MSIM0108": (ERROR, "TlsInsideTls", "Applications speak TLS to {} themselves, and {} wraps it in TLS again."),
    "MSIM0109": (ERROR, "GatewayLoop", "Requests for {} go round in {}: the rule for the mesh applies at the gateway too."),
    "MSIM0110": (
        WARNING,
        "GatewayBypassed",
        "Calls to {}:{} go straight out: the VirtualService prepares {} for them, and none of its rules takes them there.",
    ),
    "MSIM0111": (ERROR, "CertificateRejected", "The certificate behind {} is not accepted at {}: {}."),
    "MSIM0112": (ERROR, "DeclaredHostUnknown", "Calls to {}:{} are treated as unknown traffic ({}): {}."),
    "MSIM0113": (ERROR, "PortTaken", "Connections to {}:{} go to {}: neither has an address, and {} claimed the port first."),
    "MSIM0114": (ERROR, "Http2NotSpoken", "{} is spoken to in HTTP/2 from {} ({}), and answers in another protocol."),
    "MSIM0115": (ERROR, "ClientCertificateRefused", "{} is spoken to with TLS from {}, and gives the connection up: it {}."),
    "MSIM0116": (ERROR, "HostHiddenBySidecar", "No egress listener imports {}, which {} speaks of: {} may not call it."),
    "MSIM0117": (ERROR, "PolicyInTheWay", "Calls to {} are led through a gateway, and dropped on their way: {}."),
    "MSIM0118": (ERROR, "SecretMissing", "{} gets no credential at {}: no Secret of {} and no file of the pod holds all of it."),
    "MSIM0201": (INFO, "NoCatchAllRoute", "Requests for {} that fit no rule are answered 404 at {}: no rule takes every path."),
    "MSIM0202": (WARNING, "ServerLeftOut", "Server {} of the Gateway is left out at {}: {}."),
    "MSIM0203": (WARNING, "PolicyPortNeverMatches", "Port {} never matches at {}: policies see the port listened on, {}."),
    "MSIM0204": (
        WARNING,
        "PolicyAsksForIdentity",
        "{} can never match on port {} of {}: no mutual TLS of the mesh is terminated there, so callers have no identity.",
    ),
    "MSIM0205": (
        WARNING,
        "HttpPolicyOnTcp",
        "On TCP port {} of {} the rule's HTTP fields cannot be matched: {}.",
    ),
    "MSIM0206": (
        WARNING,
        "DestinationRuleUnseen",
        "No workload finds this rule for {}: it stands neither in a client's namespace, nor in {} where the host is defined, nor in {}.",
    ),
    "MSIM0207": (WARNING, "RulesDoNotFitPort", "The `{}` rules never apply: {} has no port whose protocol is routed by them ({})."),
    "MSIM0208": (
        WARNING,
        "CredentialIgnored",
        "Sidecars ignore credentialName without a workloadSelector: {} speaks plaintext to {}.",
    ),
    "MSIM0209": (
        WARNING,
        "HostOutsideSidecar",
        "No egress listener imports {}, which {} speaks of: what {} sends there goes out as unknown traffic.",
    ),
    "MSIM0210": (
        WARNING,
        "PolicyOnCallers",
        "Policies are asked about what a workload receives, not about what it sends, and no gateway has this one: {} stays open.",
    ),
    "MSIM0211": (WARNING, "AuthorityWithoutPort", "No request fits authority {} on port {}: clients ask for {}."),
    "MSIM0212": (
        WARNING,
        "RulesOfAnotherNamespace",
        "These rules decide about calls of {} to {}, which {} declares: neither is of their namespace, and no exportTo says so.",
    ),
    "MSIM0213": (WARNING, "ProviderUnknown", "The mesh has no extension provider {}: what fits the rules is denied at {}."),
    "MSIM0214": (WARNING, "OriginationUnused", "TLS is originated on port {} of {}, but rules at gateways lead to {}: in plaintext."),
    "MSIM0215": (WARNING, "RedirectAtGateway", "Calls to {} get no further than {}, which redirects all of them to https."),
}


@dataclass(frozen=True)
class Finding:
    """One thing found. `resource` is `Kind namespace/name`; `witness` the call that goes wrong because of it, and how."""

    code: str
    level: str
    message: str
    resource: str
    location: Location | None = None
    name: str = ""
    witness: str = field(default="", compare=False)

    def __str__(self) -> str:
        place = f" {self.location.file}:{self.location.line}" if self.location else ""
        return f"{self.level} [{self.code}] ({self.resource}{place}) {self.message}"


def finding(code: str, resource: Resource[Json], *values: object, at: tuple[str | int, ...] = (), witness: str = "") -> Finding:
    """A finding of the catalogue about a field of `resource` (a path inside its spec; none: the document's beginning)."""
    level, name, text = CATALOG[code]
    location = resource.locate(*at) if at else resource.location
    return Finding(code, level, text.format(*values), f"{resource.kind} {full_name(resource)}", location, name, witness)


def full_name(resource: Resource[Json]) -> str:
    return f"{resource.namespace}/{resource.name}" if resource.namespace else resource.name


def listed(values: list[str] | list[int]) -> str:
    """As Go prints a slice: `[a b]`."""
    return f"[{' '.join(map(str, values))}]"


def in_order(found: list[Finding]) -> list[Finding]:
    """Each once, most severe first, then by code, resource and text."""
    once = {(f.code, f.resource, f.message): f for f in reversed(found)}
    return sorted(once.values(), key=lambda f: (LEVELS.index(f.level), f.code, f.resource, f.message))
