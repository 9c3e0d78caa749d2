"""External servers as a client on the network meets them."""

from __future__ import annotations

import asyncio
import json
import shutil
import ssl
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import h2.connection
import h2.events
import msgspec
import pytest

from meshsim.network import directory
from meshsim.network.base import Address
from meshsim.network.loopback import LoopbackNetwork
from meshsim.resources.external_server import ExternalServerSpec, Presented
from meshsim.world import World
from meshsim.world.certificates import Authorities

CLIENT, SITE, OTHER = "10.244.1.10", "203.0.113.10", "203.0.113.11"


@pytest.fixture(scope="module")
def authorities() -> Any:
    folder = Path(tempfile.mkdtemp(prefix="msim-", dir="/tmp"))
    yield Authorities(folder)
    shutil.rmtree(folder)


@asynccontextmanager
async def world_of(authorities: Authorities, *ports: dict[str, Any]) -> AsyncIterator[tuple[LoopbackNetwork, World]]:
    folder = Path(tempfile.mkdtemp(prefix="msim-", dir="/tmp"))
    server = msgspec.convert({"hosts": ["a.test", "b.test"], "addresses": [SITE], "ports": list(ports)}, ExternalServerSpec)
    other = msgspec.convert({"hosts": ["other.test"], "addresses": [OTHER], "ports": [{"port": 80}]}, ExternalServerSpec)
    directory.write(folder, directory.Directory(names={"other.test": [OTHER]}))
    network = LoopbackNetwork(folder)
    world = World(network, [server, other], authorities)
    try:
        await world.start()
        yield network, world
    finally:
        await world.close()
        await network.close()
        shutil.rmtree(folder)


async def say(network: LoopbackNetwork, port: int, data: bytes, **tls: Any) -> bytes:
    """Send bytes, then read until the server ends the connection or stops for a moment."""
    connection = await network.connect(CLIENT, Address(SITE, port))
    reader, writer = await asyncio.open_connection(sock=connection.sock, **tls)
    writer.write(data)
    got = b""
    try:
        while True:
            more = await asyncio.wait_for(reader.read(65536), 5)
            got += more
            head, found, body = got.partition(b"\r\n\r\n")
            if not more or (found and _complete(head, body)):
                return got
    finally:
        writer.close()


def _complete(head: bytes, body: bytes) -> bool:
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return bool(lengths) and len(body) >= int(lengths[0].split(b":")[1])


