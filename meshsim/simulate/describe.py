"""From decisions to words: hops, legs and the client's result of a simulated call."""

from __future__ import annotations

from functools import lru_cache
from typing import Any as Json

from meshsim.routing.certificates import covers
from meshsim.routing.clusters import Cluster
from meshsim.routing.entry import Entry
from meshsim.routing.exchange import Exchange
from meshsim.routing.facts import Endpoint
from meshsim.routing.http1 import REASONS
from meshsim.routing.runtime import Chain, ListenerRules
from meshsim.simulate.call import Call
from meshsim.simulate.conversation import Conversation, Got, Tls
from meshsim.simulate.handshake import Offer
from meshsim.simulate.trace import Cause, Hop, Leg
from meshsim.simulate.world import PUBLIC
from meshsim.topology import Proxy
from meshsim.xds.message import Metadata, source_of
from meshsim.xds.route import RouteMatch

CLIENT_CAS = (PUBLIC, "mesh", "partner", "unknown")
_MOST = 300  # characters of a body that a result keeps


def hop(
    proxy: Proxy,
    entry: Entry,
    rules: ListenerRules,
    chain: Chain | None,
    *,
    cluster: Cluster | None = None,
    reasons: list[str] | None = None,
) -> Hop:
    """A hop at a listener, before routing is known."""
    listener = Cause(rules.name, source_of(rules.config.metadata))
    made = Hop(proxy.name, proxy.type, entry, listener, reasons=list(reasons or ()))
    if chain is not None:
        made.chain = Cause(chain.name or _criteria(chain), source_of(chain.config.metadata), _resource(chain.config.metadata))
    made.cluster = cause_of_cluster(cluster)
    return made


def cause_of_cluster(found: Cluster | None) -> Cause | None:
    if found is None:
        return None
    return Cause(found.name, source_of(found.config.metadata), _resource(found.config.metadata))


def routed(made: Hop, this: Exchange) -> None:
    """What routing decided, once it has."""
    made.cluster = cause_of_cluster(this.cluster)
    selected = this.selected
    if selected is None:
        return
    table, host, route = selected.host.table.config, selected.host.config, selected.route
    made.routes = Cause(table.name, source_of(table.metadata))
    made.virtual_host = Cause(host.name, source_of(host.metadata))
    made.route = Cause(route.name, source_of(route.metadata), _resource(route.metadata))
    made.match = match_text(route.match)
    if made.cluster is None and route.route is not None:
        weighted = route.route.weighted_clusters
        made.cluster = Cause(route.route.cluster or (weighted.clusters[0].name if weighted and weighted.clusters else ""))


def match_text(match: RouteMatch) -> str:
    """A route's condition in a few words."""
    if match.path is not None:
        text = f'path "{match.path}"'
    elif match.safe_regex is not None:
        text = f'regex "{match.safe_regex.regex}"'
    else:
        text = f'prefix "{match.prefix or match.path_separated_prefix or "/"}"'
    names = [m.name for m in match.headers] + [f"?{m.name}" for m in match.query_parameters]
    return f"{text} + {', '.join(names)}" if names else text


def leg(source: str, destination: Endpoint, protocol: str, offer: Offer | None, talk: Conversation | None, host: str = "") -> Leg:
    """A connection to an upstream host, as it is opened."""
    made = Leg(source, str(destination), protocol, host=host)
    if offer is not None:
        made.tls, made.sni = "TLS", offer.sni
        made.client = offer.certificate.names if offer.certificate else ()
    if isinstance(talk, Tls):
        made.inner = talk.offer.sni
    return made


def agreed(made: Leg, got: Got) -> None:
    """What the handshake of a leg came to."""
    if made.tls and got.handshake is not None:
        made.tls = "TLSv1.3" if got.handshake.version == 13 else "TLSv1.2"
        made.alpn = got.handshake.alpn
        made.server = got.handshake.server.names if got.handshake.server else ()


