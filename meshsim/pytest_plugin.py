"""pytest: a mesh in a fixture, calls in YAML files.

Fixtures, for the files that `mesh_paths` names (the ini option `mesh_paths`, or a fixture of that name of your own):

    def test_leaves_through_the_gateway(mesh):
        expect(mesh, "sleep", "http://edition.cnn.com/politics", via="istio-egressgateway", status=301)

    def test_live(live_mesh):
        assert live_mesh.get("sleep", "http://edition.cnn.com/politics").status == 301

`mesh` is loaded once a module and simulates; `live_mesh` runs the same mesh on real sockets, in an event loop of its own, and takes it
down after the module. A file named `*.meshtest.yaml` is a test too: each of its calls is an item, on each engine it lists.
Nothing is imported before a test asks for a mesh, so the plugin costs other test suites nothing.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from typing import Any as Json

import pytest

if TYPE_CHECKING:
    from meshsim.mesh import Mesh
    from meshsim.pod import Reply
    from meshsim.testing import Outcome

SUFFIX = ".meshtest.yaml"
KIND = "MeshTest"
ENGINES = ("simulate", "asyncio")
_ACCEPTED = "/stats?filter=^listener\\..*\\.downstream_cx_total$"
_T = TypeVar("_T")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini("mesh_paths", "files and folders of the mesh that the `mesh` fixture loads", type="paths", default=[])


@pytest.fixture(scope="module")
def mesh_paths(request: pytest.FixtureRequest) -> list[Path]:
    """The files and folders of the mesh under test; override it, or set the ini option of the same name."""
    found: list[Path] = list(request.config.getini("mesh_paths"))
    if not found:
        pytest.fail("no mesh to load: set mesh_paths in the pytest configuration, or define a fixture mesh_paths", pytrace=False)
    return found


@pytest.fixture(scope="module")
def mesh(mesh_paths: list[Path]) -> Mesh:
    """The mesh, loaded once a module. Calls: `mesh.simulate(...)`, `meshsim.testing.expect(mesh, ...)`."""
    return _load(mesh_paths)


@pytest.fixture(scope="module")
def live_mesh(mesh: Mesh) -> Iterator[LiveMeshInThread]:
    """The same mesh alive: asyncio proxies and servers on private sockets, until the module ends."""
    with LiveMeshInThread(mesh) as live:
        yield live


class LiveMeshInThread:
    """A live mesh for tests without an event loop: every call waits for its answer."""

    def __init__(self, mesh: Mesh):
        self._mesh = mesh
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="meshsim", daemon=True)
        self._stack = AsyncExitStack()

    def __enter__(self) -> LiveMeshInThread:
        self._thread.start()
        try:
            self._live = self._wait(self._stack.enter_async_context(self._mesh.run()))
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._wait(self._stack.aclose())
        finally:
            self._stop()

    def get(self, pod: str, url: str, headers: Mapping[str, str] | None = None) -> Reply:
        """GET from a pod, as an application there would. Raises what its connection meets."""
        return self._wait(self._live.pod(pod).get(url, headers))

    def request(self, pod: str, method: str, url: str, headers: Mapping[str, str] | None = None, body: bytes = b"") -> Reply:
        """Any request from a pod."""
        return self._wait(self._live.pod(pod).request(method, url, headers, body))

    def log(self, proxy: str) -> list[str]:
        """The access log of a proxy so far."""
        return self._live.proxy(proxy).log()

    def arrivals(self) -> list[dict[str, Json]]:
        """What external servers received so far."""
        return self._live.arrivals()

    def passed(self) -> list[str]:
        """The proxies that took a connection so far, by their short names."""
        return [m.proxy.name for m in self._live.proxies if _counted(self._wait(m.admin(_ACCEPTED)))]

    def _wait(self, coroutine: Coroutine[Json, Json, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    if file_path.name.endswith(SUFFIX):
        collected: pytest.Collector = MeshTestFile.from_parent(parent, path=file_path)
        return collected
    return None


class MeshTestFile(pytest.File):
    """A MeshTest: the files of a mesh, engines, and calls with what is expected of each."""

    _mesh: Mesh | None = None

    def collect(self) -> Iterator[pytest.Item]:
        from meshsim import resources

        documents = resources.load(self.path).require()
        for header in documents.headers:
            if header.get("kind") != KIND:
                raise self.CollectError(f"{self.path}: expected a {KIND}, found {header.get('kind')}")
            yield from self._items(header.get("spec") or {})

    def _items(self, spec: Mapping[str, Json]) -> Iterator[pytest.Item]:
        engines = spec.get("engines") or [ENGINES[0]]
        unknown = [e for e in engines if e not in ENGINES]
        if unknown:
            raise self.CollectError(f"{self.path}: unknown engine {unknown[0]!r}; there are: {', '.join(ENGINES)}")
        paths = [self.path.parent / p for p in spec.get("mesh") or ["."]]
        for engine in engines:
            for number, call in enumerate(spec.get("calls") or []):
                name = f"{call.get('name') or number}[{engine}]"
                yield MeshTestItem.from_parent(self, name=name, call=call, engine=engine, paths=paths)

    def mesh(self, paths: list[Path]) -> Mesh:
        if self._mesh is None:
            self._mesh = _load([p for p in paths if p != self.path])
        return self._mesh


class MeshTestItem(pytest.Item):
    """One call on one engine."""

    def __init__(self, *, call: Mapping[str, Json], engine: str, paths: list[Path], **more: Json):
        super().__init__(**more)
        self._call, self._engine, self._paths = call, engine, paths

    def runtest(self) -> None:
        from meshsim import testing

        parent = self.parent
        assert isinstance(parent, MeshTestFile)
        mesh, call = parent.mesh(self._paths), self._call
        headers = {str(k): str(v) for k, v in (call.get("headers") or {}).items()}
        method = call.get("method", "GET")
        trace = mesh.simulate(call["from"], call["url"], method=method, headers=headers, body=str(call.get("body", "")).encode())
        found = testing.outcome(trace) if self._engine == ENGINES[0] else _live_outcome(mesh, call, method, headers)
        wrong = testing.differences(call.get("expect") or {}, found)
        if wrong:
            raise testing.Unexpected(testing.report(mesh, trace, f"{method} {call['url']} from {call['from']}", wrong))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Json = None) -> str:
        from meshsim.errors import MeshsimError

        if isinstance(excinfo.value, AssertionError | MeshsimError):
            return str(excinfo.value)
        return str(super().repr_failure(excinfo, style))

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, None, f"{self.path.name}: {self.name}"


def _live_outcome(mesh: Mesh, call: Mapping[str, Json], method: str, headers: Mapping[str, str]) -> Outcome:
    """The same call on live proxies. What only a trace can tell (`via`, `log`) comes from their access logs."""
    from meshsim.testing import Outcome

    with LiveMeshInThread(mesh) as live:
        try:
            reply = live.request(call["from"], method, call["url"], headers, str(call.get("body", "")).encode())
        except OSError as e:
            return Outcome(error=str(e) or type(e).__name__)
        arrivals = live.arrivals()
        passed = tuple(p for p in live.passed() if p != call["from"].rpartition("/")[2].partition(".")[0])
    last = arrivals[-1] if arrivals else None
    return Outcome(
        status=reply.status,
        via=passed,
        server=f"{last['server']}:{last['port']}" if last else "",
        location=reply.header("location"),
        body=reply.text,
        received=dict(map(tuple, last.get("headers", []))) if last else {},
    )


def _counted(stats: str) -> int:
    """The sum of the counters on an admin page."""
    return sum(int(line.rpartition(":")[2]) for line in stats.splitlines() if line.rpartition(":")[2].strip().isdigit())


def _load(paths: list[Path]) -> Mesh:
    import meshsim

    return meshsim.load(*paths)
