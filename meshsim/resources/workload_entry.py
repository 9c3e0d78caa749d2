"""WorkloadEntry and WorkloadGroup: workloads that are not pods."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar
from typing import Any as Json

from meshsim.resources.message import Labels, Message, OneOfMessage
from meshsim.resources.shape import NonEmpty, Port, Rule, Shape, UInt32, bounds, rules

_PORT_NAME = re.compile("[a-zA-Z0-9](?:[-a-zA-Z0-9]*[a-zA-Z0-9])?")
_SOCKET = "unix://"


def _names_valid(ports: dict[str, Json]) -> bool:
    return all(len(name) < 63 and _PORT_NAME.fullmatch(name) for name in ports)


_ADDRESS_REQUIRED = Rule("Address is required", lambda s: "address" in s or "network" in s)
_NO_PORTS = Rule("UDS may not include ports", lambda s: not s.get("address", "").startswith(_SOCKET) or "ports" not in s)

_Address = Annotated[
    str,
    rules(
        ("UDS must be an absolute path or abstract socket", lambda a: not a.startswith(_SOCKET) or a[7:8] in ("/", "@")),
        ("UDS may not be a dir", lambda a: not a.startswith(_SOCKET) or not a.endswith("/")),
        maxLength=256,
    ),
]
_Ports = Annotated[dict[str, Port], rules(("port name must be valid", _names_valid), maxProperties=128)]


class WorkloadEntrySpec(Message):
    SHAPE: ClassVar[Shape] = Shape(rules=(_ADDRESS_REQUIRED, _NO_PORTS))

    address: _Address = ""
    ports: _Ports = {}
    labels: Labels = {}
    network: Annotated[str, bounds(maxLength=2048)] = ""
    locality: Annotated[str, bounds(maxLength=2048)] = ""
    weight: UInt32 = 0
    service_account: Annotated[str, bounds(maxLength=253)] = ""


class WorkloadTemplate(WorkloadEntrySpec):
    """What the entries of a group share; their addresses come later."""

    SHAPE: ClassVar[Shape] = Shape(rules=(_NO_PORTS,))


class GroupMetadata(Message):
    labels: Labels = {}
    annotations: Labels = {}


class ProbeHeader(Message):
    name: Annotated[str, bounds(pattern="^[-_A-Za-z0-9]+$")] = ""
    value: str = ""


class HttpProbe(Message):
    SHAPE: ClassVar[Shape] = Shape(required=("port",))

    path: str = ""
    port: Port = 0
    host: str = ""
    scheme: Annotated[str, rules(("scheme must be one of [HTTP, HTTPS]", lambda text: text in ("", "HTTP", "HTTPS")))] = ""
    http_headers: list[ProbeHeader] = []


class TcpProbe(Message):
    SHAPE: ClassVar[Shape] = Shape(required=("port",))

    host: str = ""
    port: Port = 0


class ExecProbe(Message):
    SHAPE: ClassVar[Shape] = Shape(required=("command",))

    command: list[NonEmpty] = []


class GrpcProbe(Message):
    port: Port = 0
    service: str = ""


_Count = Annotated[int, bounds(minimum=0, format="int32")]


class ReadinessProbe(OneOfMessage):
    SHAPE: ClassVar[Shape] = Shape(one_of=(("httpGet", "tcpSocket", "exec", "grpc"),))

    initial_delay_seconds: _Count = 0
    timeout_seconds: _Count = 0
    period_seconds: _Count = 0
    success_threshold: _Count = 0
    failure_threshold: _Count = 0
    http_get: HttpProbe | None = None
    tcp_socket: TcpProbe | None = None
    exec: ExecProbe | None = None
    grpc: GrpcProbe | None = None


class WorkloadGroupSpec(Message):
    SHAPE: ClassVar[Shape] = Shape(required=("template",))

    metadata: GroupMetadata | None = None
    template: WorkloadTemplate | None = None
    probe: ReadinessProbe | None = None
