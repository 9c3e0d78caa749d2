"""What the kernel redirects and drops, as nftables text: a sidecar's capture, the virtual addresses of Services, NetworkPolicies.

The capture rules are those that `istio-iptables` writes for a pod, in its order: outbound TCP to 15001 except the proxy's own, questions
to the pod's nameserver to 15053 where there is an agent that answers them, inbound to 15006, with what the pod's annotations say
(resources/interception.py). The proxy's own connections and questions carry a mark instead of Istio's uid 1337, so that a mesh needs no
second user. kube-proxy's part (Service address to a pod) happens on the node, after the sidecar, and the network plug-in's part (dropping
what a NetworkPolicy does not allow) after that, on the pods' own addresses.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping

from meshsim.network.directory import Capture
from meshsim.resources.network_policy import Opening, Walls

MARK = 1337
OUTBOUND_PORT, INBOUND_PORT, DNS_AGENT_PORT = 15001, 15006, 15053
NO_WALLS = "table ip walls {}\ndelete table ip walls\n"
UNCAPTURED_INBOUND = (15008, 15020, 15021, 15090)  # the agent's and Envoy's own ports, which istio-iptables leaves alone


def capture(pod: Capture) -> str:
    """The rules inside one pod's namespace; empty for a pod without a sidecar."""
    if not pod.outbound:
        return ""
    taken = pod.interception
    to_agent = f"dport 53 redirect to :{DNS_AGENT_PORT}"
    questions = [f"ip daddr {pod.nameserver} {protocol} {to_agent}" for protocol in ("udp", "tcp") if pod.nameserver]
    output = [
        *(f"meta mark != {MARK} {rule}" for rule in questions[:1]),
        "meta l4proto != tcp return",
        *_unless("oifname", (f'"{name}"' for name in taken.exclude_interfaces)),
        *_unless("tcp dport", taken.exclude_outbound_ports),
        f'oifname "lo" ip daddr != 127.0.0.0/8 meta mark {MARK} goto inbound',  # the proxy, to its own pod: in by the front door
        f"meta mark {MARK} return",
        'oifname "lo" return',
        *questions[1:],
        "ip daddr 127.0.0.0/8 return",
        *_unless("ip daddr", _ipv4(taken.exclude_outbound_ranges)),
        *_to(OUTBOUND_PORT, "tcp dport", taken.include_outbound_ports),
        *_to(OUTBOUND_PORT, "ip daddr", None if taken.include_outbound_ranges is None else _ipv4(taken.include_outbound_ranges)),
    ]
    arriving = _unless("iifname", (f'"{name}"' for name in taken.exclude_interfaces))
    inbound = _unless("tcp dport", UNCAPTURED_INBOUND)
    if taken.include_inbound_ports is None:
        inbound += _unless("tcp dport", taken.exclude_inbound_ports)
    inbound += _to(INBOUND_PORT, "tcp dport", taken.include_inbound_ports)
    return _table("capture", _body("inbound", inbound), _chain("output", output), _chain("prerouting", [*arriving, "goto inbound"]))


def services(virtual: Mapping[str, Iterable[str]], datagrams: Container[str] = ()) -> str:
    """The node's rules: `ip:port` of a Service to one of the places behind it, each as likely as the others.

    `datagrams` are the addresses that are for UDP too.
    """
    rules = []
    for address, places in virtual.items():
        host, _, port = address.rpartition(":")
        behind = list(places)
        for left, place in zip(range(len(behind), 0, -1), behind, strict=True):
            chance = f"numgen random mod {left} 0 " if left > 1 else ""
            spoken = ("tcp", "udp") if address in datagrams else ("tcp",)
            rules += [f"ip daddr {host} {protocol} dport {port} {chance}dnat to {place}" for protocol in spoken]
    return _table("services", _chain("prerouting", rules), _chain("output", rules))


def walls(isolated: Walls) -> str:
    """The node's rules for isolated pods; empty without any."""
    chains, jumps = [], []
    for direction, pods in (("egress", isolated.egress), ("node", isolated.nodes), ("ingress", isolated.ingress)):
        own, other = ("daddr", "saddr") if direction == "ingress" else ("saddr", "daddr")
        for number, (address, wall) in enumerate(pods.items()):
            rules = [f"{rule} return" for opening in wall.openings for rule in _admitted(opening, other)]
            chains.append(_body(f"{direction}{number}", [*rules, "drop"]))
            jumps.append(f"ip {own} {address} jump {direction}{number}")
    if not jumps:
        return ""
    head = "    type filter hook forward priority 0; policy accept;"
    chains.append(_body("forward", ["ct state established,related accept", *jumps], head))
    return _table("walls", *chains)


def _admitted(opening: Opening, other: str) -> list[str]:
    """The rules of an opening, one for each protocol; none where its ranges are IPv6 only."""
    what = ""
    if opening.ranges is not None:
        ranges = _ipv4(opening.ranges)
        if not ranges:
            return []
        what = f"ip {other} {_set(ranges)} "
        exceptions = _ipv4(opening.exceptions)
        what += f"ip {other} != {_set(exceptions)} " if exceptions else ""
    if opening.ports is None:
        return [what]
    return [f"{what}{ports.protocol.lower()} dport {ports.first}-{ports.last}" for ports in opening.ports]


def _unless(what: str, values: Iterable[object]) -> list[str]:
    values = list(values)
    return [f"{what} {_set(values)} return"] if values else []


def _to(port: int, what: str, values: Iterable[object] | None) -> list[str]:
    """Redirect TCP to a port of this pod: what has one of the values, or with None all of it."""
    if values is None:
        return [f"meta l4proto tcp redirect to :{port}"]
    values = list(values)
    return [f"{what} {_set(values)} meta l4proto tcp redirect to :{port}"] if values else []


def _ipv4(ranges: Iterable[str]) -> list[str]:
    return [r for r in ranges if ":" not in r]


def _set(values: Iterable[object]) -> str:
    return "{ " + ", ".join(str(v) for v in values) + " }"


def _chain(hook: str, rules: list[str]) -> str:
    return _body(hook, rules, f"    type nat hook {hook} priority -100; policy accept;")


def _body(name: str, rules: list[str], *head: str) -> str:
    lines = "\n".join([*head, *(f"    {rule}" for rule in rules)])
    return f"  chain {name} {{\n{lines}\n  }}"


def _table(name: str, *chains: str) -> str:
    """Replaces the table as one transaction: there is no moment without rules."""
    body = "\n".join(chains)
    return f"table ip {name} {{}}\ndelete table ip {name}\ntable ip {name} {{\n{body}\n}}\n"
