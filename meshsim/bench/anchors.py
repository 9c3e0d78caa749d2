"""What else can stand between client and origin, for comparison: nginx or HAProxy as one hop, where they are installed.

Envoy is slow on small virtual machines; a second proxy that everyone knows says how slow. An anchor takes the same connections as the
sidecar of a one-hop leg, PROXY header included, and passes requests on over kept connections, with an access log; it has no routes to
match and no headers to rewrite, so that its figure is what is left when a mesh has done nothing.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from meshsim.bench.load import Load
from meshsim.bench.stage import Engine, Stage, cores, pinned
from meshsim.errors import MeshsimError

_PATIENCE = 10.0  # seconds for it to listen
_POLL = 0.02


@dataclass(frozen=True, slots=True)
class Program:
    """words: what it is. command: how it is started, with `{file}` for its configuration, whose text `config` is a template of."""

    words: str
    command: Sequence[str]
    config: str


ANCHORS = {
    "nginx": Program(
        "nginx, one process, one hop",
        ("nginx", "-p", "{folder}", "-c", "{file}", "-e", "{folder}/error.log"),
        """\
daemon off;
master_process off;
pid {folder}/pid;
events {{ worker_connections 1024; }}
http {{
  access_log {folder}/access.log combined;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxied;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  keepalive_requests 100000000;
  upstream origin {{ server {host}:{port}; keepalive 64; keepalive_requests 100000000; }}
  server {{
    listen unix:{pipe} proxy_protocol;
    location / {{ proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host; }}
  }}
}}
""",
    ),
    "haproxy": Program(
        "HAProxy, one thread, one hop",
        ("haproxy", "-db", "-f", "{file}"),
        """\
global
  nbthread 1
  log stdout format raw local0
defaults
  mode http
  log global
  option httplog
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend in
  bind unix@{pipe} accept-proxy
  default_backend out
backend out
  http-reuse always
  server origin {host}:{port}
""",
    ),
}


def installed() -> list[str]:
    """The anchors that this machine has."""
    return [name for name, program in ANCHORS.items() if shutil.which(program.command[0])]


class Anchor(Engine):
    """One of `ANCHORS` for one leg."""

    def __init__(self, name: str, stage: Stage):
        self.name, self._program, self._stage = name, ANCHORS[name], stage
        self._folder = stage.folder / name
        self._process: asyncio.subprocess.Process | None = None

    def load(self) -> Load:
        return self._stage.captured(self._pipe)

    @property
    def _pipe(self) -> str:
        return str(self._folder / "in.sock")

    @property
    def pids(self) -> list[int]:
        return [self._process.pid] if self._process else []

    async def start(self) -> None:
        """Raises MeshsimError where it is not installed, or does not start."""
        if shutil.which(self._program.command[0]) is None:
            raise MeshsimError(f"{self.name} is not installed")
        self._folder.mkdir(mode=0o700)
        origin, file = self._stage.direct(), self._folder / "config"
        file.write_text(self._program.config.format(folder=self._folder, pipe=self._pipe, host=origin.host, port=origin.port))
        command = [word.format(folder=self._folder, file=file) for word in self._program.command]
        with open(self._folder / "stdout", "wb") as out, open(self._folder / "stderr", "wb") as errors:
            self._process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.DEVNULL, stdout=out, stderr=errors, preexec_fn=pinned(cores()[0])
            )
        try:
            async with asyncio.timeout(_PATIENCE):
                while not Path(self._pipe).exists():
                    if self._process.returncode is not None:
                        raise MeshsimError(f"{self.name} did not start: {(self._folder / 'stderr').read_text(errors='replace').strip()}")
                    await asyncio.sleep(_POLL)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