def _criteria(chain: Chain) -> str:
    match = chain.config.filter_chain_match
    if match is None:
        return "any connection"
    parts = []
    if match.server_names:
        parts.append("SNI " + ", ".join(match.server_names))
    if match.prefix_ranges:
        parts.append("to " + ", ".join(f"{r.address_prefix}/{r.prefix_len}" for r in match.prefix_ranges))
    if match.application_protocols:
        parts.append("HTTP" if match.transport_protocol == "raw_buffer" else "ALPN " + ", ".join(match.application_protocols))
    return "; ".join(parts) or "any connection"


def _resource(metadata: Metadata | None) -> str:
    """Kind/namespace/name of the resource Istio names in its metadata."""
    return _named(str(metadata.filter_metadata.get("istio", {}).get("config", ""))) if metadata else ""


@lru_cache(maxsize=4096)
def _named(config: str) -> str:
    parts = config.split("/")
    if len(parts) < 8:
        return ""
    kind = "".join(word.capitalize() for word in parts[6].split("-"))
    return f"{kind}/{parts[5]}/{parts[7]}"


# The client


def client(call: Call, got: Got) -> dict[str, Json]:
    """What the caller saw, in the recorded form."""
    if not call.tls:
        return _http(got, call.http.method) if call.http is not None else _raw(got)
    shown = got.handshake
    if shown is None:
        return {"tls": {"error": _ending(got)}}
    if not shown.ok and not shown.late:
        return {"tls": {"error": _told(shown.told)}}
    out: dict[str, Json] = {"tls": {"alpn": shown.alpn or None, **_certificate(call, got)}}
    if not shown.ok:
        out["error" if call.http else "after"] = f"tls: {shown.told}"
        return out
    inner = got.inner or Got()
    if call.http is not None:
        out.update(_http(inner, call.http.method if shown.alpn != "h2" else ""))
    else:
        out["after"] = "open" if not inner.error else _ending(inner)
    return out


def _told(word: str) -> str:
    return word if word in ("eof", "reset", "timeout") or word.startswith("tls: ") else f"tls: {word}"


def _certificate(call: Call, got: Got) -> dict[str, Json]:
    server = got.handshake.server if got.handshake else None
    if server is None:
        return {}
    issuer = server.ca if server.ca in CLIENT_CAS else "other"
    trusted = issuer == PUBLIC and bool(call.sni) and not call.sni.endswith(".") and any(covers(n, call.sni) for n in server.dns)
    return {"names": sorted(server.names), "issuer": issuer, "trusted": trusted}


def _http(got: Got, method: str) -> dict[str, Json]:
    """An HTTP answer. To HEAD over HTTP/1.1 Envoy says `chunked` where it knows no length: it cannot tell whether there would be a body."""
    if got.response is None:
        if got.data and not got.error:
            return {"error": "not http"}
        return {"error": _ending(got)}
    out: dict[str, Json] = {"status": got.response.status, "headers": [[n, v] for n, v in got.response.headers]}
    if method == "HEAD" and got.response.status not in (204, 304) and got.response.first("content-length") is None:
        out["headers"].append(["transfer-encoding", "chunked"])
    if got.echo is not None and got.body:
        out["served_by"] = f"{got.echo['server']}:{got.echo['port']}"
    else:
        out["body"] = got.body.decode("latin-1")[:_MOST]
    return out


def _raw(got: Got) -> dict[str, Json]:
    if got.response is not None:
        fields = "".join(f"{n}: {v}\r\n" for n, v in got.response.headers)
        status = got.response.status
        head = f"HTTP/1.1 {status} {REASONS.get(status, 'Unknown')}\r\n{fields}\r\n".encode("latin-1")
        return {"received": (head + got.body).decode("latin-1")[:400], "end": got.end or "open"}
    end = got.end or (
        "timeout" if got.error == "timeout" else "reset" if got.error in ("reset", "refused") else "eof" if got.error else "timeout"
    )
    if end == "open" and not got.data:
        end = "timeout"
    return {"received": got.data.decode("latin-1")[:400], "end": end}


def _ending(got: Got) -> str:
    return {"": "eof", "gave up": "timeout", "stream reset": "reset", "unreachable": "timeout"}.get(got.error, got.error)
