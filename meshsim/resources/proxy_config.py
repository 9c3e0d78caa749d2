"""ProxyConfig: settings of a proxy's own process."""

from __future__ import annotations

from meshsim.resources.message import Message, WorkloadLabelSelector


class ProxyImage(Message):
    image_type: str = ""


class ProxyConfigSpec(Message):
    selector: WorkloadLabelSelector | None = None
    concurrency: int | None = None
    environment_variables: dict[str, str] = {}
    image: ProxyImage | None = None
