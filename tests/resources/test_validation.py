"""Rules that the recorded documents do not show, in Istio's words (pkg/config/validation and its CRD schemas)."""

from __future__ import annotations

from typing import Any as Json

import msgspec
import pytest

from meshsim import resources
from meshsim.errors import ConfigError
from meshsim.resources.validation import accepted, rejected, validate

SECURITY = ("PeerAuthentication", "AuthorizationPolicy", "RequestAuthentication")


def check(kind: str, spec: Json, **metadata: Json) -> list[str]:
    """The messages, warnings marked, of one document."""
    group = "security" if kind in SECURITY else "telemetry" if kind == "Telemetry" else "networking"
    document = {"apiVersion": f"{group}.istio.io/{'v1beta1' if kind == 'ProxyConfig' else 'v1'}", "kind": kind,
                "metadata": {"name": "x", "namespace": "default", **metadata}, "spec": spec}  # fmt: skip
    found = validate(resources.loads(msgspec.json.encode(document).decode()))
    return [p.message if p.severity == "error" else f"(W) {p.message}" for p in found]


def se(**changes: Json) -> dict[str, Json]:
    port = {"number": 443, "name": "tls", "protocol": "TLS"}
    return {"hosts": ["a.com"], "ports": [port], "resolution": "DNS", **changes}


def ports(*protocols: str) -> list[dict[str, Json]]:
    return [{"number": 80 + i, "name": f"p{i}", "protocol": protocol} for i, protocol in enumerate(protocols)]


def gw(tls: Json = None, protocol: str = "HTTPS", **server: Json) -> dict[str, Json]:
    port = {"number": 443, "name": "p", "protocol": protocol}
    settings = {"tls": tls} if tls is not None else {}
    return {"selector": {"istio": "egress"}, "servers": [{"port": port, "hosts": ["a.com"], **settings, **server}]}


def vs(*rules: dict[str, Json], **spec: Json) -> dict[str, Json]:
    to = {"route": [{"destination": {"host": "b.com"}}]}
    acts = ("route", "redirect", "directResponse", "delegate")
    return {"hosts": ["a.com"], "http": [rule if any(act in rule for act in acts) else {**rule, **to} for rule in rules or ({},)], **spec}


def dr(**policy: Json) -> dict[str, Json]:
    return {"host": "a.com", "trafficPolicy": policy}


def ap(*rules: Json, **spec: Json) -> dict[str, Json]:
    return {"rules": list(rules), **spec}


