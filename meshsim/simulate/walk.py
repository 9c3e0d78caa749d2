"""The walk of a call: connect, decide at this proxy, step to the next.

How this works: `Simulation` holds a `Runtime` for each proxy, as the live processes do, and one virtual clock. A call is a
`Conversation` that is
handed from place to place: `_to` finds who takes a connection (a sidecar's inbound listener, a gateway, an application, a server outside,
nobody), `_listener` chooses the chain as the proxy would, `_http` and `_bytes` drive the same state machines the live proxy drives, and
every attempt upstream is a conversation of its own. Time passes only where somebody waits; whoever waits longer than the caller's
patience is given up. What balancing and outlier detection learn stays for the next call.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any as Json

from meshsim import xds
from meshsim.cluster import search_order
from meshsim.resources.interception import Interception
from meshsim.resources.network_policy import Wall
from meshsim.routing import http1, http2_fields, inspection, steps, tcp, tls_words
from meshsim.routing.clusters import Cluster
from meshsim.routing.entry import Entry
from meshsim.routing.exchange import Exchange
from meshsim.routing.facts import H2C, HTTP11, RAW, TLS, Downstream, Endpoint, Peer
from meshsim.routing.manager import Manager
from meshsim.routing.message import Request
from meshsim.routing.replies import BAD_REQUESTS, RESETS
from meshsim.routing.retries import Reset
from meshsim.routing.runtime import Chain, ListenerRules, Runtime
from meshsim.simulate import contexts, conversation, describe, limits
from meshsim.simulate.call import Call
from meshsim.simulate.conversation import Conversation, Got, Http, Raw, Tls
from meshsim.simulate.handshake import Handshake, shake
from meshsim.simulate.servers import Server, Servers, Visit, not_tls
from meshsim.simulate.trace import Hop, Leg, Trace
from meshsim.simulate.world import Secrets, World
from meshsim.topology import Proxy
from meshsim.xds.name_table import NameTable, name_table
from meshsim.xds.tls import DownstreamTlsContext

CLIENT_PATIENCE = 15.0  # seconds a client waits for an answer
FIRST_BYTE, NEXT_BYTE = 4.0, 2.0  # seconds a client of raw bytes waits
VIRTUAL_OUTBOUND, VIRTUAL_INBOUND = "virtualOutbound", "virtualInbound"
_DEEP = 200_000  # Python frames: a loop between two proxies ends only when its headers grow too large
_RELAYS = 500  # relays inside one another: bytes that loop end only when a process runs out of its 1024 descriptors, two for each
_EPHEMERAL = 40000
_TAKES_ALL, _NO_TABLE = Interception(), NameTable()
_AROUND = 4  # bytes of a header line beside its name and value


@dataclass(eq=False)
class _Node:
    """A proxy and what it runs by."""

    proxy: Proxy
    runtime: Runtime
    secrets: Secrets


@dataclass(eq=False)
class _Walk:
    """One call under way. `deadlines`: when each caller on the way gives up, the innermost last. `relays`: relays it is inside of."""

    trace: Trace
    explain: bool
    relays: int = 0
    deadlines: list[float] = field(default_factory=list)

    @property
    def deadline(self) -> float:
        return min(self.deadlines, default=float("inf"))

    @property
    def visit(self) -> Visit:
        return Visit(self.trace.arrivals, self.deadline)


class Simulation:
    """Proxies and a world, ready for calls. The same seed and the same calls give the same answers.

    configs: what each proxy runs by, by its name. secrets: by the same name. now: the virtual clock, in seconds.
    """

    def __init__(
        self,
        configs: Mapping[str, xds.ProxyConfig],
        proxies: Iterable[Proxy],
        world: World,
        secrets: Mapping[str, Secrets],
        *,
        seed: int = 0,
    ):
        self.now = 0.0
        self._world = world
        self._servers = Servers(world, self)
        self._nodes: dict[str, _Node] = {}
        self._by_address: dict[str, _Node] = {}
        self._tables: dict[str, NameTable] = {}
        self._port = _EPHEMERAL
        for number, proxy in enumerate(proxies):
            runtime = Runtime(random.Random(seed * 1009 + number), clock=lambda: self.now, local_address="127.0.0.1")
            runtime.update(configs[proxy.name])
            deaf = world.walls.blocking_dns(proxy.ip) is not None
            for cluster in runtime.clusters.values():
                for name in cluster.dns_names:
                    found = [name] if name.replace(".", "").isdigit() else [] if deaf else world.resolve(name)
                    cluster.resolved(name, found)
            node = _Node(proxy, runtime, secrets[proxy.name])
            self._nodes[proxy.name] = self._by_address[proxy.ip] = node
            self._tables[proxy.name] = name_table(configs[proxy.name].name_table, proxy.namespace, search_order(proxy.namespace)[0])

    # The call

    def call(self, call: Call, *, explain: bool = False, past_sidecar: bool = False) -> Trace:
        """What would happen. Raises KeyError for an unknown source.

        `explain` also says what was passed over. `past_sidecar` opens the connection as the sidecar's own user does: uncaptured.
        """
        node = self._nodes.get(call.source)
        own, namespace = (node.proxy.ip, node.proxy.namespace) if node else self._world.bare[call.source]
        if past_sidecar:
            node = None
        trace = Trace(call)
        table = self._tables.get(call.source, _NO_TABLE)
        wall = None if _is_address(call.host) else self._world.walls.blocking_dns(own)
        found = self._world.look_up(call.host, namespace, table, asks=wall is None)
        if wall is not None and not found:
            trace.dropped.append(_drop(own, "the cluster's DNS", wall))
        if not found:
            trace.client = {"error": "name does not resolve"}
            return trace
        trace.address = f"{found[0]}:{call.port}"
        walk = _Walk(trace, explain)
        patience = CLIENT_PATIENCE if call.http or call.tls else FIRST_BYTE
        walk.deadlines.append(self.now + patience)
        talk = conversation.opened(call)
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(max(limit, _DEEP))
        try:
            destination = Endpoint(found[0], call.port)
            got = self._captured(node, destination, talk, walk) if node else self._to(own, destination, talk, walk)
        finally:
            sys.setrecursionlimit(limit)
        trace.first = Leg(own, trace.address, conversation.protocol(talk), inner=talk.offer.sni if isinstance(talk, Tls) else None)
        trace.client = describe.client(call, got)
        return trace

    def _captured(self, node: _Node, destination: Endpoint, talk: Conversation, walk: _Walk) -> Got:
        """A connection that the pod's application opens: its sidecar takes it, unless the pod's annotations say otherwise."""
        by = self._interception(node).passes_out(destination.host, destination.port)
        if by:
            walk.trace.uncaptured.append(f"{node.proxy.ip} to {destination}: {by}")
            return self._to(node.proxy.ip, destination, talk, walk)
        source = Endpoint(node.proxy.ip, self._next_port())
        rules = node.runtime.handed_to(destination) or node.runtime.listeners.get(VIRTUAL_OUTBOUND)
        if rules is None:
            return self._to(node.proxy.ip, destination, talk, walk)
        return self._listener(node, rules, Downstream(source, destination, restored=True), talk, walk)

    def _next_port(self) -> int:
        self._port = self._port + 1 if self._port < 60_999 else _EPHEMERAL
        return self._port

    # Where connections arrive

    def _to(self, source: str, destination: Endpoint, talk: Conversation, walk: _Walk, *, inside: bool = False) -> Got:
        """A connection from a pod or a server, past its own proxy. `inside`: from an inbound listener to the pod's own application."""
        behind = self._world.services.get(str(destination))
        if behind:
            host, _, port = behind[0].rpartition(":")
            destination = Endpoint(host, int(port))
        if inside:
            return self._inside(source, source, destination, talk, walk)
        wall = self._world.walls.blocking(source, destination.host, destination.port)
        if wall is not None:
            walk.trace.dropped.append(_drop(source, str(destination), wall))
            return Got(error="unreachable", end="timeout")
        node = self._by_address.get(destination.host)
        if node is not None and node.proxy.is_sidecar:
            by = self._interception(node).passes_in(destination.port)
            if by:
                walk.trace.uncaptured.append(f"{source} to {destination}: {by}")
                return self._inside(destination.host, source, destination, talk, walk)
        if node is not None:
            rules = node.runtime.listeners.get(VIRTUAL_INBOUND) if node.proxy.is_sidecar else node.runtime.handed_to(destination)
            if rules is None:
                return Got(error="refused")
            downstream = Downstream(Endpoint(source, self._next_port()), destination, restored=node.proxy.is_sidecar)
            return self._listener(node, rules, downstream, talk, walk)
        place = self._world.places.get((destination.host, destination.port))
        if place is None:
            return Got(error="refused")
        return self._servers.serve(Server(place.server, place.port, destination.host), source, talk, walk.visit)

    def _inside(self, pod: str, source: str, destination: Endpoint, talk: Conversation, walk: _Walk) -> Got:
        """To the application in a pod, past its sidecar."""
        app = self._application(pod, destination)
        return self._servers.serve(app, source, talk, walk.visit) if app is not None else Got(error="refused")

    def _application(self, pod: str, destination: Endpoint) -> Server | None:
        """What listens there in the pod, behind its sidecar."""
        spec = self._world.apps.get(pod)
        if spec is None or not (destination.host == pod or destination.host.startswith("127.")):
            return None
        port = next((p for p in spec.ports if p.port == destination.port), None)
        return Server(spec, port, pod) if port else None

    def _interception(self, node: _Node) -> Interception:
        return self._world.interceptions.get(node.proxy.ip, _TAKES_ALL)

    # Proxies

    def _listener(self, node: _Node, rules: ListenerRules, downstream: Downstream, talk: Conversation, walk: _Walk) -> Got:
        """Listener filters, then the filter chain. Nobody accepts once descriptors have run out: the connection waits in the backlog."""
        if walk.relays > _RELAYS or self._inspect(rules, downstream, talk):
            self._pass_until(walk.deadline)
            return Got(error="timeout", end="timeout")
        why: list[str] | None = [] if walk.explain else None
        chain = rules.chain(downstream, why)
        if chain is None:
            entry = rules.no_chain(downstream, self.now)
            walk.trace.hops.append(describe.hop(node.proxy, entry, rules, None, reasons=why))
            return conversation.dropped(talk)
        if chain.tls is None:
            return self._chain(node, rules, chain, downstream, talk, walk, why)
        return self._terminate(node, rules, chain, chain.tls, downstream, talk, walk, why)

    def _inspect(self, rules: ListenerRules, downstream: Downstream, talk: Conversation) -> bool:
        """What the inspectors find; True where one waits for bytes that never come."""
        if isinstance(talk, Tls):
            if rules.inspects_tls:
                downstream.transport, downstream.sni, downstream.alpn = TLS, talk.offer.sni.lower(), talk.offer.alpn
            elif rules.inspects_http:
                downstream.transport = RAW
            return False
        if isinstance(talk, Http):
            if rules.inspects_http:
                found = inspection.http_protocol(talk.spelled) if talk.spelled and not talk.http2 else H2C if talk.http2 else HTTP11
                downstream.alpn = (found,) if found else ()
            return False
        if not (rules.inspects_http or rules.inspects_tls):
            return False
        if not talk.data:
            return not rules.goes_on_after_timeout or rules.timeout == 0
        if rules.inspects_http:
            found = inspection.http_protocol(talk.data)
            if found is None:
                return rules.timeout == 0 or not rules.goes_on_after_timeout
            downstream.alpn = (found,) if found else ()
        return False

    def _chain(
        self,
        node: _Node,
        rules: ListenerRules,
        chain: Chain,
        downstream: Downstream,
        talk: Conversation,
        walk: _Walk,
        why: list[str] | None,
    ) -> Got:
        if chain.http is not None:
            return self._http(node, rules, chain.http, chain, downstream, talk, walk, why)
        return self._bytes(node, rules, chain, downstream, talk, walk, why)

    def _terminate(
        self,
        node: _Node,
        rules: ListenerRules,
        chain: Chain,
        context: DownstreamTlsContext,
        downstream: Downstream,
        talk: Conversation,
        walk: _Walk,
        why: list[str] | None,
    ) -> Got:
        """A chain with TLS of its own: the handshake, then what is inside."""
        answer = contexts.answer(context, node.secrets)
        outcome: Handshake | None = None
        if isinstance(talk, Tls) and answer is not None:
            outcome = shake(talk.offer, answer)
        if outcome is None or not outcome.ok:
            words = outcome.server_words if outcome else tls_words.HTTP_TO_TLS
            if chain.tcp is not None and answer is not None:
                self._abandoned(node, rules, chain, downstream, walk, words, why)
            if outcome is None:
                return conversation.dropped(talk) if isinstance(talk, Tls) else Got(error="eof", end="eof")
            return Got(handshake=outcome, inner=Got(error="eof") if outcome.late else None)
        assert isinstance(talk, Tls) and answer is not None
        downstream.secure, downstream.local_uris = True, answer.certificate.uris
        shown = outcome.client
        if shown is not None:
            downstream.peer = Peer(shown.uris, shown.dns, shown.subject, "0" * 64, "PEM")
        inner = talk.inner
        if isinstance(inner, Http) and inner.http2 is None:
            inner = replace(inner, http2=outcome.alpn == "h2")
        if inner is None and chain.http is not None:
            return Got(handshake=outcome, inner=Got(end="open"))
        return Got(handshake=outcome, inner=self._chain(node, rules, chain, downstream, inner or Raw(), walk, why))

    def _abandoned(
        self, node: _Node, rules: ListenerRules, chain: Chain, downstream: Downstream, walk: _Walk, words: str, why: list[str] | None
    ) -> None:
        """A relay whose client failed its handshake: the proxy had connected already, and logs the connection."""
        assert chain.tcp is not None
        session = tcp.Session(chain.tcp, downstream, self.now)
        step = session.begin()
        if isinstance(step, tcp.Connect):
            self._to(node.proxy.ip, step.host.address, Raw(), walk)
        session.client_failed(words, at_hello=words in (tls_words.UNSUPPORTED, tls_words.NO_SHARED_CIPHER))
        session.finish(self.now, 0, 0)
        walk.trace.hops.append(describe.hop(node.proxy, session.entry, rules, chain, cluster=session.cluster, reasons=why))

    # Bytes

    def _bytes(
        self,
        node: _Node,
        rules: ListenerRules,
        chain: Chain,
        downstream: Downstream,
        talk: Conversation,
        walk: _Walk,
        why: list[str] | None,
    ) -> Got:
        """A relay: connect first, then let the conversation through."""
        assert chain.tcp is not None
        session = tcp.Session(chain.tcp, downstream, self.now)
        hop = describe.hop(node.proxy, session.entry, rules, chain, reasons=why)
        walk.trace.hops.append(hop)
        step = session.begin()
        got = Got(error="reset")
        while True:
            if isinstance(step, tcp.Lookup):
                step = session.looked_up(step, self._world.resolve(step.name))
            elif isinstance(step, tcp.Close):
                got = conversation.dropped(talk)
                break
            else:
                silent = isinstance(talk, Raw) and not talk.data
                denied = None if silent else session.first_bytes()
                walk.relays += 1
                got = self._through(node, step, Raw() if denied else talk, walk, hop)
                walk.relays -= 1
                failure = self._connect_failure(got, step, talk)
                if failure is not None:
                    step = session.failed(*failure)
                    continue
                if denied is not None:
                    got = Got(error="eof", end="eof", handshake=None)
                    if isinstance(talk, Tls):
                        got = Got(handshake=Handshake(False, told="eof"))
                elif step.transport.tls is not None and got.handshake is not None:
                    got = got.inner or Got(error="eof", end="eof")
                break
        hop.cluster = describe.cause_of_cluster(session.cluster)
        session.finish(self.now, 0, 0)
        return got

    def _through(self, node: _Node, step: tcp.Connect, talk: Conversation, walk: _Walk, hop: Hop) -> Got:
        """The upstream side of a relay: a header, a tunnel, TLS around it, as the cluster says."""
        source, address = node.proxy.ip, step.host.address
        if step.tunnel is not None:
            return self._tunnelled(node, step, talk, walk)
        if step.transport.proxy_protocol:
            talk = conversation.with_proxy_header(talk, hop.entry.downstream, step.transport)
        offer = contexts.offer(step.transport, node.secrets) if step.transport.tls is not None else None
        if step.transport.tls is not None and offer is None:
            return Got(handshake=Handshake(False, client_words=tls_words.NO_SECRET))
        hop.leg = describe.leg(source, address, "TCP", offer, talk)
        got = self._to(source, address, Tls(offer, talk) if offer is not None else talk, walk, inside=_leads_inside(step.cluster))
        describe.agreed(hop.leg, got)
        return got

    def _tunnelled(self, node: _Node, step: tcp.Connect, talk: Conversation, walk: _Walk) -> Got:
        """CONNECT to a forward proxy, then the conversation through it."""
        assert step.tunnel is not None
        ask: Conversation = Http(step.tunnel, http2=step.http2)
        if step.transport.tls is not None:
            offer = contexts.offer(step.transport, node.secrets)
            if offer is None:
                return Got(error="eof")
            ask = Tls(offer, ask)
        got = self._to(node.proxy.ip, step.host.address, ask, walk)
        answer = got.inner if got.handshake is not None and got.inner is not None else got
        if answer.response is None or answer.response.status // 100 != 2 or not answer.data:
            return answer if answer.error else Got(error="eof")
        server, _, target = answer.data.decode().partition(" ")
        host, _, port = target.rpartition(":")
        found = [host] if host.replace(".", "").isdigit() else self._world.resolve(host)
        return self._to(server, Endpoint(found[0], int(port)), talk, walk) if found else Got(error="eof")

    def _connect_failure(self, got: Got, step: tcp.Connect, talk: Conversation) -> tuple[Reset, str] | None:
        """Why the proxy could not connect, or None where it could."""
        if got.error == "refused":
            return Reset.CONNECT, "delayed connect error: Connection refused"
        if got.error == "unreachable" or (step.transport.tls is not None and _stalled(got)):
            self.now += step.cluster.connect_timeout
            return Reset.TIMEOUT, ""
        if (
            step.transport.tls is not None
            and (got.handshake is None or not got.handshake.ok)
            and not (got.handshake and got.handshake.late)
        ):
            return Reset.CONNECT, got.handshake.client_words if got.handshake and got.handshake.client_words else conversation.tls_failure(
                got
            )
        return None

    # HTTP

    def _http(
        self,
        node: _Node,
        rules: ListenerRules,
        manager: Manager,
        chain: Chain,
        downstream: Downstream,
        talk: Conversation,
        walk: _Walk,
        why: list[str] | None,
    ) -> Got:
        """An HTTP connection manager: one request, with its retries."""
        if isinstance(talk, Raw):
            parsed = inspection.request(talk.data)
            if parsed is None:
                return self._no_request(node, rules, chain, downstream, talk, walk)
            if parsed.version == http1.OLD and not manager.rules.http10:
                return self._refused(node, rules, manager, chain, downstream, walk, None, "version")
            talk = Http(parsed)
        if isinstance(talk, Tls):
            return self._refused(node, rules, manager, chain, downstream, walk, Got(handshake=not_tls()))
        request, last = conversation.copied(talk.request), False
        if talk.spelled and not talk.http2:
            try:
                heard = conversation.understood(talk)
            except http1.Refused as defect:
                return self._refused(node, rules, manager, chain, downstream, walk, None, defect.kind)
            request.path, request.authority, request.headers = heard.request.path, heard.request.authority, heard.request.headers
            last = not heard.keeps_alive
        request.version = "HTTP/2" if talk.http2 else "HTTP/1.1"
        if talk.http2:
            request.headers = http2_fields.with_one_cookie(request.headers)
        if talk.http2 and not http2_fields.readable(request.method, request.path, request.scheme):
            request = http2_fields.unread()
        this = Exchange(manager, downstream, request, self.now)
        hop = describe.hop(node.proxy, this.entry, rules, chain, reasons=why)
        walk.trace.hops.append(hop)
        got = self._unfit(this, manager, talk) or self._drive(node, this, talk, walk, hop)
        describe.routed(hop, this)
        this.finish(self.now, len(talk.body), len(got.body))
        return conversation.closing(got) if last else got

    def _unfit(self, this: Exchange, manager: Manager, talk: Http) -> Got | None:
        """What a request gets whose head the manager's codec does not take."""
        if talk.http2 and not this.request.method:
            this.refused(http2_fields.VIOLATION, broken=True)
            return Got(error="eof")
        if talk.http2 and this.request.upgrade and not manager.allows_connect:
            this.refused(http2_fields.UNKNOWN_FIELD, broken=True)
            return Got(error="eof")
        try:
            http1.check(this.request, sum(len(n) + len(v) + _AROUND for n, v in this.request.headers), manager.rules)
        except http1.Refused as defect:
            if talk.http2:
                this.refused(RESETS[defect.kind])
                return Got(error="stream reset")
            reply = this.local(BAD_REQUESTS[defect.kind])
            return conversation.closing(Got(response=reply.response, body=reply.body))
        return None

    def _drive(self, node: _Node, this: Exchange, talk: Http, walk: _Walk, hop: Hop) -> Got:
        step = this.begin()
        start, before = self.now, len(walk.deadlines)
        began: float | None = None  # when the route's timeout began to count
        body, echo = b"", None
        while True:
            if began is None and this.timeout:
                began = self.now
            own = limits.soonest(this, start, began)
            walk.deadlines[before:] = [own.when] if own else []
            if isinstance(step, steps.Wait):
                until = self.now + step.seconds
                if until > walk.deadline:
                    first = own is not None and own.when <= walk.deadline
                    self._pass_until(walk.deadline)
                    if own is not None and first:
                        step = own.act()
                        continue
                    this.downstream_gone(reset=talk.http2 is True)
                    got = Got(error="gave up")
                    break
                self.now = until
                step = this.resume()
            elif isinstance(step, steps.Lookup):
                step = this.looked_up(step.name, step.port, self._world.resolve(step.name) if not _is_address(step.name) else [step.name])
            elif isinstance(step, steps.Attempt):
                made, body, echo = self._attempt(node, this, step, talk, walk, hop, own)
                if isinstance(made, _GivenUp):
                    this.downstream_gone(reset=talk.http2 is True)
                    got = Got(error="gave up")
                    break
                step = made
            elif isinstance(step, steps.Forward):
                got = Got(response=step.response, body=body, echo=echo)
                break
            elif isinstance(step, steps.Reply):
                got = Got(response=step.response, body=step.body)
                if step.close and not talk.http2:
                    got = conversation.closing(got)
                break
            else:
                got = Got(error="reset")
                break
        del walk.deadlines[before:]
        return got

    def _attempt(
        self, node: _Node, this: Exchange, step: steps.Attempt, talk: Http, walk: _Walk, hop: Hop, own: limits.Limit | None
    ) -> tuple[steps.Step | _GivenUp, bytes, dict[str, Json] | None]:
        """One attempt upstream, and what it makes of the exchange."""
        self._mirror(node, this, walk)
        source, address = node.proxy.ip, step.host.address
        ask: Conversation = Http(conversation.copied(step.request), talk.body, step.http2)
        if step.transport.proxy_protocol:
            ask = conversation.with_proxy_header(ask, this.downstream, step.transport)
        offer = None
        if step.transport.tls is not None:
            offer = contexts.offer(step.transport, node.secrets)
            if offer is None:
                return this.failed(Reset.CONNECT, tls_words.NO_SECRET, sent=False), b"", None
            ask = Tls(offer, ask)
        hop.leg = describe.leg(source, address, "HTTP/2" if step.http2 else "HTTP/1.1", offer, None, step.request.authority)
        limited = step.per_try_timeout > 0
        try_ends = self.now + step.per_try_timeout
        if limited:
            walk.deadlines.append(try_ends)
        step.host.active += 1
        try:
            got = self._to(source, address, ask, walk, inside=_leads_inside(step.cluster))
        finally:
            step.host.active -= 1
            if limited:
                walk.deadlines.pop()
        describe.agreed(hop.leg, got)
        if got.error == "unreachable" or (offer is not None and _stalled(got)):
            self.now += step.cluster.connect_timeout
            return this.failed(Reset.TIMEOUT, sent=False), b"", None
        if offer is not None and got.error != "refused":
            if got.handshake is None or (not got.handshake.ok and not got.handshake.late):
                words = conversation.tls_failure(got)
                return this.failed(Reset.CONNECT, words, sent=False), b"", None
            if not got.handshake.ok:
                return this.failed(Reset.TERMINATION), b"", None
            got = got.inner or Got(error="eof")
        if got.response is not None:
            return this.responded(conversation.as_received(got.response, step.http2)), got.body, got.echo
        if got.error == "gave up" or got.error == "timeout":
            self._pass_until(min(walk.deadline, try_ends) if limited else walk.deadline)
            if limited and try_ends <= walk.deadline:
                return this.try_timed_out(), b"", None
            if own is not None and own.when <= walk.deadline:
                return own.act(), b"", None
            return _GIVEN_UP, b"", None
        if got.error == "refused":
            return this.failed(Reset.CONNECT, "delayed connect error: Connection refused", sent=False), b"", None
        if got.error == "stream reset":
            return this.failed(Reset.REMOTE), b"", None
        if got.error == "not http" or got.data:
            return this.failed(Reset.PROTOCOL), b"", None
        return this.failed(Reset.TERMINATION), b"", None

    def _mirror(self, node: _Node, this: Exchange, walk: _Walk) -> None:
        """Copies of the request; what becomes of them nobody asks."""
        mirrors, this.mirrors = this.mirrors, []
        for mirror in mirrors:
            host = mirror.cluster.pick()
            if host is None:
                continue
            http2 = mirror.cluster.speaks_http2(mirror.request.version == "HTTP/2")
            self._to(node.proxy.ip, host.address, Http(conversation.copied(mirror.request), http2=http2), walk)

    def _no_request(self, node: _Node, rules: ListenerRules, chain: Chain, downstream: Downstream, talk: Raw, walk: _Walk) -> Got:
        """Bytes that are no request: refused at once, or waited for while they may still become one."""
        if not talk.data:
            return Got(end="open")
        assert chain.http is not None
        if inspection.may_become_request(talk.data):
            self._pass_until(walk.deadline)
            entry = self._codec_entry(rules, downstream)
            entry.flag("DC")
            entry.details = "downstream_remote_disconnect"
            walk.trace.hops.append(describe.hop(node.proxy, entry, rules, chain))
            return Got(error="timeout", end="timeout")
        got = self._refused(node, rules, chain.http, chain, downstream, walk, None)
        assert got.response is not None
        return Got(data=conversation.bad_request(got.response, got.body), end="eof", error="not http")

    def _refused(
        self,
        node: _Node,
        rules: ListenerRules,
        manager: Manager,
        chain: Chain,
        downstream: Downstream,
        walk: _Walk,
        got: Got | None,
        kind: str = "syntax",
    ) -> Got:
        """The codec cannot read what came: an answer by the kind of defect, or `got` where the client cannot read that."""
        this = Exchange(manager, downstream, Request("", "", ""), self.now)
        this.entry.protocol = this.request.version
        reply = this.local(BAD_REQUESTS[kind])
        entry = this.finish(self.now, 0, 0)
        walk.trace.hops.append(describe.hop(node.proxy, entry, rules, chain))
        return got or conversation.closing(Got(response=reply.response, body=reply.body))

    def _codec_entry(self, rules: ListenerRules, downstream: Downstream) -> Entry:
        entry = Entry(downstream, start=self.now, listener=rules.name, protocol="HTTP/1.1", end=self.now)
        entry.remote = downstream.source
        return entry

    def _pass_until(self, when: float) -> None:
        if when != float("inf"):
            self.now = max(self.now, when)


class _GivenUp:
    """Somebody before this proxy stopped waiting."""


_GIVEN_UP = _GivenUp()


def _leads_inside(cluster: Cluster) -> bool:
    """Whether a cluster's connections go to the proxy's own pod: Istio's inbound clusters, which the redirect lets pass."""
    return cluster.name.startswith("inbound|") or cluster.name == "InboundPassthroughCluster"


def _drop(source: str, destination: str, wall: Wall) -> str:
    return f"{source} to {destination}: {', '.join(wall.policies)}"


def _is_address(text: str) -> bool:
    return text.replace(".", "").isdigit()


def _stalled(got: Got) -> bool:
    """Whether the other side never answered in a handshake: the time to connect covers that too."""
    return got.handshake is not None and not got.handshake.ok and got.handshake.told == "timeout"
