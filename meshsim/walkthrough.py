"""Walk-throughs: a page's steps on a running mesh, each with what the page shows.

    apiVersion: meshsim.dev/v1alpha1
    kind: Walkthrough
    metadata: {name: egress-gateway-http}
    spec:
      title: Egress gateway for HTTP traffic
      start: [mesh.yaml, outside.yaml]
      steps:
      - title: Let the mesh know edition.cnn.com
        apply: [service-entry.yaml]
      - title: Send a request
        run: curl -sSL -o /dev/null -D - http://edition.cnn.com/politics
        from: sleep
        expect:
          responses: [{version: HTTP/1.1, status: 301, location: "https://edition.cnn.com/politics"}]
          log: [{pod: sleep, has: [GET /politics, "outbound|80||edition.cnn.com"]}]
          counters: [{pod: istio-egressgateway, name: "cluster.outbound|80||edition.cnn.com.upstream_cx_total", grows: 1}]

How this works: `play` takes one step after the other on a live mesh: it applies or deletes, runs the command with the pod's environment,
waits until the log lines that the step expects are there (a proxy writes them when a stream ends, which may be after the client has its
answer), and yields what happened with everything that is not as expected. It prints nothing.
"""

from __future__ import annotations

import asyncio
import re
import shlex
import shutil
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any as Json

import msgspec

from meshsim.errors import ConfigError, MeshsimError
from meshsim.live import LiveMesh
from meshsim.mesh import Mesh
from meshsim.resources import Documents, Resource, load
from meshsim.resources.validation import accepted
from meshsim.surroundings import surrounded
from meshsim.words import ENGLISH, Words

KIND = "Walkthrough"
COMMAND_LIMIT = 30.0  # seconds a command may take
LOG_LIMIT = 3.0  # seconds for an expected log line or counter to appear after the command has ended
_POLL = 0.02


class _Yaml(msgspec.Struct, rename="camel", kw_only=True, forbid_unknown_fields=True):
    """What a walk-through's YAML is made of."""


class ExpectedResponse(_Yaml):
    """A response head in the command's output; what is not given is not compared."""

    status: int
    version: str = ""
    location: str = ""


class ExpectedLog(_Yaml):
    """New lines in a pod's access log: one that has all these texts, or with `absent` none that has."""

    pod: str
    has: list[str]
    absent: bool = False


class ExpectedCounter(_Yaml):
    """A statistic of a pod's proxy that grows by this much."""

    pod: str
    name: str
    grows: int = 0


class Expect(_Yaml):
    """What a step must show. `output`: texts in what the command printed."""

    exit: int = 0
    responses: list[ExpectedResponse] = []
    output: list[str] = []
    log: list[ExpectedLog] = []
    counters: list[ExpectedCounter] = []


class Wording(_Yaml):
    """A step's or a walk-through's text in another language."""

    title: str = ""
    text: str = ""


class Step(_Yaml):
    """apply: files of the scenario. delete: resources as Kind/name or Kind/namespace/name. run: a command, in the pod `from`."""

    title: str
    text: str = ""
    zh: Wording | None = None
    apply: list[str] = []
    delete: list[str] = []
    run: str = ""
    sender: str = msgspec.field(default="sleep", name="from")
    expect: Expect = msgspec.field(default_factory=Expect)


class Spec(_Yaml, kw_only=True):
    title: str
    text: str = ""
    zh: Wording | None = None
    start: list[str]
    steps: list[Step]


def wording(said: Step | Spec, language: str) -> Wording:
    """A step's or a walk-through's words: the other language's where they are written, and where not its own."""
    other = said.zh if language == "zh" and said.zh else Wording()
    return Wording(title=other.title or said.title, text=other.text or said.text)


@dataclass
class Walkthrough:
    """A scenario's walk-through, and the folder its files are in."""

    name: str
    folder: Path
    spec: Spec

    def title(self, language: str) -> str:
        """Its title, in that language if it has one."""
        return wording(self.spec, language).title

    def initial(self) -> Mesh:
        """The mesh before the first step, in default surroundings where `start` names none. Raises ConfigError."""
        return Mesh(*surrounded(self.documents(self.spec.start)))

    def documents(self, files: list[str]) -> Documents:
        """Raises ConfigError for what is wrong in them."""
        return accepted(load(*(self.folder / name for name in files)).require())


@dataclass
class Played:
    """What one step did. log: new lines by pod. counters: before and after. failures: what is not as the page shows."""

    number: int
    step: Step
    output: str = ""
    exit: int | None = None
    substitute: bool = False  # meshsim's own client ran, for want of curl
    log: dict[str, list[str]] = field(default_factory=dict)
    counters: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


def read(folder: Path) -> Walkthrough | None:
    """The walk-through in a folder, if there is one. Raises MeshsimError for one that does not fit."""
    for header in load(folder).headers:
        if header["kind"] == KIND:
            try:
                spec = msgspec.convert(header.get("spec"), Spec)
            except msgspec.ValidationError as e:
                raise MeshsimError(f"{folder}: {KIND}: {e}") from None
            return Walkthrough(folder.name, folder, spec)
    return None