MS = "must be a valid duration greater than 1ms"
SERVICE_ENTRY = [
    (se(hosts=["*"]), ['spec.hosts[0]: Invalid value: "*": hostname cannot be wildcard', "invalid host *",
                       'hosts must be FQDN or contain only prefix wildcards if no endpoints are provided for resolution mode DNS, '
                       'domain name "*" invalid (label "*" invalid)']),
    (se(hosts=["a_b.com"]), ['domain name "a_b.com" invalid (label "a_b" invalid)',
                             'hosts must be FQDN or contain only prefix wildcards if no endpoints are provided for resolution mode DNS, '
                             'domain name "a_b.com" invalid (label "a_b" invalid)']),
    (se(hosts=["1.2.3.4"], resolution="NONE"), ['domain name "2.3.4" invalid (top level domain "4" cannot be all-numeric)']),
    (se(addresses=["10.0.0.0/33"], resolution="STATIC"), ["10.0.0.0/33 is not a valid CIDR block"]),
    (se(addresses=["cnn"]), ["cnn is not a valid IP"]),
    (se(ports=[{"number": 80, "name": "a", "protocol": "HTTP"}, {"number": 81, "name": "a", "protocol": "HTTP"}]),
     ['spec.ports[1]: Duplicate value: {"name":"a"}', 'service entry port name "a" already defined']),
    (se(ports=ports("WAT")), ["unsupported protocol: WAT"]),
    (se(ports=[{"number": 80, "name": "http_x", "protocol": "HTTP"}]), ["invalid port name: http_x"]),
    (se(ports=ports("TCP"), resolution="NONE"),
     ["(W) addresses are required for ports serving TCP (or unset) protocol when IP Autoallocation is not enabled"]),
    (se(resolution="NONE", endpoints=[{"address": "1.2.3.4"}]),
     ["spec: Invalid value: NONE mode cannot set endpoints", "no endpoints should be provided for resolution type none"]),
    (se(resolution="STATIC", endpoints=[{"address": "1.2.3.4", "ports": {"http": 80}}]),
     ["endpoint port 80 is not defined by the service entry"]),
    (se(resolution="STATIC", endpoints=[{"address": "unix:///a", "ports": {"tls": 1}}]),
     ["spec.endpoints[0]: Invalid value: UDS may not include ports", "unix endpoint unix:///a must not include ports"]),
    (se(resolution="STATIC", endpoints=[{"labels": {"a": "b"}}]),
     ["spec.endpoints[0]: Invalid value: Address is required", "address is required"]),
    (se(endpoints=[{"address": "a_b"}]), ['endpoint address "a_b" is not a valid FQDN or an IP address']),
    (se(hosts=["a.com", "b.com"], addresses=["1.2.3.4"]),
     ["(W) service entry can not have more than one host specified simultaneously with address and tcp port"]),
    (se(resolution="DYNAMIC_DNS", ports=ports("HTTPS")),
     ["host must be wildcarded for resolution mode DYNAMIC_DNS",
      "only HTTP, TLS, GRPC, and HTTP2 protocols are supported for resolution type DYNAMIC_DNS"]),
    (se(exportTo=[".", "default"]), ["duplicate entries in exportTo for entry default"]),
    (se(exportTo=["default", "."]), ["duplicate entries in exportTo: . and current namespace default"]),
    (se(exportTo=["*", "a"]), ["cannot have both public (*) and non-public exportTo values for a resource"]),
    (se(workloadSelector={"labels": {}}, resolution="STATIC"),
     ["(W) service entry: workload selector specified without labels, will be applied to all services in namespace"]),
    ({"ports": ports("HTTP")}, ["spec.hosts: Required value", "service entry must have at least one host"]),
    (se(hosts="a.com"), ['spec.hosts: Invalid value: "string": spec.hosts in body must be of type array: "string"',
                         "json: cannot unmarshal string into Go value of type []json.RawMessage"]),
    (se(ports=[{"number": "https", "name": "a", "protocol": "TLS"}]),
     ['spec.ports[0].number: Invalid value: "string": spec.ports[0].number in body must be of type integer: "string"',
      "invalid character 'h' looking for beginning of value"]),
    (None, ['spec: Invalid value: "null": spec in body must be of type object: "null"', "service entry must have at least one host"]),
]  # fmt: skip
GATEWAY = [
    (gw(tls={"mode": "PASSTHROUGH"}, hosts=[]), ["server config must contain at least one host"]),
    (gw(tls={"mode": "PASSTHROUGH"}, hosts=["ns_1/a.com"]), ['invalid namespace value "ns_1" in gateway']),
    (gw(tls={"mode": "PASSTHROUGH"}, hosts=["/a.com"]),
     ["config namespace and dnsName in host entry cannot be empty", 'invalid namespace value "" in gateway']),
    (gw(tls={"mode": "PASSTHROUGH"}, hosts=["1.2.3.4", "*/*", "./b.com"]), []),
    (gw(tls={"mode": "SIMPLE", "credentialName": "c"}, protocol="HTTP"), ["server cannot have TLS settings for plain text HTTP ports"]),
    (gw(tls={"mode": "PASSTHROUGH", "credentialName": "c"}), ["(W) PASSTHROUGH mode does not use certificates, they will be ignored"]),
    (gw(tls={"httpsRedirect": True}), ["(W) tls.httpsRedirect should only be used with http servers"]),
    (gw(tls={"mode": "MUTUAL"}),
     ["MUTUAL TLS requires a client CA bundle", "MUTUAL TLS requires a server certificate", "MUTUAL TLS requires a private key"]),
    (gw(tls={"mode": "SIMPLE", "serverCertificate": "a", "privateKey": "b", "caCrl": "c"}), ["CRL is not supported with SIMPLE TLS"]),
    (gw(tls={"mode": "SIMPLE", "credentialName": "c", "serverCertificate": "a", "privateKey": "b"}),
     ["only one of credential_name, credential_names, server_certificate/private_key, tls_certificates should be specified"]),
    (gw(tls={"mode": "SIMPLE", "credentialName": "c", "cipherSuites": ["AES128-SHA", "NULL", "AES128-SHA", "-ALL"]}),
     ["(W) ignoring invalid cipher suites: [NULL]", "(W) ignoring duplicate cipher suites: [AES128-SHA]"]),
    (gw(tls={"mode": "ISTIO_MUTUAL"}, bind="cnn"), ["cnn is not a valid IP"]),
    (gw(tls={"mode": "ISTIO_MUTUAL"}, bind="unix:///tmp/"), ["/tmp/ is not an absolute path to a file",
        'port number must be 0 for unix domain socket: number:443  protocol:"HTTPS"  name:"p"']),
    (gw(tls={"mode": "ISTIO_MUTUAL"}, port={"number": 70000, "name": "p", "protocol": "TLS", "targetPort": 1}),
     ["port number 70000 must be in the range 1..65535", "targetPort has no impact on Gateways"]),
    ({"servers": [{}]}, ["spec.servers[0].port: Required value", "spec.servers[0].hosts: Required value",
                         "server config must contain at least one host", "port is required"]),
]  # fmt: skip
VIRTUAL_SERVICE = [
    ({"hosts": ["*"], "gateways": ["mesh", "gw"], "http": vs()["http"]},
     ["wildcard host * is not allowed for virtual services bound to the mesh gateway"]),
    (vs(hosts=["*.a.com", "b.a.com"]), ["duplicate hosts in virtual service: *.a.com & b.a.com"]),
    ({"hosts": ["a.com"]}, ["http, tcp or tls must be provided in virtual service"]),
    ({"tls": [{"match": [{"sniHosts": ["a.com"]}], "route": [{"destination": {"host": "a"}}]}]},
     ["delegate virtual service must have no tls route specified",
      'SNI host "a.com" is not a compatible subset of any of the virtual service hosts: []']),
    (vs({"redirect": {"uri": "/a"}, "route": [{"destination": {"host": "b"}}], "fault": {"abort": {"httpStatus": 500}}}),
     ["HTTP route cannot contain both route and redirect", "HTTP route cannot contain both fault and redirect"]),
    (vs({"redirect": {"uri": "/a", "prefixRewrite": "/b"}}), ["redirect may only specify one of uri or prefix_rewrite"]),
    (vs({"match": [{"uri": {"exact": "/a"}}], "redirect": {"prefixRewrite": "/b"}}),
     ["redirect prefix_rewrite requires all URI matches to use prefix match type"]),
    (vs({"redirect": {"uri": "/a", "redirectCode": 200}}), ["200 is not a valid redirect code, must be 3xx"]),
    (vs({"redirect": {"scheme": "ftp"}}), ['invalid redirect scheme, must be "http" or "https"']),
    (vs({"directResponse": {"status": 199}}), ["HTTP status 199 is not in range 200-599"]),
    (vs({"directResponse": {"status": 200, "body": {"string": "x" * 200_000}}}),
     ["(W) large direct_responses may impact control plane performance"]),
    (vs({"delegate": {"name": "d"}, "redirect": {"uri": "/"}, "name": "r"}), ["root HTTP route r must not specify redirect"]),
    (vs({"match": [{"headers": {"": {"exact": "a"}}}]}), ["header name cannot be empty"]),
    (vs({"match": [{"headers": {"a b": {"exact": "a"}}}]}), ["header name a b is not a valid header name"]),
    (vs({"match": [{"headers": {"@request.auth.claims.sub": {"exact": "a"}}}]}),
     ["JWT claim based routing (key: @request.auth.claims.sub) is only supported for gateway, found no gateways: []"]),
    (vs({"match": [{"method": {"prefix": ""}}]}), ['"method": prefix string match should not be empty']),
    (vs({"match": [{"uri": {"regex": "/(a"}}]}),
     ['"uri": error parsing regexp: missing closing ): `/(a`; Istio uses RE2 style regex-based match '
      "(https://github.com/google/re2/wiki/Syntax)"]),
    (vs({"match": [{"uri": {"regex": "a" * 1025}}]}), ['"uri": regex is too large, max length allowed is 1024']),
    (vs({"match": [{"port": 70000, "sourceNamespace": "a_b", "sourceLabels": {"a": "b c"}}]}),
     ["port number 70000 must be in the range 1..65535", 'invalid tag value: "b c"', "sourceNamespace match a_b is invalid"]),
    (vs({"headers": {"request": {"set": {":path": "/"}}, "response": {"remove": ["Host"]}}}),
     ['invalid header ":path": header cannot have ":" prefix', 'invalid header "Host": cannot set Host header']),
    (vs({"headers": {"request": {"set": {"x": "50%"}}}}), ["header value configuration: invalid header configuration. Un-escaped %"]),
    (vs({"headers": {"request": {"set": {"x": "%A"}}}}),
     ["header value configuration: invalid header configuration. Un-terminated variable expression '%A'"]),
    (vs({"headers": {"request": {"set": {"x": '%REQ(["a"])% 100%% %PROTOCOL%'}}}}), []),
    (vs({"route": [{"destination": {"host": "a"}, "weight": 0}, {"destination": {"host": "b"}, "weight": 0}]}),
     ["total destination weight = 0"]),
    (vs({"route": [{"destination": {"host": "a"}, "weight": -1}]}), ["weight -1 < 0"]),
    (vs({"route": [{}]}), ["spec.http[0].route[0].destination: Required value", "destination is required"]),
    (vs({"fault": {"delay": {"exponentialDelay": "1s"}, "abort": {"http2Error": "x", "percentage": {"value": 101.5}}}}),
     ["percentage 101.5 is neither 0.0, nor in range [0.0001, 100.0]", "HTTP/2 abort fault injection not supported yet",
      "exponentialDelay not supported yet"]),
    (vs({"fault": {}}), ["HTTP fault injection must have an abort and/or a delay"]),
    (vs({"fault": {"abort": {"grpcStatus": "BAD"}}}),
     ['gRPC status "BAD" is not supported. See https://github.com/grpc/grpc/blob/master/doc/statuscodes.md for a list of supported codes, '
      "for example 'NOT_FOUND'"]),
    (vs({"retries": {"attempts": -1}}), ["attempts cannot be negative"]),
    (vs({"timeout": "0s"}), [f'spec.http[0].timeout: Invalid value: "0s": {MS}', "duration must be greater than 1ms"]),
    (vs({"timeout": "1.5ms"}), ["only durations to ms precision are supported"]),
    (vs({"rewrite": {}}),
     ["rewrite must specify at least one of URI, UriRegexRewrite, or authority. Only one of URI or UriRegexRewrite may be specified"]),
    (vs({"mirror": {"host": "a"}, "mirrors": [{"destination": {"host": "b"}, "percentage": {"value": 200}}]}),
     ["HTTP route cannot contain both mirror and mirrors", "mirror percentage must have a max value of 100 (it has 200.000000)"]),
    (vs({"corsPolicy": {"allowOrigins": [{}], "allowMethods": ["get"], "allowHeaders": ["a b"]}}),
     ["'' is not a valid match type for CORS allow origins", '"get" is not a supported HTTP method',
      "header name a b is not a valid header name"]),
    (vs({"route": [{"destination": {"host": "a"}, "weight": 2**31}]}),
     ['<nil>: Invalid value: "": Checked value must be of type integer with format int32 in spec.http[0].route[0].weight',
      "json: cannot unmarshal number 2147483648 into Go value of type int32"]),
    (vs({"route": [{"destination": {"host": "a"}, "weight": 50.5}]}),
     ['spec.http[0].route[0].weight: Invalid value: "float64": spec.http[0].route[0].weight in body must be of type int32: "float64"',
      '<nil>: Invalid value: "": Checked value must be of type integer with format int32 in spec.http[0].route[0].weight',
      "json: cannot unmarshal number 50.5 into Go value of type int32"]),
    (vs({"corsPolicy": {"allowHeaders": ["a,b"]}}), []),
    (vs({"mirror_percent": 10}), ['(W) using deprecated setting "mirrorPercent", use "mirrorPercentage" instead']),
    (vs({"directResponse": {"status": 200, "body": {"bytes": "YWI"}}}),
     ['spec.http[0].directResponse.body.bytes: Invalid value: "YWI": spec.http[0].directResponse.body.bytes in body must be of type '
      'byte: "YWI"',
      "illegal base64 data at input byte 0"]),
    (vs({"fault": {"delay": {"percentage": {"value": "5"}, "fixedDelay": "1x"}}}),
     ['spec.http[0].fault.delay.percentage.value: Invalid value: "string": spec.http[0].fault.delay.percentage.value in body must be of '
      'type number: "string"', 'bad Duration: time: unknown unit "x" in duration "1x"']),
    (vs(gateways=["ns/gw/x"]), ['invalid value for gateway name: "gw/x"']),
    (vs(gateways=["./gw"]), ['invalid value for namespace: "."']),
    (vs(gateways=["gw", "a_b/c"]), []),  # a bare name ends the look at the list
    ({"hosts": ["a.com"], "tls": [{"match": [{"sniHosts": []}]}]}, ["TLS match must have at least one SNI host", "TLS route is required"]),
    ({"hosts": ["*.com"], "tcp": [{"match": [{"destinationSubnets": ["1.2.3.4/40"]}], "route": [{"destination": {"host": "a"}}]}]},
     ["1.2.3.4/40 is not a valid CIDR block"]),
    (vs({}, {}), ["(W) virtualService rule #1 not used (only the last rule can have no matches)"]),
    (vs({"match": [{"uri": {"prefix": "/a"}, "name": "one"}], "name": "r"}, {"match": [{"uri": {"prefix": "/ab"}}]}),
     ['(W) virtualService rule #1 match #0 of prefix /ab is not used (duplicate/overlapping match in rule "one" of prefix /a on "r")']),
    (vs({"match": [{"uri": "/a"}]}),
     ['spec.http[0].match[0].uri: Invalid value: "string": spec.http[0].match[0].uri in body must be of type object: "string"',
      '<nil>: Invalid value: "": "spec.http[0].match[0].uri" must validate one and only one schema (oneOf). Found 3 valid alternatives',
      "json: cannot unmarshal string into Go value of type map[string]json.RawMessage"]),
]  # fmt: skip
DESTINATION_RULE = [
    (dr(portLevelSettings=[{"tls": {"mode": "DISABLE"}}]), ["portTrafficPolicy must have valid port"]),
    ({"host": "a.com", "subsets": [{"name": "a"}, {"name": "a"}, {"name": "b_c"}, {"name": ""}]},
     ["duplicate subset names: a", "subset name is invalid: b_c", "subset name cannot be empty"]),
    (dr(tunnel={"targetHost": "a_b", "targetPort": 0}),
     ['tunnel target host must be valid FQDN or IP address: domain name "a_b" invalid (label "a_b" invalid); a_b is not a valid IP',
      "tunnel target port is invalid: port number 0 must be in the range 1..65535"]),
    (dr(connectionPool={"http": {"maxRetries": -1, "h2UpgradePolicy": "UPGRADE", "useClientProtocol": True},
                        "tcp": {"maxConnections": -1}}),
     ["max retries must be non-negative", "use client protocol must not be true when H2UpgradePolicy is UPGRADE",
      "max connections must be non-negative"]),
    (dr(connectionPool={"http": {"http2KeepAlive": {"interval": "1s"}}}), ["http2 keepalive timeout is required"]),
    (dr(connectionPool={"tcp": {"connectTimeout": "1us"}}),
     [f'spec.trafficPolicy.connectionPool.tcp.connectTimeout: Invalid value: "1us": {MS}', "duration must be greater than 1ms"]),
    (dr(loadBalancer={"consistentHash": {"maglev": {"tableSize": 4}}}), ["tableSize must be a prime number for maglev"]),
    (dr(loadBalancer={"consistentHash": {"httpCookie": {"name": "", "attributes": [{"name": "a"}, {"name": "a"}]}}}),
     ["name required for HttpCookie", "duplicate cookie attribute name: a"]),
    (dr(loadBalancer={"consistentHash": {"useSourceIp": True, "minimumRingSize": 5, "ringHash": {}}}),
     ["(W) consistent hash MinimumRingSize is deprecated, use ConsistentHashLB's RingHash configuration instead",
      "only one of MinimumRingSize or Maglev/Ringhash can be specified"]),
    (dr(loadBalancer={"localityLbSetting": {"distribute": [{"from": "a/*", "to": {"b": 50}}]}}), ["total locality weight 50 != 100"]),
    (dr(loadBalancer={"localityLbSetting": {"failover": [{"from": "a", "to": "a"}]}}),
     ["(W) outlier detection policy must be provided for failover", "locality lb failover settings must specify different regions"]),
    (dr(loadBalancer={"localityLbSetting": {"distribute": [{"from": "a/*", "to": {"b/*": 60, "b/c": 40}}]}}),
     ["locality b/c overlap with previous specified ones"]),
    (dr(loadBalancer={"warmup": {}}), ["spec.trafficPolicy.loadBalancer.warmup.duration: Required value", "duration is required"]),
    (dr(tls={"mode": "MUTUAL"}), ["client certificate required for mutual tls", "private key required for mutual tls"]),
    (dr(tls={"mode": "SIMPLE", "credentialName": "configmap://other/ca"}),
     ['invalid configmap:// credentialName: namespace must match the configuration namespace "default"']),
    ({**dr(tls={"mode": "SIMPLE"}), "workloadSelector": {"matchLabels": {"a": "b"}}, "exportTo": ["*"]},
     ["destination rule with workload selector cannot have exportTo beyond current namespace"]),
    ({**dr(tls={"mode": "SIMPLE"}), "exportTo": ["~"]}, ["exportTo ~ (none) is not allowed for Istio configuration objects"]),
    (dr(outlierDetection={"consecutiveErrors": 5, "outlierDetectionHttpErrorCodes": [99]}),
     ["spec.trafficPolicy.outlierDetection.outlierDetectionHttpErrorCodes[0]: Invalid value: 99: "
      "spec.trafficPolicy.outlierDetection.outlierDetectionHttpErrorCodes[0] in body should be greater than or equal to 100",
      "(W) outlier detection consecutive errors is deprecated, use consecutiveGatewayErrors or consecutive5xxErrors instead"]),
]  # fmt: skip
SIDECAR = [
    ({"egress": [{"hosts": ["*/*"]}, {"port": {"number": 80}, "hosts": ["./*"]}]},
     ["sidecar: the egress listener with empty port should be the last listener in the list"]),
    ({"egress": [{"hosts": []}]}, ["sidecar: egress listener must contain at least one host"]),
    ({"egress": [{"hosts": ["a.com"]}]}, ["host must be of form namespace/dnsName"]),
    ({"egress": [{"hosts": ["a_b/a"]}]}, ['invalid namespace value "a_b" in sidecar', "short names (non FQDN) are not allowed"]),
    ({"egress": [{"hosts": ["./a.com", "./a.com"]}]}, ["(W) duplicated egress host: ./a.com"]),
    ({"egress": [{"hosts": ["*/*", "./a.com"]}]}, ["(W) `*/*` host select all resources, no other hosts can be added"]),
    ({"outboundTrafficPolicy": {"egressProxy": {"host": "a.com", "port": {"number": 1}}}},
     ["sidecar: egress_proxy must be set only with ALLOW_ANY outbound_traffic_policy mode"]),
    ({"ingress": [{"port": {"number": 80}, "defaultEndpoint": "10.0.0.1:x"}]},
     ["sidecar: defaultEndpoint must be of form 127.0.0.1:<port>,0.0.0.0:<port>,[::1]:port,[::]:port,unix://filepath or unset",
      'sidecar: defaultEndpoint port (x) is not a number: strconv.Atoi: parsing "x": invalid syntax']),
    ({"ingress": [{"port": {"number": 80}}, {"port": {"number": 80}}]}, ["sidecar: ports on IP bound listeners must be unique"]),
    ({"workloadSelector": {"labels": {}}, "egress": [{"hosts": ["*/*"]}]},
     ["(W) sidecar: workload selector specified without labels, will be applied to all services in namespace"]),
]  # fmt: skip
POLICY = "invalid policy x.default: "
AUTHORIZATION_POLICY = [
    ({"action": "DENY"},
     [POLICY + "DENY action without `rules` is meaningless as it will never be triggered, add an empty rule `{}` if you want it be "
      "triggered for every request"]),
    ({"action": "CUSTOM", "rules": [{"from": [{"source": {"namespaces": ["a"]}}]}]},
     [POLICY + "`provider.name` must not be empty", POLICY + "From.Namespaces is currently not supported with CUSTOM action"]),
    (ap({}, provider={"name": "a"}), [POLICY + "`provider` must not be with non CUSTOM action, found ALLOW"]),
    (ap({"from": [{}], "to": [{"operation": {}}]}),
     [POLICY + "`from.source` must not be nil, found at rule 0", POLICY + "`to.operation` must not be empty, found at rule 0"]),
    (ap({"from": [{"source": {"principals": ["a", ""], "ipBlocks": ["1.2.3"]}}]}),
     [POLICY + "bad IP address (1.2.3)", POLICY + "empty value not allowed, found in Principals"]),
    (ap({"from": [{"source": {"serviceAccounts": ["a/b/c"], "principals": ["x"]}}]}),
     ["spec.rules[0].from[0].source: Invalid value: Cannot set serviceAccounts with namespaces or principals",
      POLICY + "cannot set serviceAccounts with namespaces or principals, found at rule 0",
      POLICY + "expected format 'serviceAccount' or 'namespace/serviceAccount', found \"a/b/c\" in ServiceAccounts"]),
    (ap({"to": [{"operation": {"ports": ["http", "70000"]}}]}),
     [POLICY + 'bad port (http): strconv.ParseUint: parsing "http": invalid syntax', POLICY + "bad port (70000): <nil>"]),
    (ap({"to": [{"operation": {"paths": ["/a/{x}", "/{**}/{*}"]}}]}),
     [POLICY + "invalid or unsupported path a/{x}, found in Paths. Contains '{' or '}' beyond a supported path template"]),
    (ap({"when": [{"key": "source.ip", "values": ["x"]}, {"key": "request.headers[]", "values": ["x"]}, {"key": "a"}]}),
     [POLICY + "invalid `value` for `key` source.ip: 1 error occurred:\n\t* bad IP address (x)",
      POLICY + "invalid `value` for `key` request.headers[]: bad key (request.headers[]): should have format a[b]",
      POLICY + "invalid `notValue` for `key` request.headers[]: bad key (request.headers[]): should have format a[b]",
      POLICY + "at least one of `values` or `notValues` must be set for key a"]),
    (ap(selector={"matchLabels": {"a": "b"}}, targetRefs=[{"kind": "Gateway", "group": "x.io", "name": "g"}]),
     ["spec: Invalid value: only one of targetRefs or selector can be set",
      POLICY + "only one of targetRefs or workloadSelector can be set",
      POLICY + "targetRef must be to one of [core/v1/Service networking.istio.io/v1/ServiceEntry gateway.networking.k8s.io/v1/Gateway "
      "gateway.networking.k8s.io/v1/GatewayClass] but was x.io/Gateway"]),
]  # fmt: skip
TELEMETRY = [
    ({"tracing": [{"randomSamplingPercentage": 150, "customTags": {"a": {"literal": {"value": ""}}}}]},
     ['spec.tracing[0].customTags.a.literal.value: Invalid value: "": spec.tracing[0].customTags.a.literal.value in body should be at '
      "least 1 chars long",
      "spec.tracing[0].randomSamplingPercentage: Invalid value: 150: spec.tracing[0].randomSamplingPercentage in body should be less than "
      "or equal to 100",
      "randomSamplingPercentage must be in range [0.0, 100.0]", "literal tag value may not be empty"]),
    ({"metrics": [{"overrides": [{"tagOverrides": {"a": {"operation": "REMOVE", "value": "x"}}}]}]},
     ["spec.metrics[0].overrides[0].tagOverrides[a]: Invalid value: value must not be set when operation is REMOVE",
      "tagOverrides.value may only be set when operation is UPSERT"]),
    ({"selector": {"matchLabels": {"a": "*"}}},
     ['spec.selector.matchLabels[a]: Invalid value: "*": wildcard not allowed in label value match',
      'wildcard is not supported in selector: "a=*"']),
]  # fmt: skip
OTHERS = [
    ("PeerAuthentication", {"selector": {"matchLabels": {"a": "b"}}, "portLevelMtls": {"1,2": {"mode": None}}},
     ['spec.portLevelMtls.1,2.mode: Invalid value: "null": spec.portLevelMtls.1,2.mode in body must be of type string: "null"',
      'spec.portLevelMtls.1,2.mode: Unsupported value: null: supported values: "UNSET", "DISABLE", "PERMISSIVE", "STRICT"',
      "invalid character ',' after top-level value"]),
    ("PeerAuthentication", {"selector": {"matchLabels": {"a": "b"}}, "portLevelMtls": {}},
     ["spec.portLevelMtls: Invalid value: 0: spec.portLevelMtls in body should have at least 1 properties",
      "port level mTLS, if defined, must have at least one element"]),
    ("WorkloadEntry", {"address": "unix://a"},
     ['spec.address: Invalid value: "unix://a": UDS must be an absolute path or abstract socket', "a is not an absolute path to a file"]),
    ("WorkloadEntry", {"network": "n"}, ['(W) address is unset with network "n"']),
    ("WorkloadGroup", {"template": {}, "probe": {"httpGet": {"port": 0, "scheme": "ftp"}}},
     ["spec.probe.httpGet.port: Invalid value: 0: port must be between 1-65535",
      'spec.probe.httpGet.scheme: Invalid value: "ftp": scheme must be one of [HTTP, HTTPS]',
      "port number 0 must be in the range 1..65535", 'httpGet.scheme must be one of "HTTPS", "HTTP"']),
    ("ProxyConfig", {"concurrency": -1},
     ["spec.concurrency: Invalid value: -1: spec.concurrency in body should be greater than or equal to 0",
      "concurrency must be greater than or equal to 0"]),
    ("RequestAuthentication", {"jwtRules": [{"jwksUri": "ftp://x"}, {}]},
     ['spec.jwtRules[0].jwksUri: Invalid value: "ftp://x": url must have scheme http:// or https://', 'URI scheme "ftp" is not supported',
      "issuer or jwksUri must be non-empty string"]),
]  # fmt: skip
TABLE = [
    *(("ServiceEntry", *row) for row in SERVICE_ENTRY), *(("Gateway", *row) for row in GATEWAY),
    *(("VirtualService", *row) for row in VIRTUAL_SERVICE), *(("DestinationRule", *row) for row in DESTINATION_RULE),
    *(("Sidecar", *row) for row in SIDECAR), *(("AuthorizationPolicy", *row) for row in AUTHORIZATION_POLICY),
    *(("Telemetry", *row) for row in TELEMETRY), *OTHERS,
]  # fmt: skip


