"""WorkloadEntry and WorkloadGroup: workloads that are not pods."""

from __future__ import annotations

from meshsim.resources.message import Message, Struct


class WorkloadEntrySpec(Message):
    address: str = ""
    ports: dict[str, int] = {}
    labels: dict[str, str] = {}
    network: str = ""
    locality: str = ""
    weight: int = 0
    service_account: str = ""


class WorkloadGroupSpec(Message):
    metadata: Struct | None = None
    template: WorkloadEntrySpec | None = None
    probe: Struct | None = None
