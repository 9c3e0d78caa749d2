"""The server behind the proxies, a process of its own that costs as little as it can: `python -m meshsim.bench.origin FOLDER`.

`origin.json` there says where to listen and what to speak: `http` answers `GET /N` with N bytes, and any other path with 1 KiB; `https`
the same over TLS; `bytes` answers the first bytes of each connection with 1 KiB, or with as many as they ask for by `bulk`, as a server
behind TLS passthrough looks to a proxy.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from pathlib import Path
from typing import Literal, cast

import msgspec

from meshsim.processes.child import Lifeline, run

FILE = "origin.json"
BULK = b"bulk"
"""Before a number of bytes, 8 bytes long."""
ANSWER = b"\x16\x03\x03" + b"." * 1021
_PIECE = b"." * (256 * 1024)
_END = b"\r\n\r\n"


class Port(msgspec.Struct):
    host: str
    port: int
    speaks: Literal["http", "https", "bytes"]


class Origin(msgspec.Struct):
    """chain, key: PEM files for `https`."""

    ports: list[Port]
    chain: str = ""
    key: str = ""


def write(folder: Path, origin: Origin) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / FILE).write_bytes(msgspec.json.encode(origin))


class _Server(asyncio.Protocol):
    """Writes as much as the transport takes, and no more."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._left = 0
        self._writable = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are none by inheritance

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._pour()

    def _pour(self) -> None:
        while self._left > 0 and self._writable and not self._transport.is_closing():
            piece = _PIECE if self._left >= len(_PIECE) else _PIECE[: self._left]
            self._left -= len(piece)
            self._transport.write(piece)


class HttpServer(_Server):
    _answers: dict[bytes, bytes] = {}

    def __init__(self) -> None:
        super().__init__()
        self._kept = b""

    def data_received(self, data: bytes) -> None:
        if self._kept:
            data = self._kept + data
        while (end := data.find(_END)) >= 0:
            self._answer(data[5 : data.index(b" ", 5)].partition(b"?")[0])
            data = data[end + len(_END) :]
        self._kept = data

    def _answer(self, size: bytes) -> None:
        answer = self._answers.get(size)
        if answer is None:
            number = int(size) if size.isdigit() else 1024
            answer = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n" % number
            if number <= len(_PIECE):
                answer = self._answers[size] = answer + _PIECE[:number]
            else:
                self._left += number
        self._transport.write(answer)
        self._pour()


class BytesServer(_Server):
    def data_received(self, data: bytes) -> None:
        _, asked, number = data.partition(BULK)
        if asked:
            self._left = int.from_bytes(number[:8], "big")
            self._pour()
        else:
            self._transport.write(ANSWER)


async def main(folder: Path) -> None:
    origin = msgspec.json.decode((folder / FILE).read_bytes(), type=Origin)
    lifeline = Lifeline()
    loop = asyncio.get_running_loop()
    context = None
    if origin.chain:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(origin.chain, origin.key)
        context.set_alpn_protocols(["http/1.1"])
    servers = []
    for port in origin.ports:
        kind = BytesServer if port.speaks == "bytes" else HttpServer
        tls = context if port.speaks == "https" else None
        servers.append(await loop.create_server(kind, port.host, port.port, ssl=tls, backlog=1024))
    await lifeline.serve()
    for server in servers:
        server.close()


if __name__ == "__main__":
    run(main(Path(sys.argv[1])))
