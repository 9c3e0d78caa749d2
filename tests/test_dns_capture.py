"""DNS capture: who asks for it, what a pod's agent answers itself, and what programs in the pod see of it."""

from __future__ import annotations

import asyncio
import random
import shutil
import socket
import struct
from pathlib import Path
from typing import Any as Json

import pytest

import meshsim
from meshsim import resources
from meshsim.errors import ConfigError, MeshsimError
from meshsim.mesh import Mesh
from meshsim.network import dns
from meshsim.resources.proxy_metadata import ProxyMetadata
from meshsim.xds.name_table import name_table
from tests.network.inside import in_namespaces, needs_netns
from tests.network.test_dns import query

MESH_CONFIG = "apiVersion: meshsim.dev/v1alpha1\nkind: MeshConfig\nmetadata: {{name: istio}}\nspec: {}\n---\n"
POD = "apiVersion: v1\nkind: Pod\nmetadata: {{name: p, labels: {{app: p}}, annotations: {}}}\n---\n"
CONFIG = (
    "apiVersion: networking.istio.io/v1beta1\nkind: ProxyConfig\nmetadata: {{name: {0}, namespace: {1}}}\n"
    "spec: {{environmentVariables: {{ISTIO_META_A: {0}}}{2}}}\n---\n"
)
MESH = MESH_CONFIG.format('{defaultConfig: {proxyMetadata: {ISTIO_META_A: mesh, ISTIO_META_B: mesh, OTHER: x}}}')
ROOT, OWN = CONFIG.format("root", "istio-system", ""), CONFIG.format("own", "default", "")
SELECTING = CONFIG.format("selecting", "default", ", selector: {matchLabels: {app: p}}")
ANNOTATED = POD.format("""{proxy.istio.io/config: 'proxyMetadata: {ISTIO_META_A: pod}'}""")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (POD.format("{}"), {}),
        (MESH + POD.format("{}"), {"A": "mesh", "B": "mesh"}),
        (ROOT + MESH + POD.format("{}"), {"A": "root", "B": "mesh"}),
        (ROOT + OWN + POD.format("{}"), {"A": "own"}),
        (OWN + ANNOTATED, {"A": "pod"}),
        (MESH + ANNOTATED, {"A": "pod", "B": "mesh"}),
        (SELECTING + OWN + ANNOTATED, {"A": "selecting"}),
    ],
)
def test_what_lies_nearest_to_the_pod_counts(text: str, expected: dict[str, str]) -> None:
    found = resources.loads(text, "x.yaml").require().resources
    assert ProxyMetadata(found).of(next(r for r in found if r.kind == "Pod")) == expected


@pytest.mark.parametrize(
    ("annotation", "said"),
    [
        ("'proxyMetadata: [a]'", 'proxyMetadata'),
        ("'just words'", "not one mapping with fields of ProxyConfig"),
        ("'a: ['", "not YAML"),
    ],
)
def test_a_wrong_annotation_is_an_error_with_its_line(annotation: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as raised:
        resources.loads(POD.format(f"{{proxy.istio.io/config: {annotation}}}"), "x.yaml").require()
    assert "x.yaml:3:" in str(raised.value)


def test_what_has_no_effect_in_the_annotation_is_said() -> None:
    found = resources.loads(POD.format("{proxy.istio.io/config: 'proxyMetadat: {a: b}'}"), "x.yaml")
    (said,) = (str(problem) for problem in found.problems)
    assert said.startswith("x.yaml:3:") and "warning" in said and '"proxyMetadat" has no effect here; did you mean "proxyMetadata"?' in said


TABLE: list[dict[str, Json]] = [
    {
        "table": {
            "db.example.com": {"ips": ["240.240.0.1"], "registry": "External"},
            "*.wild.example": {"ips": ["240.240.0.2"], "registry": "External"},
            "six.example": {"ips": ["2001:2::1"], "registry": "External"},
            "web.default.svc.cluster.local": {"ips": ["10.96.1.1"], "registry": "Kubernetes", "namespace": "default", "shortname": "web"},
            "far.other.svc.cluster.local": {"ips": ["10.96.1.2"], "registry": "Kubernetes", "namespace": "other", "shortname": "far"},
        }
    }
]
SEARCH = ".default.svc.cluster.local"
FORWARDED = b"forwarded"


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("db.example.com", 1, ("", ["240.240.0.1"])),
        ("DB.Example.com", 1, ("", ["240.240.0.1"])),
        ("db.example.com" + SEARCH, 1, ("db.example.com", ["240.240.0.1"])),
        ("db.example.com.svc.cluster.local", 1, None),  # only the first suffix of the search path is taken off
        ("db.example.com", 28, ("", [])),
        ("db.example.com", 15, None),
        ("six.example", 28, ("", ["2001:2::1"])),
        ("a.wild.example", 1, ("", ["240.240.0.2"])),
        ("a.wild.example" + SEARCH, 1, ("a.wild.example", ["240.240.0.2"])),
        ("web", 1, ("", ["10.96.1.1"])),
        ("web.default.svc", 1, ("", ["10.96.1.1"])),
        ("web.default.svc.cluster.local", 1, ("", ["10.96.1.1"])),
        ("far", 1, None),
        ("far.other", 1, ("", ["10.96.1.2"])),
        ("edition.cnn.com", 1, None),
    ],
)
async def test_what_an_agent_answers_itself(name: str, kind: int, expected: tuple[str, list[str]] | None) -> None:
    async def forward(_: bytes) -> bytes:
        return FORWARDED

    agent = dns.Agent(lambda: name_table(TABLE, "default", SEARCH), forward, random.Random(0))
    asked = query(name, kind)
    reply = await agent.reply(asked)
    assert reply is not None
    if expected is None:
        assert reply == FORWARDED
        return
    alias, addresses = expected
    count = struct.unpack_from("!HHHH", reply)[3]
    assert count == len(addresses) + bool(alias) and reply[3] & 0xF == 0
    owner = "".join(chr(len(part)) + part for part in alias.split(".")).encode() + b"\0" if alias else b""
    assert owner in reply
    for address in addresses:
        assert reply.endswith(struct.pack("!I", dns.AGENT_TTL) + _sized(address))


