"""The namespace network, tried in a process of its own: entering namespaces has no way back."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from meshsim.network import namespaces, netfilter
from meshsim.network.directory import Capture
from meshsim.resources.interception import Interception
from meshsim.resources.network_policy import Opening, Ports, Wall, Walls

REASON = namespaces.unavailable()
needs_netns = pytest.mark.skipif(bool(REASON), reason=REASON)

WORLD = """
    import asyncio, pathlib, sys, tempfile
    from meshsim.network import directory, namespaces, netns
    from meshsim.network.base import Address
    from meshsim.resources.interception import Interception
    from meshsim.resources.network_policy import Opening, Ports, Wall, Walls

    WALLED = "10.244.9.10"
    SLEEP, GATEWAY, PLAIN, SITE = "10.244.1.10", "10.244.0.20", "10.244.9.9", "151.101.65.67"
    namespaces.enter()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        plan = directory.Directory(
            services={"10.96.10.10:80": ["10.244.0.20:8080"]},
            pods={
                SLEEP: directory.Capture("0.0.0.0:15001", "0.0.0.0:15006", Interception(exclude_outbound_ports=[9000])),
                GATEWAY: directory.Capture(),
                PLAIN: directory.Capture(),
                WALLED: directory.Capture(),
            },
            walls=Walls(egress={WALLED: Wall(["p"], [Opening([GATEWAY + "/32"], [], [Ports("TCP", 8000, 8080)])])}),
        )
        directory.write(folder, plan)
        node = netns.Node(folder)
        node.update(plan)

        async def main():
            network = netns.NetnsNetwork(folder)
            arrived = asyncio.Queue()

            async def take(name, address, pod=""):
                await network.listen(address, lambda c: arrived.put_nowait((name, c)), pod=pod)

            await take("outbound", Address("0.0.0.0", 15001), SLEEP)
            await take("inbound", Address("0.0.0.0", 15006), SLEEP)
            await take("app", Address("127.0.0.1", 80), SLEEP)
            await take("gateway", Address(GATEWAY, 8080), GATEWAY)
            await take("site", Address(SITE, 80))
            await take("site", Address(SITE, 9000))
            for how, source, destination in CALLS:
                try:
                    there = await asyncio.wait_for(getattr(network, how)(source, Address.parse(destination)), 2)
                    name, here = await asyncio.wait_for(arrived.get(), 5)
                    print(how, source, destination, "->", name, here.source.host, here.destination)
                    there.sock.close()
                    here.sock.close()
                except OSError as e:
                    print(how, source, destination, "->", type(e).__name__)
            await network.close()

        CALLS = [line.split() for line in sys.argv[1].splitlines()]
        asyncio.run(main())
        node.close()
"""

# how, from, to -> who took it, the peer it sees, and the destination it sees
JOURNEYS = """
capture 10.244.1.10 151.101.65.67:80 -> outbound 10.244.1.10 151.101.65.67:80
capture 10.244.1.10 10.96.10.10:80 -> outbound 10.244.1.10 10.96.10.10:80
capture 10.244.1.10 151.101.65.67:9000 -> site 10.244.1.10 151.101.65.67:9000
connect 10.244.1.10 151.101.65.67:80 -> site 10.244.1.10 151.101.65.67:80
connect 10.244.1.10 10.96.10.10:80 -> gateway 10.244.1.10 10.244.0.20:8080
connect 10.244.1.10 10.244.1.10:80 -> inbound 10.244.1.10 10.244.1.10:80
connect 10.244.1.10 127.0.0.1:80 -> app 10.244.1.10 127.0.0.1:80
capture 10.244.1.10 127.0.0.1:80 -> app 127.0.0.1 127.0.0.1:80
capture 10.244.9.9 151.101.65.67:80 -> site 10.244.9.9 151.101.65.67:80
connect 10.244.0.20 10.244.1.10:80 -> inbound 10.244.0.20 10.244.1.10:80
connect 10.244.0.20 203.0.113.9:80 -> ConnectionRefusedError
connect 151.101.65.67 10.244.0.20:8080 -> gateway 151.101.65.67 10.244.0.20:8080
connect 10.244.9.10 10.96.10.10:80 -> gateway 10.244.9.10 10.244.0.20:8080
connect 10.244.9.10 151.101.65.67:80 -> TimeoutError
""".strip()


@needs_netns
@pytest.mark.netns
def test_connections_arrive_where_a_cluster_would_take_them():
    calls = "\n".join(line.partition(" -> ")[0] for line in JOURNEYS.splitlines())
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(WORLD), calls], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == JOURNEYS


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
