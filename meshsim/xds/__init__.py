"""What a proxy is told: Envoy v3 messages as data, and nothing that acts on them."""

from __future__ import annotations

from typing import Any as Json

import msgspec

from meshsim.xds.cluster import Cluster
from meshsim.xds.endpoint import ClusterLoadAssignment
from meshsim.xds.listener import Listener
from meshsim.xds.message import Message
from meshsim.xds.route import RouteConfiguration
from meshsim.xds.tls import Secret


class ProxyConfig(Message):
    """Everything one proxy is told. `name_table` is the DNS proxy's, for a proxy that captures DNS."""

    listeners: list[Listener] = []
    clusters: list[Cluster] = []
    routes: list[RouteConfiguration] = []
    endpoints: list[ClusterLoadAssignment] = []
    secrets: list[Secret] = []
    name_table: list[dict[str, Json]] = []


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(ProxyConfig)


def encode(message: Message | list[Message]) -> bytes:
    """Envoy's JSON of a message."""
    return _encoder.encode(message)


def to_builtins(message: Message) -> Json:
    """The same as Python's dicts and lists."""
    return msgspec.to_builtins(message)


def decode(data: bytes | str) -> ProxyConfig:
    """A proxy's whole configuration from its JSON.

    Raises msgspec.ValidationError for a field of the wrong type or an unknown `@type`.
    """
    return _decoder.decode(data)


__all__ = ["Cluster", "ClusterLoadAssignment", "Listener", "ProxyConfig", "RouteConfiguration", "Secret", "decode", "encode", "to_builtins"]