@pytest.mark.parametrize(("kind", "spec", "expected"), TABLE)
def test_rule(kind: str, spec: Json, expected: list[str]) -> None:
    assert sorted(check(kind, spec)) == sorted(expected)


@pytest.mark.parametrize(
    ("kind", "annotations", "expected"),
    [
        ("AuthorizationPolicy", {"istio.io/dry-run": "true"}, []),
        ("AuthorizationPolicy", {"istio.io/dry-run": "maybe"},
         ['default/x has annotation istio.io/dry-run with invalid value (maybe): strconv.ParseBool: parsing "maybe": invalid syntax']),
        ("PeerAuthentication", {"istio.io/dry-run": "true"},
         ["default/x has unsupported annotation istio.io/dry-run, please remove the annotation"]),
        ("PeerAuthentication", {"internal.istio.io/parents": "x"},
         ['"internal.istio.io/parents" annotation found, this may not be set by users']),
    ],
)  # fmt: skip
def test_annotation(kind: str, annotations: dict[str, str], expected: list[str]) -> None:
    assert check(kind, {}, annotations=annotations) == expected


HEAD = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\nspec:\n"


def test_problems_stand_at_the_field_and_help() -> None:
    text = HEAD + "  hosts: [a.com]\n  http:\n  - retry: {}\n"
    found = validate(resources.loads(text + "    timeout: 10\n    route: [{destination: {host: '*'}}]\n", "f.yaml"))
    assert next((str(p.location), p.message, p.hint) for p in found) == (
        "f.yaml:8:5",
        'spec.http[0].timeout: Invalid value: "integer": spec.http[0].timeout in body must be of type string: "integer"',
        'write the unit too, such as "10s"',
    )
    unknown = validate(resources.loads(text + "    route: [{destination: {host: '*'}}]\n", "f.yaml"))
    assert [(str(p.location), p.message, p.hint) for p in unknown] == [
        ("f.yaml:7:5", "unknown fields [spec.http[0].retry]", 'did you mean "retries"?'),
        ("f.yaml:8:28", "invalid destination host *", ""),
    ]


