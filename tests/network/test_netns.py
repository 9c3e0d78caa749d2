"""The rules that the namespace network gives the kernel; what they do is in test_conformance.py."""

from __future__ import annotations

import pytest

from meshsim.errors import MeshsimError
from meshsim.network import netfilter
from meshsim.network.directory import Capture
from meshsim.network.netns import Node
from meshsim.resources.interception import Interception
from meshsim.resources.network_policy import Opening, Ports, Wall, Walls

WALLED = Wall(["p"], [Opening(["10.0.0.0/8", "fd00::/8"], ["10.1.0.0/16"], [Ports("TCP", 80, 80), Ports("UDP")]), Opening(["fd00::/8"])])


def test_wall_rules():
    rules = netfilter.walls(Walls(ingress={"10.244.1.10": WALLED}))
    assert [line.strip() for line in rules.splitlines()[3:-1]] == [
        "chain ingress0 {",
        "ip saddr { 10.0.0.0/8 } ip saddr != { 10.1.0.0/16 } tcp dport 80-80 return",
        "ip saddr { 10.0.0.0/8 } ip saddr != { 10.1.0.0/16 } udp dport 0-65535 return",
        "drop",
        "}",
        "chain forward {",
        "type filter hook forward priority 0; policy accept;",
        "ct state established,related accept",
        "ip daddr 10.244.1.10 jump ingress0",
        "}",
    ]
    assert netfilter.walls(Walls()) == ""


def taking(**what) -> Capture:
    return Capture("o", "i", Interception(**what))


@pytest.mark.parametrize(
    ("pod", "lines"),
    [
        (Capture(), []),
        (Capture(outbound="o"), ["meta mark 1337 return", "meta l4proto tcp redirect to :15001"]),
        (Capture(outbound="o", inbound="i"), ["meta l4proto tcp redirect to :15006"]),
        (taking(exclude_outbound_ports=[3306]), ["tcp dport { 3306 } return"]),
        (taking(exclude_outbound_ranges=["10.0.0.0/8", "fd00::/8"]), ["ip daddr { 10.0.0.0/8 } return"]),
        (taking(include_outbound_ranges=["1.0.0.0/8"]), ["ip daddr { 1.0.0.0/8 } meta l4proto tcp redirect to :15001"]),
        (taking(include_outbound_ports=[443]), ["tcp dport { 443 } meta l4proto tcp redirect to :15001"]),
        (taking(include_inbound_ports=[8080]), ["tcp dport { 8080 } meta l4proto tcp redirect to :15006"]),
        (taking(exclude_inbound_ports=[9090]), ["tcp dport { 9090 } return", "meta l4proto tcp redirect to :15006"]),
        (
            Capture("o", "i", nameserver="10.96.0.10"),
            [
                "meta mark != 1337 ip daddr 10.96.0.10 udp dport 53 redirect to :15053",
                "ip daddr 10.96.0.10 tcp dport 53 redirect to :15053",
            ],
        ),
        (taking(exclude_interfaces=["eth0"]), ['oifname { "eth0" } return', 'iifname { "eth0" } return']),
    ],
)
def test_capture_rules(pod, lines):
    rules = [line.strip() for line in netfilter.capture(pod).splitlines()]
    assert [line for line in lines if line not in rules] == []
    assert bool(rules) == bool(pod.outbound)


def test_several_places_behind_a_service_are_equally_likely():
    text = netfilter.services({"10.96.0.1:80": ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]})
    chances = [line.strip() for line in text.splitlines() if "dnat" in line][:3]
    assert chances == [
        "ip daddr 10.96.0.1 tcp dport 80 numgen random mod 3 0 dnat to 10.0.0.1:80",
        "ip daddr 10.96.0.1 tcp dport 80 numgen random mod 2 0 dnat to 10.0.0.2:80",
        "ip daddr 10.96.0.1 tcp dport 80 dnat to 10.0.0.3:80",
    ]


def test_nothing_is_made_outside_of_namespaces_of_its_own(tmp_path):
    with pytest.raises(MeshsimError, match=r"namespaces of its own.*meshsim\.network\.choice\.enter"):
        Node(tmp_path)
