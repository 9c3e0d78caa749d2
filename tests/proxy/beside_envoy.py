"""The asyncio proxy beside a real Envoy, byte for byte: the same configuration, the same client, the same host.

    python -m tests.proxy.beside_envoy [PART OF A NAME]...            run the rows on both now, and print what differs
    python -m tests.proxy.beside_envoy --record                      write what Envoy does to envoy_bytes.json
    python -m tests.proxy.beside_envoy --stats [PART OF A NAME]...    compare the counters of each row, too

How this works: a `Bench` (support.py) and an `EnvoyBench` look the same to a row; `played` plays it and returns what the client got after
each piece it sent, whether its connection ended, what the host got on each of its connections, and what the access log says. What
changes from run to run (times, ids) is made steady first.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any as Json

import msgspec

from meshsim import xds
from meshsim.envoy import EnvoyProcess
from meshsim.network import place
from meshsim.network.base import Address
from tests.proxy.rows import KNOWN, ROWS, Row
from tests.proxy.support import HOST, Bench, Talk, cluster, http

RECORDED = Path(__file__).with_name("envoy_bytes.json")
LOG = "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %REQ(:METHOD)% %PROTOCOL% %BYTES_RECEIVED% %BYTES_SENT%\n"
PATIENCE = 5.0  # seconds for what is known to come
_SERVED_FROM = "127.0.0.1"


class EnvoyBench:
    """A real Envoy in the place of `Bench`'s proxy: on TCP ports of this machine that happen to be free."""

    def __init__(self, config: dict[str, Json]):
        self.config = msgspec.convert(config, xds.ProxyConfig)
        self._stack = AsyncExitStack()
        self._ports: dict[Address, int] = {}
        self._talks: dict[Address, Talk] = {}

    async def __aenter__(self) -> EnvoyBench:
        folder = Path(tempfile.mkdtemp(prefix="mp-", dir="/tmp"))
        self._stack.callback(shutil.rmtree, folder)
        for listener in self.config.listeners:
            assert listener.address.socket_address is not None
            listener.address.socket_address.address, listener.address.socket_address.port_value = _SERVED_FROM, 0
        for each in self.config.clusters:
            assert each.load_assignment is not None
            for endpoint in each.load_assignment.endpoints[0].lb_endpoints:
                at = endpoint.endpoint.address.socket_address
                assert at is not None
                at.port_value = await self._serve(Address(at.address, at.port_value))
                at.address = _SERVED_FROM
        site = place.Site(folder, _SERVED_FROM, lambda name: None)
        place.write(self.config, site)
        self._envoy = EnvoyProcess(site, "beside", "default")
        await self._envoy.start()
        self._stack.push_async_callback(self._envoy.stop)
        status = json.loads(await self._envoy.admin("/listeners?format=json"))["listener_statuses"][0]
        self._port = status["local_address"]["socket_address"]["port_value"]
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()

    async def host(self, talk: Talk, address: Address = HOST) -> None:
        self._talks[address] = talk

    async def client(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(_SERVED_FROM, self._port, limit=2**22)

    async def admin(self, path: str, method: str = "GET") -> str:
        return (await self._envoy.admin(path, method)).decode()

    async def _serve(self, address: Address) -> int:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await self._talks[address](reader, writer)
            except ConnectionError:
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(serve, _SERVED_FROM, 0)
        self._stack.callback(server.close)
        return int(server.sockets[0].getsockname()[1])


def configured(row: Row, log: Path) -> dict[str, Json]:
    """The configuration of a row; lines of the log go to a file."""
    manager = {"normalize_path": True, "delayed_close_timeout": "0.1s", "access_log": [_logger(log)], **row.manager}
    up = cluster(**row.cluster)
    routes = [{"match": {"prefix": "/"}, "route": {"cluster": "up", **row.action}}]
    return http(routes, [up], **manager)


def _logger(path: Path) -> Json:
    kind = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog"
    style = {"text_format_source": {"inline_string": LOG}}
    return {"name": "file", "typed_config": {"@type": kind, "path": str(path), "log_format": style}}


class Script:
    """The host of a row, and what it heard, connection by connection."""

    def __init__(self, row: Row):
        self._row, self._answered = row, 0
        self.heard: list[bytearray] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard = bytearray()
        self.heard.append(heard)
        seen = 0
        while data := await reader.read(65536):
            heard += data
            while (found := heard.find(self._row.heard, seen)) >= 0:
                seen = found + len(self._row.heard)
                answer = self._row.answers[min(self._answered, len(self._row.answers) - 1)]
                self._answered += 1
                writer.write(answer or b"")
                if answer is None or self._row.hangs_up:
                    await writer.drain()
                    return


async def played(row: Row, bench: Bench | EnvoyBench, log: Path, expected: Json | None = None) -> dict[str, Json]:
    """What came of a row. expected: what is thought to come, so that nothing need be waited for but that."""
    script = Script(row)
    await bench.host(script)
    reader, writer = await bench.client()
    got: list[str] = []
    ended = False
    for number, piece in enumerate(row.send):
        writer.write(piece)
        last = number == len(row.send) - 1
        known = expected is not None and number < len(expected["client"]) and (piece or (last and expected["ended"]))
        wanted = (expected["client"][number], last and expected["ended"]) if expected and known else None
        data, ended = await _heard(reader, wanted, row.quiet)
        got.append(steady(data))
        if ended:
            break
    writer.close()
    lines = expected["log"] if expected else None
    return {"client": got, "ended": ended, "host": [steady(bytes(h)) for h in script.heard], "log": await _logged(log, lines)}


async def _heard(reader: asyncio.StreamReader, wanted: tuple[str, bool] | None, quiet: float) -> tuple[bytes, bool]:
    """What arrives until there is silence or what is wanted is there, and whether the connection ended."""
    data = b""
    try:
        while True:
            complete = wanted is not None and steady(data) == wanted[0]
            wait = quiet if wanted is None else 0.03 if complete and not wanted[1] else PATIENCE
            more = await asyncio.wait_for(reader.read(65536), wait)
            if not more:
                return data, True
            data += more
    except TimeoutError:
        return data, False
    except ConnectionError:
        return data, True


async def _logged(path: Path, wanted: Json | None) -> list[str]:
    """The lines of the log, once they are those wanted, or no more come."""
    lines: list[str] = []
    unchanged = 0
    while unchanged < 20 and lines != wanted:
        await asyncio.sleep(0.005)
        before, lines = lines, path.read_text(encoding="latin-1").splitlines() if path.exists() else []
        unchanged = unchanged + 1 if lines == before else 0
    return lines


_VARIES = [
    (re.compile(rb"(?i)(?<=\ndate: )[A-Z][^\r\n]*GMT"), b"D"),
    (re.compile(rb"(?i)(?<=\nx-envoy-upstream-service-time: )\d+"), b"N"),
    (re.compile(rb"(?i)(?<=\nx-request-id: )[0-9a-f]{8}-[0-9a-f-]{27}"), b"ID"),
    (re.compile(rb"(?i)(?<=\nx-envoy-expected-rq-timeout-ms: )149\d\d"), b"15000"),
    (re.compile(rb"(?i)(?<=\nx-envoy-expected-rq-timeout-ms: )49\d\d"), b"5000"),
]


def steady(data: bytes) -> str:
    """Without what changes from run to run."""
    for pattern, text in _VARIES:
        data = pattern.sub(text, data)
    return data.decode("latin-1")


@asynccontextmanager
async def logs() -> AsyncIterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="mp-", dir="/tmp"))
    try:
        yield folder / "log"
    finally:
        shutil.rmtree(folder)


