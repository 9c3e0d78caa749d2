"""The protocols a port can declare, and the classes that decide how it is handled."""

from __future__ import annotations

from enum import Enum


class Protocol(Enum):
    """AUTO (anything unknown, or nothing) means: find out from the first bytes."""

    __hash__ = object.__hash__  # protocols stand in many keys, and Enum hashes names in Python

    HTTP = "http"
    HTTP_PROXY = "http_proxy"
    HTTP2 = "http2"
    GRPC = "grpc"
    GRPC_WEB = "grpc-web"
    HTTPS = "https"
    TLS = "tls"
    TCP = "tcp"
    MONGO = "mongo"
    REDIS = "redis"
    MYSQL = "mysql"
    UDP = "udp"
    AUTO = ""

    @classmethod
    def parse(cls, name: str) -> Protocol:
        return _BY_NAME.get(name.lower(), cls.AUTO)

    @property
    def is_http(self) -> bool:
        return self in _HTTP

    @property
    def is_http2(self) -> bool:
        return self in _HTTP2

    @property
    def is_tls(self) -> bool:
        """TLS that is not terminated here: told apart by its SNI."""
        return self in (Protocol.HTTPS, Protocol.TLS)

    @property
    def is_tcp(self) -> bool:
        """Relayed as bytes."""
        return self in _TCP


_BY_NAME = {p.value: p for p in Protocol}
_HTTP2 = frozenset({Protocol.HTTP2, Protocol.GRPC, Protocol.GRPC_WEB})
_HTTP = _HTTP2 | {Protocol.HTTP, Protocol.HTTP_PROXY}
_TCP = frozenset({Protocol.TCP, Protocol.HTTPS, Protocol.TLS, Protocol.MONGO, Protocol.REDIS, Protocol.MYSQL})

_APP_PROTOCOLS = {"kubernetes.io/h2c": Protocol.HTTP2, "kubernetes.io/ws": Protocol.HTTP, "kubernetes.io/wss": Protocol.HTTPS}
_SERVER_FIRST_PORTS = frozenset({25, 53, 3306, 27017})  # detection would wait for the client there


def of_service_port(number: int, transport: str, name: str, app_protocol: str | None) -> Protocol:
    """The protocol of a Kubernetes Service's port: `appProtocol`, else the port name's text before the first dash."""
    if transport.upper() == "UDP":
        return Protocol.UDP
    if app_protocol:
        if app_protocol in _APP_PROTOCOLS:
            return _APP_PROTOCOLS[app_protocol]
        name = app_protocol
    if name.lower().startswith(Protocol.GRPC_WEB.value):
        return Protocol.GRPC_WEB
    found = Protocol.parse(name.partition("-")[0])
    return Protocol.TCP if found is Protocol.AUTO and number in _SERVER_FIRST_PORTS else found
