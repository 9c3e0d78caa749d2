"""ServiceEntry: what the mesh knows of the world outside."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal
from typing import Any as Json

from meshsim.resources.message import Message, WorkloadSelector
from meshsim.resources.shape import Port, Rule, Shape, bounds, enum, rules
from meshsim.resources.workload_entry import WorkloadEntrySpec

Location = Annotated[Literal["MESH_EXTERNAL", "MESH_INTERNAL"], enum("istio.networking.v1alpha3.ServiceEntry.Location")]
Resolution = Annotated[
    Literal["NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN", "DYNAMIC_DNS"], enum("istio.networking.v1alpha3.ServiceEntry.Resolution")
]


class ServicePort(Message):
    SHAPE: ClassVar[Shape] = Shape(required=("number", "name"))

    number: Port = 0
    protocol: Annotated[str, bounds(maxLength=256)] = ""
    name: Annotated[str, bounds(maxLength=256)] = ""
    target_port: Port = 0


def _numbers_once(ports: list[dict[str, Json]]) -> bool:
    numbers = [port["number"] for port in ports]
    return len(set(numbers)) == len(numbers)


def _cidr_with_names(spec: dict[str, Json]) -> bool:
    return any("/" in a for a in spec.get("addresses", ())) and spec.get("resolution", "NONE") not in ("STATIC", "NONE")


class ServiceEntrySpec(Message):
    SHAPE: ClassVar[Shape] = Shape(
        required=("hosts",),
        rules=(
            Rule("only one of WorkloadSelector or Endpoints can be set", lambda s: not ("workloadSelector" in s and "endpoints" in s)),
            Rule("CIDR addresses are allowed only for NONE/STATIC resolution types", lambda s: not _cidr_with_names(s)),
            Rule("NONE mode cannot set endpoints", lambda s: s.get("resolution", "NONE") != "NONE" or "endpoints" not in s),
            Rule(
                "DNS_ROUND_ROBIN mode cannot have multiple endpoints",
                lambda s: s.get("resolution", "") != "DNS_ROUND_ROBIN" or len(s.get("endpoints", ())) <= 1,
            ),
        ),
    )

    hosts: Annotated[
        list[Annotated[str, rules(("hostname cannot be wildcard", lambda host: host != "*"))]], bounds(minItems=1, maxItems=256)
    ] = []
    addresses: Annotated[list[Annotated[str, bounds(maxLength=64)]], bounds(maxItems=256)] = []
    ports: Annotated[
        list[ServicePort], rules(("port number cannot be duplicated", _numbers_once), listMapKeys=("name",), maxItems=256)
    ] = []
    location: Location = "MESH_EXTERNAL"
    resolution: Resolution = "NONE"
    endpoints: Annotated[list[WorkloadEntrySpec], bounds(maxItems=4096)] = []
    workload_selector: WorkloadSelector | None = None
    export_to: list[str] = []
    subject_alt_names: list[str] = []
