"""ServiceEntry: what the mesh knows of the world outside."""

from __future__ import annotations

from meshsim.resources.message import Message, WorkloadSelector
from meshsim.resources.workload_entry import WorkloadEntrySpec


class ServicePort(Message):
    number: int = 0
    protocol: str = ""
    name: str = ""
    target_port: int = 0


class ServiceEntrySpec(Message):
    hosts: list[str] = []
    addresses: list[str] = []
    ports: list[ServicePort] = []
    location: str = "MESH_EXTERNAL"
    resolution: str = "NONE"
    endpoints: list[WorkloadEntrySpec] = []
    workload_selector: WorkloadSelector | None = None
    export_to: list[str] = []
    subject_alt_names: list[str] = []