async def play(walkthrough: Walkthrough, live: LiveMesh, words: Words = ENGLISH) -> AsyncGenerator[Played, None]:
    """Take every step on a running mesh that started as `walkthrough.initial()`. words: the language of what is not as expected."""
    resources = list(live.mesh.documents.resources)
    for number, step in enumerate(walkthrough.spec.steps, 1):
        played = Played(number, step)
        try:
            if step.apply or step.delete:
                resources = _changed(resources, walkthrough.documents(step.apply).resources, step.delete)
                await live.apply(live.mesh.changed(resources))
            if step.run:
                await _run(step, live, played, words)
        except ConfigError as e:
            played.failures += [str(p) for p in e.problems]
        yield played


def _changed(old: list[Resource[Json]], new: list[Resource[Json]], deleted: list[str]) -> list[Resource[Json]]:
    names = {_full(name) for name in deleted}
    by_id = {r.id: r for r in old}
    missing = names - by_id.keys()
    if missing:
        raise MeshsimError(f"cannot delete what is not there: {', '.join(sorted(missing))}")
    return list((({k: r for k, r in by_id.items() if k not in names}) | {r.id: r for r in new}).values())


def _full(name: str) -> str:
    return name if name.count("/") == 2 else name.replace("/", "/default/")


async def _run(step: Step, live: LiveMesh, played: Played, words: Words) -> None:
    expect = step.expect
    sender = [step.sender] if live.mesh.pod(step.sender).proxy else []
    pods = list(dict.fromkeys([*sender, *(e.pod for e in expect.log), *(c.pod for c in expect.counters)]))
    seen = {pod: len(live.proxy(pod).log()) for pod in pods}
    before = {(c.pod, c.name): await counter(live, c.pod, c.name) for c in expect.counters}
    played.exit, played.output, played.substitute = await _command(step, live)
    limit = asyncio.get_running_loop().time() + LOG_LIMIT
    while True:
        played.log = {pod: live.proxy(pod).log()[count:] for pod, count in seen.items()}
        played.counters = {(pod, name): (was, await counter(live, pod, name)) for (pod, name), was in before.items()}
        played.failures = _differences(played, words)
        if not played.failures or asyncio.get_running_loop().time() > limit:
            return
        await asyncio.sleep(_POLL)


async def counter(live: LiveMesh, pod: str, name: str) -> int:
    """A statistic of a pod's proxy; 0 for one that nothing has counted yet."""
    for line in (await live.proxy(pod).admin("/stats")).splitlines():
        key, _, value = line.rpartition(": ")
        if key == name and value.isdigit():
            return int(value)
    return 0


async def _command(step: Step, live: LiveMesh) -> tuple[int, str, bool]:
    """Exit status, output, and whether meshsim's own client had to do."""
    pod = live.pod(step.sender)
    words = shlex.split(step.run)
    if words[0] == "curl" and shutil.which("curl") is None:
        from meshsim.client import curl

        return (*await curl(words[1:], pod), True)
    return (*await pod.output(*words, limit=COMMAND_LIMIT), False)


_STATUS = re.compile(r"^HTTP/(\S+) (\d{3})")


def responses(output: str) -> list[ExpectedResponse]:
    """The response heads in what a command printed."""
    found: list[ExpectedResponse] = []
    for line in output.splitlines():
        if status := _STATUS.match(line):
            found.append(ExpectedResponse(status=int(status[2]), version=f"HTTP/{status[1]}"))
        elif found and line.lower().startswith("location:"):
            found[-1].location = line.partition(":")[2].strip()
    return found


def _differences(played: Played, words: Words) -> list[str]:
    expect, found = played.step.expect, []
    if played.exit != expect.exit:
        found.append(words("other exit", seen=played.exit, expected=expect.exit))
    if expect.responses:
        found += _responses(expect.responses, responses(played.output), played.substitute, words)
    found += [words("lacks", text=text) for text in expect.output if text not in played.output]
    for entry in expect.log:
        hits = [line for line in played.log[entry.pod] if all(text in line for text in entry.has)]
        if bool(hits) == entry.absent:
            texts = words("and").join(map(repr, entry.has))
            found.append(words("in log" if entry.absent else "not in log", pod=entry.pod, texts=texts))
    for wanted in expect.counters:
        before, after = played.counters[wanted.pod, wanted.name]
        if after - before != wanted.grows:
            found.append(words("other count", pod=wanted.pod, name=wanted.name, before=before, after=after, grows=wanted.grows))
    return found


def _responses(expected: list[ExpectedResponse], seen: list[ExpectedResponse], substitute: bool, words: Words) -> list[str]:
    if len(expected) != len(seen):
        return [words("other responses", seen=len(seen), expected=len(expected))]
    found = []
    for want, got in zip(expected, seen, strict=True):
        if want.status != got.status:
            found.append(words("other status", seen=got.status, expected=want.status))
        if want.version and want.version != got.version and not substitute:  # meshsim's own client offers HTTP/1.1 only
            found.append(words("other version", seen=got.version, expected=want.version))
        if want.location and want.location != got.location:
            found.append(words("other location", seen=got.location, expected=want.location))
    return found
