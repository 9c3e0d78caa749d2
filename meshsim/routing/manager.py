"""An HTTP connection manager, compiled: its options, its filters in order, its loggers, and where its routes come from."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from meshsim.routing import access_log, cors, faults, paths, rbac
from meshsim.routing.http1 import Rules
from meshsim.routing.lifetime import Limits
from meshsim.routing.routes import CompiledRoute, RouteTable
from meshsim.xds.http_connection_manager import HttpConnectionManager
from meshsim.xds.http_filters import Cors, CorsPolicy, DynamicForwardProxyFilter, HttpFault, Router
from meshsim.xds.rbac import HttpRbac

if TYPE_CHECKING:
    from meshsim.routing.exchange import Exchange
    from meshsim.routing.runtime import Runtime
    from meshsim.routing.steps import Step


Filter = Callable[["Exchange"], "Step | None"]
OfRoute = Callable[["CompiledRoute | None"], "Filter | None"]
"""What a filter is to the requests of a route; None where it lets all of them be."""
_T = TypeVar("_T")


class Manager:
    """listener: the name of the one it serves. is_egress: whether traffic here leaves the mesh's workload."""

    def __init__(self, config: HttpConnectionManager, runtime: Runtime, listener: str, *, is_egress: bool):
        self.config, self.runtime, self.listener, self.is_egress = config, runtime, listener, is_egress
        self.normalize = paths.normalizer(config)
        self.suppresses = False
        self.resolves = False
        """Whether a filter looks up what a request asks for before it is routed on."""
        self._filters = [f for f in map(self._compiled, config.http_filters) if f is not None]
        self.loggers = access_log.loggers(config.access_log)
        self._inline = RouteTable(config.route_config) if config.route_config is not None else None
        self.limits = Limits.of(config)
        self.rules = Rules.of(config)
        self.allows_connect = config.http2_protocol_options is not None and config.http2_protocol_options.allow_connect
        """Whether HTTP/2 clients may ask for upgrades (RFC 8441)."""

    def table(self) -> RouteTable | None:
        """The routes as they are now."""
        if self._inline is not None:
            return self._inline
        return self.runtime.tables.get(self.config.rds.route_config_name) if self.config.rds else None

    def filters(self, route: CompiledRoute | None) -> list[Filter]:
        """What the requests of a route (None: of no route) pass, in order; found out once for each route."""
        if route is None:
            return self._of(None)
        if route.filters is None or route.filters[0] is not self:
            route.filters = self, self._of(route)
        return route.filters[1]

    def _of(self, route: CompiledRoute | None) -> list[Filter]:
        return [f for f in (of_route(route) for of_route in self._filters) if f is not None]

    def _compiled(self, http_filter: object) -> OfRoute | None:
        config = getattr(http_filter, "typed_config", None)
        if isinstance(config, Router):
            self.suppresses = config.suppress_envoy_headers
        elif isinstance(config, DynamicForwardProxyFilter):
            self.resolves = True
        elif isinstance(config, HttpRbac):
            check = _rbac(rbac.compiled(config))
            return lambda route: check
        elif isinstance(config, HttpFault):
            return lambda route: _fault(_own(route, HttpFault) or config)
        elif isinstance(config, Cors):
            return _cors
        return None


def _rbac(engine: rbac.Engine) -> Filter:
    def check(exchange: Exchange) -> Step | None:
        verdict = engine(exchange.caller())
        return None if verdict.allowed else exchange.deny(verdict)

    return check


def _fault(config: HttpFault) -> Filter | None:
    if config.delay is None and config.abort is None:
        return None

    def inject(exchange: Exchange) -> Step | None:
        fault = faults.drawn(config, exchange.runtime.rng)
        return exchange.inject(fault) if fault is not None else None

    return inject


def _cors(route: CompiledRoute | None) -> Filter | None:
    config = _own(route, CorsPolicy)
    if config is None:
        return None
    policy = cors.Policy(config)
    return lambda exchange: exchange.allow_origin(policy)


def _own(route: CompiledRoute | None, kind: type[_T]) -> _T | None:
    """The configuration that a filter gets from the route."""
    return next((c for c in route.route.typed_per_filter_config.values() if isinstance(c, kind)), None) if route else None