def _sized(address: str) -> bytes:
    packed = socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
    return struct.pack("!H", len(packed)) + packed


async def test_a_question_that_nobody_answers_further_on_fails() -> None:
    async def forward(_: bytes) -> None:
        return None

    reply = await dns.Agent(lambda: None, forward, random.Random(0)).reply(query("edition.cnn.com"))
    assert reply is not None and reply[3] & 0xF == 2


SCENARIO = Path("scenarios/egress-gateway-http")
CAPTURE = MESH_CONFIG.format('{accessLogFile: /dev/stdout, defaultConfig: {proxyMetadata: {ISTIO_META_DNS_CAPTURE: "true"}}}')
ENTRY = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: db, namespace: default}
spec:
  hosts: [db.example.com]
  ports: [{number: 80, name: http, protocol: HTTP}, {number: 7000, name: tcp, protocol: TCP}]
  resolution: STATIC
  endpoints: [{address: 203.0.113.50}]
---
apiVersion: meshsim.dev/v1alpha1
kind: ExternalServer
metadata: {name: db}
spec: {hosts: [db.example.com], addresses: [203.0.113.50], ports: [{port: 80}, {port: 7000}]}
---
apiVersion: meshsim.dev/v1alpha1
kind: ExternalServer
metadata: {name: undeclared}
spec: {hosts: [undeclared.example], addresses: [203.0.113.51], ports: [{port: 80}]}
"""
NO_DNS = """---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: outside-only, namespace: default}
spec: {policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 203.0.113.0/24}}]}]}
"""


def capturing(extra: str = "") -> Mesh:
    return meshsim.load(SCENARIO, "-", stdin=CAPTURE + ENTRY + extra)


def test_in_a_trace() -> None:
    assert capturing().simulate("sleep", "http://db.example.com/").address.startswith("240.240.0.")
    assert capturing(NO_DNS).simulate("sleep", "http://db.example.com:7000/").status == 200  # the agent asks nobody
    assert capturing(NO_DNS).simulate("sleep", "http://nowhere.example/").dropped


async def _asked(network: str, extra: str = "") -> tuple[list[str], list[str], int, bytes]:
    """What the pod finds for two names, the answer through the auto-allocated address, and one over TCP to the nameserver."""
    async with capturing(extra).run(network=network) as live:
        pod = live.pod("sleep")
        own, other = await pod.resolve("db.example.com"), await pod.resolve("undeclared.example")
        status = (await pod.get("http://db.example.com:7000/")).status
        reader, writer = await pod.open("10.96.0.10", dns.DNS_PORT)
        question = query("db.example.com" + SEARCH)
        writer.write(len(question).to_bytes(2, "big") + question)
        answer = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
        writer.close()
        return own, other, status, answer


def _check(asked: tuple[list[str], list[str], int, bytes]) -> None:
    own, other, status, answer = asked
    assert own[0].startswith("240.240.0.") and answer.endswith(_sized(own[0]))
    assert other == (other and ["203.0.113.51"])
    assert status == 200


async def test_on_sockets() -> None:
    _check(await _asked("loopback"))


async def test_names_of_the_agent_need_no_way_to_the_cluster_s_dns() -> None:
    asked = await _asked("loopback", NO_DNS)
    _check(asked)
    assert asked[1] == []


PROGRAMS = (
    ("getent hosts db.example.com", "240.240.0."),
    ("getent hosts db.example.com", "db.example.com.default.svc.cluster.local"),
    ("getent ahostsv4 undeclared.example", "203.0.113.51"),
    ("getent hosts nowhere.example || echo none", "none"),
    ("curl -sSv http://db.example.com:7000/", "Connected to db.example.com (240.240.0."),
    ("curl -sS http://db.example.com:7000/", '"server":"db.example.com"'),
)


@needs_netns
@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_in_namespaces() -> None:
    async def main() -> list[str]:
        async with capturing().run(network="netns") as live:
            pod = live.pod("sleep")
            commands = list(PROGRAMS)
            if shutil.which("dig"):
                commands += [("dig db.example.com", "30\tIN\tA\t240.240.0."), ("dig +tcp +short undeclared.example", "203.0.113.51")]
                commands += [("dig @10.244.0.2 +short db.example.com", "203.0.113.50")]  # another server's port 53 is not redirected
            said = await asyncio.gather(*(pod.output("sh", "-c", command) for command, _ in commands))
            return [f"{command}: {out}" for (command, part), (_, out) in zip(commands, said, strict=True) if part not in out]

    assert in_namespaces(lambda: asyncio.run(main())) == []
    _check(in_namespaces(lambda: asyncio.run(_asked("netns"))))


async def test_a_real_envoy_would_ask_the_agent_too() -> None:
    with pytest.raises(MeshsimError, match="DNS capture"):
        async with capturing().run(network="netns", engine="envoy"):
            pass
