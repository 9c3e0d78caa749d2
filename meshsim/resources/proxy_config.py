"""ProxyConfig: settings of a proxy's own process."""

from __future__ import annotations

from typing import Annotated

from meshsim.resources.message import Message, WorkloadLabelSelector
from meshsim.resources.shape import bounds


class ProxyImage(Message):
    image_type: str = ""


class ProxyConfigSpec(Message):
    selector: WorkloadLabelSelector | None = None
    concurrency: Annotated[int, bounds(minimum=0, format="int32")] | None = None
    environment_variables: dict[str, Annotated[str, bounds(maxLength=2048)]] = {}
    image: ProxyImage | None = None