def test_rejected_is_istios_verdict_and_snake_case_alone_is_no_reason() -> None:
    old = HEAD + "  hosts: [a.com]\n  tls:\n  - match:\n    - {port: 443, sni_hosts: [%s]}\n    route: [{destination: {host: b.com}}]\n"
    assert not rejected(resources.loads(old % "a.com").resources[0])
    assert rejected(resources.loads(old % "b.com").resources[0])
    assert [p.message for p in validate(resources.loads(old % "a.com"))] == ["spec.tls[0].match[0].sniHosts: Required value"]


def test_what_stands_beside_the_spec_is_unknown() -> None:
    found = validate(resources.loads(HEAD + "  hosts: [a.com]\n  http: [{route: [{destination: {host: a}}]}]\nsepc: {}\n", "f.yaml"))
    assert [(str(p.location), p.message, p.hint) for p in found] == [
        ("f.yaml:7:1", "unknown fields [sepc]", 'did you mean "spec"?'),
        ("f.yaml:7:1", 'unknown field "sepc" on VirtualService resource default/a', ""),
    ]


def test_what_is_not_simulated_is_no_mistake() -> None:
    found = validate(resources.loads("apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {name: a}\n"))
    assert [(p.severity, p.message) for p in found] == [("warning", "not simulated yet: EnvoyFilter")]


