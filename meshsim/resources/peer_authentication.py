"""PeerAuthentication: whether a workload takes plaintext, mutual TLS, or both."""

from __future__ import annotations

from meshsim.resources.message import Message, WorkloadLabelSelector


class MutualTls(Message):
    mode: str = "UNSET"


class PeerAuthenticationSpec(Message):
    """`port_level_mtls` is keyed by the workload's own (target) port."""

    selector: WorkloadLabelSelector | None = None
    mtls: MutualTls | None = None
    port_level_mtls: dict[int, MutualTls] = {}