def get(path: str = "/", *headers: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: a.test", *headers, "", ""]).encode()


def client_context(authorities: Authorities, alpn: list[str] | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(authorities.root_file("public"))
    if alpn:
        context.set_alpn_protocols(alpn)
    return context


ANSWERS: list[tuple[str, dict[str, Any], bytes, list[bytes]]] = [
    ("an echo", {}, get("/x?y=1", "x-team: a"), [b"HTTP/1.1 200", b"server: echo", b'"path":"/x?y=1"', b'["x-team","a"]']),
    ("who asks", {}, get(), [b'"peer":"10.244.1.10"', b'"server":"a.test"', b'"port":80']),
    ("a redirect", {"answers": [{"redirect": "https://{host}{path}"}]}, get("/p"), [b"301 ", b"location: https://a.test/p"]),
    ("a text", {"answers": [{"status": 418, "body": "tea"}]}, get(), [b"418 ", b"content-length: 3", b"tea", b"date: "]),
    ("a size", {"answers": [{"bodySize": 150000}]}, get(), [b"content-length: 150000", b"a.test is a page"]),
    ("by path", {"answers": [{"match": {"pathPrefix": "/a"}, "body": "A"}, {"match": {"path": "/b"}}]}, get("/b?q"), [b"length: 0"]),
    ("nothing matches", {"answers": [{"match": {"path": "/b"}, "body": "B"}]}, get("/c"), [b"404 "]),
    ("no HTTP", {}, b"\x16\x03\x01hello\r\n\r\n", [b"400 Bad Request", b"connection: close"]),
    ("garbage", {"answers": [{"fault": "garbage"}]}, get(), [b"this is not HTTP"]),
    ("a cut body", {"answers": [{"bodySize": 100, "fault": "truncate"}]}, get(), [b"content-length: 100"]),
    ("no forward proxy", {}, b"CONNECT other.test:80 HTTP/1.1\r\nHost: x\r\n\r\n", [b"405 "]),
    ("a tunnel that leads nowhere", {"connect": True}, b"CONNECT gone.test:80 HTTP/1.1\r\nHost: x\r\n\r\n", [b"502 "]),
]


@pytest.mark.parametrize(("what", "port", "sent", "expected"), ANSWERS, ids=[row[0] for row in ANSWERS])
async def test_answers(authorities: Authorities, what: str, port: dict[str, Any], sent: bytes, expected: list[bytes]) -> None:
    async with world_of(authorities, {"port": 80, **port}) as (network, _):
        got = await say(network, 80, sent)
        for part in expected:
            assert part in got


async def test_bytes_are_echoed_once(authorities: Authorities) -> None:
    async with world_of(authorities, {"port": 3306, "protocol": "tcp"}) as (network, world):
        assert await say(network, 3306, b"hello") == b"a.test:3306 got hello"
        assert world.take() == [{"server": "a.test", "port": 3306, "protocol": "tcp", "peer": CLIENT, "bytes": "hello"}]


async def test_what_arrived_is_remembered(authorities: Authorities) -> None:
    async with world_of(authorities, {"port": 80}) as (network, world):
        connection = await network.connect(CLIENT, Address(SITE, 80))
        connection.sock.close()
        await say(network, 80, get("/1"))
        for _ in range(20):
            await asyncio.sleep(0)
        assert [a.get("path", a.get("bytes")) for a in world.take()] == ["", "/1"]
        assert world.busy == 0 and world.take() == []


async def test_a_tunnel_leads_to_its_target(authorities: Authorities) -> None:
    async with world_of(authorities, {"port": 3128, "connect": True}) as (network, world):
        got = await say(network, 3128, b"CONNECT other.test:80 HTTP/1.1\r\nHost: other.test\r\n\r\n" + get("/inside", "connection: close"))
        assert b"HTTP/1.1 200 OK\r\n\r\n" in got
        assert [(a["server"], a["method"], a["peer"]) for a in world.take()] == [
            ("a.test", "CONNECT", CLIENT),
            ("other.test", "GET", SITE),
        ]


CERTIFICATES: list[tuple[str, dict[str, Any], str | None, str]] = [
    ("good", {}, "b.test", ""),
    ("another host", {"names": ["c.test"]}, "a.test", "Hostname mismatch"),
    ("any name", {"anyName": True}, "whatever.test", ""),
    ("expired", {"recipe": "expired"}, "a.test", "certificate has expired"),
    ("not yet valid", {"recipe": "not-yet-valid"}, "a.test", "certificate is not yet valid"),
    ("wrong name", {"recipe": "wrong-name"}, "a.test", "Hostname mismatch"),
    ("unknown CA", {"recipe": "unknown-ca"}, "a.test", "unable to get local issuer"),
    ("mesh CA", {"ca": "mesh"}, "a.test", "unable to get local issuer"),
    ("wrong usage", {"recipe": "wrong-usage"}, "a.test", "unsuitable certificate purpose"),
    ("self-signed", {"recipe": "self-signed"}, "a.test", "self-signed certificate"),
    ("revoked", {"recipe": "revoked"}, "a.test", "certificate revoked"),
]


@pytest.mark.parametrize(("what", "certificate", "name", "reason"), CERTIFICATES, ids=[row[0] for row in CERTIFICATES])
async def test_certificates(authorities: Authorities, what: str, certificate: dict[str, Any], name: str, reason: str) -> None:
    async with world_of(authorities, {"port": 443, "protocol": "https", "certificate": certificate}) as (network, _):
        context = client_context(authorities)
        if what == "revoked":
            crl = authorities.revocations("public").decode()
            context.load_verify_locations(cadata=authorities["public"].root_pem().decode())
            file = authorities.folder / "revoked.crl"
            file.write_text(crl)
            context.load_verify_locations(file)
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        if reason:
            with pytest.raises(ssl.SSLCertVerificationError, match=reason):
                await say(network, 443, get(), ssl=context, server_hostname=name)
        else:
            assert b'"sni":"%s"' % name.encode() in await say(network, 443, get(), ssl=context, server_hostname=name)


@pytest.mark.parametrize(
    ("mode", "ca", "outcome"),
    [
        ("optional", None, "[]"),
        ("optional", "partner", '["me.partner.test"]'),
        ("required", None, "refused"),
        ("optional", "unknown", "refused"),
    ],
)
async def test_client_certificates(authorities: Authorities, mode: str, ca: str | None, outcome: str, tmp_path: Path) -> None:
    port = {"port": 443, "protocol": "https", "clientCertificates": {"mode": mode, "trust": ["public", "partner"]}}
    async with world_of(authorities, port) as (network, _):
        context = client_context(authorities)
        if ca:
            chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
            authorities.issue(Presented((f"me.{ca}.test",), ca)).write(chain, key)
            context.load_cert_chain(chain, key)
        try:
            got = await say(network, 443, get(), ssl=context, server_hostname="a.test")
        except OSError:
            got = b""
        assert (f'"client":{outcome}'.encode() in got) if outcome != "refused" else got == b""


@pytest.mark.parametrize(("offered", "agreed"), [(["h2", "http/1.1"], "h2"), (["http/1.1"], "http/1.1"), (None, None)])
async def test_alpn(authorities: Authorities, offered: list[str] | None, agreed: str | None) -> None:
    async with world_of(authorities, {"port": 443, "protocol": "https"}) as (network, _):
        connection = await network.connect(CLIENT, Address(SITE, 443))
        context = client_context(authorities, offered)
        _, writer = await asyncio.open_connection(sock=connection.sock, ssl=context, server_hostname="a.test")
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == agreed
        writer.transport.abort()


async def test_http2_by_preface_with_a_body_larger_than_the_window(authorities: Authorities) -> None:
    async with world_of(authorities, {"port": 80, "answers": [{"bodySize": 300_000}]}) as (network, world):
        connection = await network.connect(CLIENT, Address(SITE, 80))
        reader, writer = await asyncio.open_connection(sock=connection.sock)
        client = h2.connection.H2Connection()
        client.initiate_connection()
        client.send_headers(1, [(":method", "GET"), (":scheme", "http"), (":authority", "a.test"), (":path", "/big")], end_stream=True)
        size, ended = 0, False
        while not ended:
            writer.write(client.data_to_send())
            for event in client.receive_data(await asyncio.wait_for(reader.read(65536), 5)):
                if isinstance(event, h2.events.DataReceived):
                    size += len(event.data)
                    client.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                ended = ended or isinstance(event, h2.events.StreamEnded)
        assert size == 300_000
        assert [(a["http"], a["path"]) for a in world.take()] == [("HTTP/2", "/big")]
        writer.close()


async def test_the_first_server_that_claims_an_address_has_it_and_an_update_moves_it(authorities: Authorities) -> None:
    async with world_of(authorities, {"port": 80}) as (network, world):
        spec = {"addresses": [SITE], "ports": [{"port": 80}]}
        both = [msgspec.convert({"hosts": [name], **spec}, ExternalServerSpec) for name in ("new.test", "late.test")]
        await world.update(both)
        _, _, body = (await say(network, 80, get())).partition(b"\r\n\r\n")
        assert json.loads(body)["server"] == "new.test"
        with pytest.raises(ConnectionRefusedError):
            await network.connect(CLIENT, Address(OTHER, 80))