@pytest.mark.parametrize(("kind", "spec", "expected"), TABLE)
def test_rejected_agrees_with_the_errors(kind: str, spec: Json, expected: list[str]) -> None:
    """The quick look at what a mesh loads comes to the same verdict as the whole validation."""
    version = "v1beta1" if kind == "ProxyConfig" else "v1"
    group = "security" if kind in SECURITY else "telemetry" if kind == "Telemetry" else "networking"
    document = {"apiVersion": f"{group}.istio.io/{version}", "kind": kind, "metadata": {"name": "x"}, "spec": spec}
    loaded = resources.loads(msgspec.json.encode(document).decode()).resources
    errors = [message for message in expected if not message.startswith("(W)")]
    assert [rejected(resource) for resource in loaded] == [bool(errors)] * len(loaded)


def test_a_mesh_takes_what_istio_takes_and_names_every_mistake() -> None:
    good = HEAD + "  hosts: [a.com]\n  http: [{route: [{destination: {host: b.com}}]}]\n---\n"
    assert len(accepted(resources.loads(good)).resources) == 1
    wrong = good.replace("b.com", "'*'").replace("name: a", "name: b") + good.replace("hosts", "host").replace("name: a", "name: c")
    with pytest.raises(ConfigError) as raised:
        accepted(resources.loads(good + wrong))
    assert [p.resource for p in raised.value.problems] == ["VirtualService/default/b", "VirtualService/default/c"]