async def on_envoy(row: Row) -> tuple[dict[str, Json], dict[str, int]]:
    async with logs() as log, EnvoyBench(configured(row, log)) as bench:
        result = await played(row, bench, log)
        return result, _counters(await bench.admin("/stats?usedonly&type=Counters"))


async def on_asyncio(row: Row, expected: Json | None = None) -> tuple[dict[str, Json], dict[str, int]]:
    async with logs() as log, Bench(configured(row, log)) as bench:
        result = await played(row, bench, log, expected)
        return result, _counters(bench.proxy.admin("/stats?usedonly&type=Counters"))


_OF_ADDRESS = re.compile(r"^listener\.[^h]*?_\d+\.|^listener\.[0-9.:]+\.")
COUNTED = re.compile(r"^(listener\.ADDR|http\.test|cluster\.up|http1|http2|tcp\.test)\.")


def _counters(text: str) -> dict[str, int]:
    """Counters of the row's own: of its listener, connection manager and cluster."""
    found = {}
    for line in text.splitlines():
        name, _, value = line.rpartition(": ")
        name = _OF_ADDRESS.sub("listener.ADDR.", name)
        if COUNTED.match(name) and ".worker_0." not in name and not name.endswith("_bytes_total"):
            found[name] = int(value)
    return found


def differences(expected: Json, got: Json) -> list[str]:
    return [f"{key}:\n  envoy   {expected[key]!r}\n  meshsim {got[key]!r}" for key in expected if expected[key] != got.get(key)]


async def main(words: list[str]) -> int:
    record, stats = "--record" in words, "--stats" in words
    words = [w for w in words if not w.startswith("--")]
    rows = [r for r in ROWS if not words or any(w in r.name for w in words)]
    recorded, wrong = {}, 0
    for row in rows:
        expected, counters = await on_envoy(row)
        recorded[row.name] = expected
        if record:
            print(row.name)
            continue
        got, own = await on_asyncio(row)
        found = differences(expected, got)
        if stats:
            found += [f"{n}: envoy {counters.get(n, 0)}, meshsim {own.get(n, 0)}" for n in sorted({*counters, *own})
                      if counters.get(n, 0) != own.get(n, 0)]
        wrong += bool(found) and row.name not in KNOWN
        verdict = "equal  " if not found else "known  " if row.name in KNOWN else "differs"
        print(verdict, row.name, *found, sep="\n        " if found else "  ")
    if record:
        before = json.loads(RECORDED.read_text()) if words and RECORDED.exists() else {}
        RECORDED.write_text(json.dumps({**before, **recorded}, indent=1) + "\n")
    else:
        print(f"{len(rows) - wrong} of {len(rows)} rows equal")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
