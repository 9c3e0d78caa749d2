"""One HTTP request through one proxy, without a socket: what to send, what to answer, what to try again, what to log.

How this works: the caller, live or simulated, feeds what happens in and does what comes out:

    begin()             -> Reply | Wait | Attempt         the request head is complete
    resume()            -> Reply | Wait | Attempt         the time of a Wait has passed
    responded(head)     -> Forward | Wait | Reply         the upstream's response head
    failed(reset, ...)  -> Reply | Wait | Cut             the attempt ended without (the rest of) a response
    timed_out(which)    -> Reply | Wait | Cut

`Reply` and `Forward` go to the client, `Attempt` to a host, `Cut` ends what cannot be answered any more. The order of decisions is the
connection manager's: what every request must have, headers, path, route, filters in their order, then the router. `entry` is the
access-log entry all the while; `finish` completes it.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from meshsim import hosts
from meshsim.routing import cors, faults, grpc, hash_policies, headers, http2_fields, paths, rbac, replies, routes
from meshsim.routing.clusters import DYNAMIC, Cluster, Host
from meshsim.routing.entry import Entry
from meshsim.routing.facts import Downstream
from meshsim.routing.http1 import OLD
from meshsim.routing.message import Headers, Request, Response, replaced, without
from meshsim.routing.replies import Local
from meshsim.routing.retries import Reset, Retries, Verdict
from meshsim.routing.routes import CompiledRoute
from meshsim.routing.steps import Attempt, Cut, Forward, Lookup, Mirror, Reply, Step, Wait
from meshsim.routing.transport import transport
from meshsim.xds.message import DataSource
from meshsim.xds.route import ClusterWeight, RedirectAction, Route, RouteAction, RouteConfiguration, VirtualHost

if TYPE_CHECKING:
    from meshsim.routing.manager import Manager

_PLAIN_TEXT = ("content-type", "text/plain")
_HERE = RedirectAction()  # to where the request was sent itself


class Exchange:
    """One request."""

    def __init__(self, manager: Manager, downstream: Downstream, request: Request, now: float):
        self.manager, self.downstream, self.request = manager, downstream, request
        self.runtime = manager.runtime
        self._rng: random.Random = manager.runtime.rng
        self.entry = Entry(downstream, start=now, listener=manager.listener)
        self.entry.remote = downstream.source
        self.selected: CompiledRoute | None = None
        self.cluster: Cluster | None = None
        self.mirrors: list[Mirror] = []
        self.timeout = 0.0
        self._leg: ClusterWeight | None = None
        self._host: Host | None = None
        self._tried: list[Host] = []
        self._retries: Retries | None = None
        self._hash: int | None = None
        self._set_cookie = ""
        # Functions of the class, not bound ones: an exchange that refers to itself would wait for the garbage collector.
        self._after_wait: Callable[[Exchange], Step] = Exchange._route_it
        self._pending_filters: list[Callable[[Exchange], Step | None]] = []
        self._responded = False
        self._retried = False
        self._decorator = ""
        self._response_extras: Headers = []
        self._cookies: Headers = []
        self._finalized = False
        self._completed: float | None = now if request.ends else None
        """When all of the request had come."""
        self._must_redirect = False
        self._is_call = False
        """Whether it is a gRPC call whose host is told of the timeout as gRPC does."""

    # Events --------------------------------------------------------------------------------------------------------------------------

    def begin(self) -> Step:
        """The head of the request is complete: what becomes of it."""
        request, config = self.request, self.manager.config
        if request.version == OLD and not request.authority and config.http_protocol_options is not None:
            request.authority = config.http_protocol_options.default_host_for_http_10
        if request.version in ("HTTP/1.1", "HTTP/1.0") and not request.authority and all(n != "host" for n, _ in request.headers):
            return self.local(replies.NO_HOST_HEADER)
        if not request.path.startswith("/") and request.method != "CONNECT":
            return self.local(replies.RELATIVE_PATH)
        if request.upgrade == "h2c":
            request.upgrade = ""
        try:
            path = self.manager.normalize(request.path) if request.method != "CONNECT" else request.path
        except paths.RedirectTo as e:
            self._look_ahead()
            return self._reply(Local(307, "", "path_normalization_failed"), [("location", e.path)])
        if path is None:
            self._look_ahead()
            return self.local(replies.BAD_PATH)
        request.path = path
        self.entry.remote = headers.incoming(request, self.downstream, config, self._rng)
        if config.strip_any_host_port or config.strip_matching_host_port:
            self._strip_port()
        table = self.manager.table()
        if table is None:
            return self.local(replies.NO_ROUTE_TABLE)
        host = table.virtual_host(request.authority)
        self._must_redirect = host is not None and host.config.require_tls == "ALL" and request.scheme != "https"
        if not self._must_redirect:
            self.selected = table.route(request, self._rng)
        self._choose_cluster()
        self._decorate()
        if request.upgrade and not self._upgrade_allowed(request.upgrade):
            return self.local(replies.NO_UPGRADE)
        self._pending_filters = list(self.manager.filters(self.selected))
        return self._filter()

    def resume(self) -> Step:
        return self._after_wait(self)

    def looked_up(self, name: str, port: int, addresses: list[str]) -> Step:
        """What a `Lookup` found."""
        assert self.cluster is not None
        if not addresses:
            self.entry.attempts += 1
            return self.local(replies.NO_ADDRESS)
        return self._attempt_at(self.cluster.dynamic_host(name, port, addresses[0]))

    def responded(self, response: Response) -> Step:
        """The head of the upstream's response."""
        assert self.cluster is not None and self._host is not None
        if not http2_fields.sound(response):
            return self.failed(Reset.PROTOCOL)
        self.cluster.report(self._host, response.status)
        if self._retries is not None:
            verdict = self._retries.after_response(response)
            if verdict is Verdict.RETRY:
                return self._again()
            if verdict.flag:
                self.entry.flag(verdict.flag)
        switching = response.status == 101
        if self.request.upgrade and not switching and response.status < 400:
            refused = Local(response.status, "", "websocket_handshake_unsuccessful", closes=True)
            return self._reply(refused, [(n, v) for n, v in response.headers if n not in _DROPPED_FROM_REFUSALS])
        self.entry.code, self.entry.details = response.status, "via_upstream"
        self._responded = True
        if switching and self.request.upgrade:
            kept = [(n, v) for n, v in response.headers if n not in _DROPPED_FROM_UPGRADES]
        else:
            kept = [pair for pair in response.headers if pair[0] not in _DROPPED_FROM_RESPONSES]
            if self._completed is not None and not self.manager.suppresses:
                kept = self._with_service_time(kept, response)
            kept += self._cookies
            response.ends = response.ends or switching  # to what nobody asked for: there is nothing behind it
        return Forward(self._outgoing(Response(response.status, kept, response.ends)))

    def failed(self, reset: Reset, reason: str = "", *, sent: bool = True) -> Step:
        """The attempt ended without a whole response. reason: the transport's words; sent: whether any of the request was given to it."""
        assert self.cluster is not None
        reason = reason.replace(" ", "_")
        if reason:
            self.entry.upstream_failure = reason
        if reset in (Reset.CONNECT, Reset.TIMEOUT):
            self.entry.upstream_protocol = ""  # nothing was spoken
        if self._host is not None:
            self.cluster.report(self._host, None)
        if self._responded:
            details, flag = replies.upstream_broke_off(reset)
            self.entry.details = details
            self.entry.flag(flag)
            return Cut()
        if self._retries is not None:
            verdict = self._retries.after_reset(reset, sent=sent)
            if verdict is Verdict.RETRY:
                return self._again()
            if verdict.flag:
                self.entry.flag(verdict.flag)
        extra = [("x-envoy-overloaded", "true")] if reset is Reset.OVERFLOW else []
        return self._reply(replies.upstream_failed(reset, reason, retried=self._retried), extra)

    def timed_out(self) -> Step:
        """The route's timeout, which starts when the request is complete."""
        if self._responded:
            self.entry.flag("UT")
            self.entry.details = replies.TIMEOUT.details
            return Cut()
        self._report_timeout()
        return self.local(replies.TIMEOUT)

    def try_timed_out(self) -> Step:
        """The time of one attempt."""
        if self._responded:
            return Cut()
        self._report_timeout()
        if self._retries is not None:
            verdict = self._retries.after_reset(Reset.LOCAL, sent=True)
            if verdict is Verdict.RETRY:
                return self._again()
            if verdict.flag:
                self.entry.flag(verdict.flag)
        return self.local(replies.PER_TRY_TIMEOUT)

    def give_up_retries(self) -> None:
        """The request's body has become too much to keep, so it cannot be sent again."""
        if self._retries is not None:
            self._retries.release()
            self._retries = None

    @property
    def idle_timeout(self) -> float:
        """Seconds that the stream may do nothing, 0 for any."""
        own = self.selected.idle if self.selected else None
        return self.manager.limits.stream_idle if own is None else own

    @property
    def longest(self) -> float:
        """Seconds that request and response may take together, 0 for any."""
        own = self.selected.longest if self.selected else None
        return self.manager.limits.stream if own is None else own

    def completed(self) -> None:
        """All of the request has come."""
        self._completed = self.runtime.clock()

    def lasted_too_long(self) -> Step:
        """Request and response took longer together than they may."""
        if self._responded:
            self.entry.details = replies.MAX_DURATION.details
            return Cut()
        return self.local(replies.MAX_DURATION)

    def idle(self, *, request_complete: bool) -> Step:
        """Nothing moved for the stream's idle timeout."""
        if self._responded:
            self.entry.flag("SI")
            self.entry.details = replies.STREAM_IDLE.details
            return Cut()
        return self.local(replies.STREAM_IDLE if request_complete else replies.REQUEST_IDLE)

    def refused(self, details: str, *, broken: bool = False) -> None:
        """The request's HTTP/2 head ends its stream, or (broken) its connection."""
        self.entry.flag("DPE" if broken else "DR")
        self.entry.details = details

    def downstream_gone(self, *, reset: bool = False) -> None:
        """The client went away before the end; reset: it gave up an HTTP/2 stream."""
        self.entry.flag("DR" if reset else "DC")
        self.entry.details = "http2.remote_reset" if reset else "downstream_remote_disconnect"
        if not self._responded:
            self.entry.code = 0

    @property
    def repeatable(self) -> bool:
        """Whether nothing was drawn for it, or said to its client, that another request like it would not get (routing/repeats.py)."""
        drawn = self._leg is not None or self._cookies or self.mirrors
        return not (drawn or self._response_extras or self._must_redirect or self._is_call)

    def repeats(self, like: Exchange, host: Host) -> None:
        """Become what `like` was when its request had been sent; to `host`, and with the request that this one has."""
        self.selected, self.cluster, self.timeout, self._decorator = like.selected, like.cluster, like.timeout, like._decorator
        assert self.selected is not None and self.cluster is not None
        self._host, self._finalized = host, True
        self._tried.append(host)
        if self.selected.retries is not None:
            self._retries = Retries(self.selected.retries, self._rng, self.cluster.limits)
        entry, before = self.entry, like.entry
        entry.remote, entry.route, entry.cluster, entry.alt_cluster = before.remote, before.route, before.cluster, before.alt_cluster
        entry.upstream, entry.upstream_name, entry.attempts = host.name, host.hostname or host.name, 1
        entry.upstream_protocol, entry.upstream_sni = before.upstream_protocol, before.upstream_sni

    def forwarded(self, status: int, response_headers: Headers) -> None:
        """The head of the upstream's response went to the client, as it is."""
        self.entry.code, self.entry.details, self.entry.response_headers = status, "via_upstream", response_headers
        self._responded = True

    def finish(self, now: float, received: int, sent: int) -> Entry:
        """The stream is over: body bytes both ways. The entry, complete."""
        self.entry.end, self.entry.received, self.entry.sent = now, received, sent
        if self._retries is not None:
            self._retries.release()
        self._log_request()
        return self.entry

    # Route ---------------------------------------------------------------------------------------------------------------------------

    def _log_request(self) -> None:
        """Give the entry the request as it is now, before anything reads it there."""
        entry, request = self.entry, self.request
        entry.method, entry.path, entry.authority, entry.scheme = request.method, request.path, request.authority, request.scheme
        entry.protocol, entry.request_headers = request.version, request.headers

    def _look_ahead(self) -> None:
        """Find the route of a request that is refused already: its log entry and its answer know it, if the request says how it came."""
        table = self.manager.table()
        if table is not None and self.request.first(headers.XFP):
            self.selected = table.route(self.request, self._rng)
            self._choose_cluster()

    def _choose_cluster(self) -> None:
        """The cluster of the route, which logs name even where a filter then answers."""
        if self.selected is None:
            return
        route = self.selected.route
        self.entry.route = route.name
        action = route.route
        if action is None:
            return
        name = action.cluster or ""
        if action.weighted_clusters is not None:
            self._leg = action.weighted_clusters.clusters[routes.weighted(action.weighted_clusters, self._rng)]
            name = self._leg.name
        elif action.cluster_header:
            name = self.request.first(action.cluster_header.lower()) or ""
        self.cluster = self.runtime.clusters.get(name)
        if self.cluster is not None:
            self.entry.cluster, self.entry.alt_cluster = name, self.cluster.config.alt_stat_name

    def _strip_port(self) -> None:
        """Take the port off the host: any, or the one that the connection went to."""
        bare = hosts.strip_port(self.request.authority)
        port = self.request.authority[len(bare) + 1 :]
        if self.manager.config.strip_any_host_port or port == str(self.downstream.destination.port):
            self.request.authority = bare

    def _decorate(self) -> None:
        """The operation's name for tracing: told to the next proxy on the way out, taken from the last one on the way in."""
        decorator = self.selected.route.decorator if self.selected else None
        if self.manager.config.tracing is None:
            return
        if self.manager.is_egress:
            if decorator is not None and decorator.operation and decorator.propagate is not False:
                self.request.headers = replaced(self.request.headers, headers.DECORATOR, decorator.operation)
        else:
            told = self.request.first(headers.DECORATOR)
            self.request.headers = without(self.request.headers, headers.DECORATOR)
            if told is None and decorator is not None and decorator.propagate is not False:
                self._decorator = decorator.operation

    def _upgrade_allowed(self, kind: str) -> bool:
        action = self.selected.route.route if self.selected else None
        for upgrade in [*(action.upgrade_configs if action else ()), *self.manager.config.upgrade_configs]:
            if upgrade.upgrade_type.lower() == kind:
                return upgrade.enabled is not False
        return False

    # Filters -------------------------------------------------------------------------------------------------------------------------

    def _filter(self) -> Step:
        while self._pending_filters:
            step = self._pending_filters.pop(0)(self)
            if step is not None:
                self._after_wait = Exchange._filter
                return step
        return self._route_it()

    def deny(self, verdict: rbac.Verdict) -> Step:
        return self.local(Local(rbac.DENIED_STATUS, rbac.DENIED_BODY, verdict.details))

    def caller(self) -> rbac.Caller:
        remote = self.entry.remote or self.downstream.source
        return rbac.Caller(self.downstream, self.request, remote.host)

    def inject(self, fault: faults.Fault) -> Step | None:
        """Do what a fault says: wait, then end the request or let it go on."""

        def abort(exchange: Exchange) -> Step | None:
            if fault.status is None:
                return None
            if fault.grpc is not None:
                return exchange._reply(replies.FAULT._replace(status=200), [], grpc_status=fault.grpc)
            return exchange.local(replies.FAULT._replace(status=fault.status))

        if fault.delay is not None:
            self.entry.flag("DI")
            self._pending_filters.insert(0, abort)
            return Wait(fault.delay)
        return abort(self)

    def allow_origin(self, policy: cors.Policy) -> Step | None:
        """Answer a preflight request, or remember what the response must say."""
        decision = policy.decide(self.request)
        if decision.preflight:
            return self._reply(Local(200, "", "cors_response"), decision.headers)
        self._response_extras += decision.headers
        return None

    # Router --------------------------------------------------------------------------------------------------------------------------

    def _route_it(self) -> Step:
        if self._must_redirect:
            return self._reply(Local(301, "", "direct_response"), [("location", f"https://{self.request.authority}{self.request.path}")])
        if self.selected is None:
            return self.local(replies.NO_ROUTE)
        route = self.selected.route
        if route.redirect is not None:
            status, location, self.request.path = paths.redirect(route.redirect, route, self.request)
            return self._reply(Local(status, "", "direct_response"), [("location", location)])
        if route.direct_response is not None:
            status = route.direct_response.status
            made = [("location", paths.redirect(_HERE, route, self.request)[1])] if status == 201 or 300 <= status < 400 else []
            return self._reply(Local(status, _inline(route.direct_response.body), "direct_response"), made)
        action = route.route
        if action is None:
            return self.local(replies.NO_ROUTE)
        if self.cluster is None:
            not_found = 404 if action.cluster_not_found_response_code == "NOT_FOUND" else 503
            return self.local(replies.NO_CLUSTER._replace(status=not_found))
        if self.selected.retries is not None:
            self._retries = Retries(self.selected.retries, self._rng, self.cluster.limits)
        longest_call = self.selected.longest_call
        self._is_call = longest_call is not None and grpc.is_call(self.request)
        self.timeout = grpc.timeout(self.request, longest_call or 0.0) if self._is_call else self.selected.timeout
        if action.hash_policy and self.cluster.balances_by_hash:
            self._hash, self._cookies = hash_policies.hashed(action.hash_policy, self.request, self.downstream, self._rng)
        return self._attempt()

    def _attempt(self) -> Step:
        assert self.cluster is not None
        if self.cluster.type == DYNAMIC:
            self._finalize()
            bare = hosts.strip_port(self.request.authority)
            port = self.request.authority[len(bare) + 1 :]
            return Lookup(bare, int(port) if port else 443 if self.cluster.config.transport_socket else 80)
        if not self._finalized and not self._needs_host:
            self._finalize()
        avoid = self._tried if self._retries and self._retries.rules.avoids_previous_hosts else []
        tries = self._retries.rules.host_attempts if self._retries else 1
        destination = self.downstream.destination if self.downstream.restored else None
        host = self.cluster.pick(key=self._hash, destination=destination, avoid=avoid, tries=tries)
        if host is None:
            self.entry.attempts += 1
            self.entry.upstream_failure = self.cluster.loop
            return self.local(replies.no_host(self.cluster.loop))
        return self._attempt_at(host)

    def _attempt_at(self, host: Host) -> Attempt:
        assert self.cluster is not None
        self._host = host
        self._tried.append(host)
        entry = self.entry
        entry.attempts += 1
        entry.upstream, entry.upstream_name, entry.upstream_failure = host.name, host.hostname or host.name, ""
        first = entry.attempts == 1
        if not self._finalized:
            self._finalize()
        if not first:
            self._say_time_left()
        if self.selected and self.selected.host.config.include_request_attempt_count:
            self.request.headers = replaced(self.request.headers, headers.ATTEMPTS, str(entry.attempts))
        if first:
            self._mirror()
        http2 = self.cluster.speaks_http2(self.request.version == "HTTP/2")
        entry.upstream_protocol = "HTTP/2" if http2 else "HTTP/1.1"
        way = transport(self.cluster, host, self.request.authority, http2)
        entry.upstream_sni = way.sni
        return Attempt(
            self.cluster, host, self.request, http2, way, self._retries.rules.per_try_timeout if self._retries else 0.0, entry.attempts
        )

    @property
    def _needs_host(self) -> bool:
        """Whether the request cannot be completed before its host is known."""
        action = self.selected.route.route if self.selected else None
        return action is not None and action.auto_host_rewrite is True

    def _again(self) -> Wait:
        assert self._retries is not None
        self._retried = True
        self._after_wait = Exchange._attempt
        return Wait(self._retries.delay())

    def _report_timeout(self) -> None:
        if self.cluster is not None and self._host is not None:
            self.cluster.report(self._host, 504)

    def _finalize(self) -> None:
        """Change the request as its route says: headers, then host, then path."""
        self._finalized = True
        assert self.selected is not None
        request, route = self.request, self.selected.route
        action = route.route
        assert action is not None
        self._say_time_left()
        if self._leg is not None or self.selected.changes_requests:
            levels = [(h.request_headers_to_remove, h.request_headers_to_add) for h in self._levels()]
            request.headers = headers.changed(request.headers, levels, self._substitute, headers.SINGLE_IN_REQUESTS)
            if self._retries is not None:
                self._retries.heed(request)
            request.headers = [pair for pair in request.headers if pair[0] not in headers.RETRY_ADVICE]
        self._rewrite_host(action)
        if action.prefix_rewrite or action.regex_rewrite is not None:
            path = paths.rewritten(request.path, route.match, action.prefix_rewrite, action.regex_rewrite)
            if not self.manager.suppresses:
                request.headers = replaced(request.headers, headers.ORIGINAL_PATH, request.path)
            request.path = path

    def _say_time_left(self) -> None:
        """Tell the host how long its answer will be waited for: what the attempt may take, of what the route has left."""
        limit = self._retries.rules.per_try_timeout if self._retries else 0.0
        if self.timeout:
            left = self.timeout - (self.runtime.clock() - self._completed if self._completed is not None else 0.0)
            limit = max(min(limit or left, left), 0.001)
        if limit and not self.manager.suppresses:
            self.request.headers = replaced(self.request.headers, headers.EXPECTED_TIMEOUT, headers.milliseconds(limit))
        if limit and self._is_call:
            told = grpc.spelled(int(headers.milliseconds(limit)))
            self.request.headers = replaced(self.request.headers, grpc.TIMEOUT, told)

    def _levels(self) -> list[ClusterWeight | Route | VirtualHost | RouteConfiguration]:
        """Where header operations come from, in the order they apply."""
        assert self.selected is not None
        host = self.selected.host
        leg = [self._leg] if self._leg is not None else []
        return [*leg, self.selected.route, host.config, host.table.config]

    def _rewrite_host(self, action: RouteAction) -> None:
        request = self.request
        if self._leg is not None and self._leg.host_rewrite_literal:
            request.authority = self._leg.host_rewrite_literal
            return
        new = action.host_rewrite_literal
        if action.auto_host_rewrite and self._host is not None:
            new = self._host.hostname
        if not new:
            return
        if action.append_x_forwarded_host:
            request.headers.append(("x-forwarded-host", request.authority))
        if not self.manager.suppresses:
            request.headers = replaced(request.headers, headers.ORIGINAL_HOST, request.authority)
        request.authority = new

    def _mirror(self) -> None:
        """Copies for `request_mirror_policies`, as the request goes out; each says in its host that it is one."""
        action = self.selected.route.route if self.selected else None
        for policy in action.request_mirror_policies if action else ():
            if policy.runtime_fraction is not None and not routes.chance(policy.runtime_fraction, self._rng):
                continue
            cluster = self.runtime.clusters.get(policy.cluster)
            if cluster is None:
                continue
            authority = self.request.authority
            if not policy.disable_shadow_host_suffix_append:
                bare = hosts.strip_port(authority)
                authority = f"{bare}-shadow{authority[len(bare):]}"
            copy = replaced(self.request.headers, headers.INTERNAL, "true")
            before = self.request.first(headers.XFF)
            own = self.runtime.local_address
            copy = replaced(copy, headers.XFF, f"{before},{own}" if before else own)
            request = self.request
            self.mirrors.append(
                Mirror(cluster, Request(request.method, request.path, authority, request.scheme, copy, request.version, request.ends))
            )

    # Response ------------------------------------------------------------------------------------------------------------------------

    def local(self, reply: Local) -> Reply:
        """Answer with a row of the table."""
        return self._reply(reply, [])

    def _reply(self, reply: Local, extra: Headers, *, grpc_status: int | None = None) -> Reply:
        """grpc_status: what a caller of gRPC is told where the status of HTTP does not say it."""
        entry = self.entry
        if reply.flag:
            entry.flag(reply.flag)
        if reply.details:
            entry.details = reply.details
        status, body = reply.status, reply.body
        described: Headers = []
        if grpc.is_call(self.request):
            if grpc_status is None:
                grpc_status = replies.GRPC_STATUS.get(status, replies.GRPC_UNKNOWN)
            described = [("content-type", grpc.CONTENT_TYPE), ("grpc-status", str(grpc_status))]
            described += [("grpc-message", body)] if body else []
            status, body = 200, ""
        elif body:
            described = [("content-length", str(len(body))), _PLAIN_TEXT]
        entry.code = status
        self._responded = True
        bodiless = self.request.method == "HEAD" or status in (204, 304)  # RFC 9110 6.4.1
        sent = b"" if bodiless else body.encode("latin-1")
        return Reply(self._outgoing(Response(status, list(extra), not sent), described), sent, reply.closes)

    def _outgoing(self, response: Response, described: Headers | None = None) -> Response:
        """What the configuration and the connection manager do to every response.

        described: what an answer of the proxy's own says of its body, whatever the rules say; but they may call text what they like.
        """
        manager = self.manager
        if self._response_extras:
            response.headers = [*response.headers, *self._response_extras]
        selected = self.selected
        routed = selected is not None and (selected.route.route is not None or self.entry.details == "direct_response")
        if (described is None or routed) and (self._leg is not None or (selected is not None and selected.changes_responses)):
            levels = [(h.response_headers_to_remove, h.response_headers_to_add) for h in self._levels()]
            self.entry.response_headers = response.headers  # which what is added may name
            response.headers = headers.changed(response.headers, levels, self._substitute, headers.SINGLE_IN_RESPONSES)
        for name, value in described or ():
            if (name, value) != _PLAIN_TEXT or response.first(name) is None:
                response.headers = replaced(response.headers, name, value)
        names = {name for name, _ in response.headers}
        if manager.config.tracing is not None:
            if manager.is_egress:
                if headers.DECORATOR in names:
                    response.headers = without(response.headers, headers.DECORATOR)
            elif self._decorator:
                response.headers = replaced(response.headers, headers.DECORATOR, self._decorator)
        if "date" not in names:
            response.headers.append(("date", self.runtime.http_date()))
        mode, name = manager.config.server_header_transformation, manager.config.server_name or "envoy"
        if mode == "OVERWRITE" or (mode == "APPEND_IF_ABSENT" and "server" not in names):
            response.headers = replaced(response.headers, "server", name)
        if manager.config.always_set_request_id_in_response and (own := self.request.first(headers.REQUEST_ID)):
            response.headers = replaced(response.headers, headers.REQUEST_ID, own)
        self.entry.response_headers = response.headers
        return response

    def _with_service_time(self, kept: Headers, response: Response) -> Headers:
        """With the time the host took, in the place of what it said itself."""
        took = (headers.SERVICE_TIME, str(int((self.runtime.clock() - self.entry.start) * 1000)))
        if len(kept) < len(response.headers) and response.first(headers.SERVICE_TIME) is not None:
            kept = [(n, v) for n, v in response.headers if n not in _DROPPED_FROM_RESPONSES or n == headers.SERVICE_TIME]
            return replaced(kept, *took)
        kept.append(took)
        return kept

    def _substitute(self, value: str) -> str:
        self._log_request()
        return self.runtime.substitute(value, self.entry)


def _inline(source: DataSource | None) -> str:
    """A configured body, one character per byte."""
    if source is None:
        return ""
    if source.inline_bytes is not None:
        return base64.b64decode(source.inline_bytes).decode("latin-1")
    return (source.inline_string or "").encode().decode("latin-1")


_DROPPED_FROM_UPGRADES = frozenset(("keep-alive", "proxy-connection", "transfer-encoding", headers.SERVICE_TIME))
_DROPPED_FROM_REFUSALS = _DROPPED_FROM_UPGRADES | {"connection", "upgrade", "content-length"}
_DROPPED_FROM_RESPONSES = frozenset(("connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", headers.SERVICE_TIME))
