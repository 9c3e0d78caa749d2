"""NetworkPolicy: which connections the network lets through, whatever the proxies think."""

from __future__ import annotations

from meshsim.resources.message import LabelSelector, Message


class IpBlock(Message, rename={"except_": "except"}):
    cidr: str = ""
    except_: list[str] = []


class NetworkPolicyPeer(Message):
    pod_selector: LabelSelector | None = None
    namespace_selector: LabelSelector | None = None
    ip_block: IpBlock | None = None


class NetworkPolicyPort(Message):
    protocol: str = "TCP"
    port: int | str | None = None
    end_port: int | None = None


class NetworkPolicyEgressRule(Message):
    ports: list[NetworkPolicyPort] = []
    to: list[NetworkPolicyPeer] = []


class NetworkPolicyIngressRule(Message, rename={"from_": "from"}):
    ports: list[NetworkPolicyPort] = []
    from_: list[NetworkPolicyPeer] = []


class NetworkPolicySpec(Message):
    pod_selector: LabelSelector | None = None
    policy_types: list[str] = []
    egress: list[NetworkPolicyEgressRule] | None = None
    ingress: list[NetworkPolicyIngressRule] | None = None
