"""An HTTP connection manager, compiled: its options, its filters in order, its loggers, and where its routes come from."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from meshsim.routing import access_log, cors, faults, paths, rbac
from meshsim.routing.http1 import Rules
from meshsim.routing.lifetime import Limits
from meshsim.routing.routes import RouteTable
from meshsim.xds.http_connection_manager import HttpConnectionManager
from meshsim.xds.http_filters import Cors, CorsPolicy, DynamicForwardProxyFilter, HttpFault, Router
from meshsim.xds.rbac import HttpRbac

if TYPE_CHECKING:
    from meshsim.routing.exchange import Exchange, Step
    from meshsim.routing.runtime import Runtime


Filter = Callable[["Exchange"], "Step | None"]


class Manager:
    """listener: the name of the one it serves. is_egress: whether traffic here leaves the mesh's workload."""

    def __init__(self, config: HttpConnectionManager, runtime: Runtime, listener: str, *, is_egress: bool):
        self.config, self.runtime, self.listener, self.is_egress = config, runtime, listener, is_egress
        self.normalize = paths.normalizer(config)
        self.suppresses = False
        self.resolves = False
        """Whether a filter looks up what a request asks for before it is routed on."""
        self.filters = [f for f in map(self._compiled, config.http_filters) if f is not None]
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

    def _compiled(self, http_filter: object) -> Filter | None:
        config = getattr(http_filter, "typed_config", None)
        if isinstance(config, Router):
            self.suppresses = config.suppress_envoy_headers
        elif isinstance(config, DynamicForwardProxyFilter):
            self.resolves = True
        elif isinstance(config, HttpRbac):
            return _rbac(rbac.compiled(config))
        elif isinstance(config, HttpFault):
            return _fault(config)
        elif isinstance(config, Cors):
            return _cors
        return None


def _rbac(engine: rbac.Engine) -> Filter:
    def check(exchange: Exchange) -> Step | None:
        verdict = engine(exchange.caller())
        return None if verdict.allowed else exchange.deny(verdict)

    return check


def _fault(default: HttpFault) -> Filter:
    def inject(exchange: Exchange) -> Step | None:
        own = _of_route(exchange, HttpFault)
        fault = faults.drawn(own if isinstance(own, HttpFault) else default, exchange.runtime.rng)
        return exchange.inject(fault) if fault is not None else None

    return inject


def _cors(exchange: Exchange) -> Step | None:
    policy = _of_route(exchange, CorsPolicy)
    return exchange.allow_origin(cors.Policy(policy)) if isinstance(policy, CorsPolicy) else None


def _of_route(exchange: Exchange, kind: type) -> object | None:
    """The configuration that a filter gets from the route."""
    if exchange.selected is None:
        return None
    return next((c for c in exchange.selected.route.typed_per_filter_config.values() if isinstance(c, kind)), None)
