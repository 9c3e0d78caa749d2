"""Where a cluster's hosts are."""

from __future__ import annotations

from meshsim.xds.message import Address, Message, Metadata


class Locality(Message):
    region: str = ""
    zone: str = ""
    sub_zone: str = ""


class Endpoint(Message):
    address: Address
    hostname: str = ""


class LbEndpoint(Message):
    endpoint: Endpoint
    health_status: str = "UNKNOWN"
    metadata: Metadata | None = None
    load_balancing_weight: int | None = None


class LocalityLbEndpoints(Message):
    locality: Locality | None = None
    lb_endpoints: list[LbEndpoint] = []
    load_balancing_weight: int | None = None
    priority: int = 0


class Policy(Message):
    overprovisioning_factor: int | None = None


class ClusterLoadAssignment(Message):
    cluster_name: str
    endpoints: list[LocalityLbEndpoints] = []
    policy: Policy | None = None
