"""What a running mesh answers to each command."""

from __future__ import annotations

import asyncio
import os
from argparse import Namespace
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any as Json

import msgspec
import yaml

from meshsim.errors import MeshsimError
from meshsim.kube import jsonpath, tables
from meshsim.kube.describe import described
from meshsim.kube.install import operator
from meshsim.kube.names import Named, find
from meshsim.kube.store import DEFAULT, Rejected, Store, builtins
from meshsim.kube.terminal import Terminal, run
from meshsim.live import LiveMesh
from meshsim.members import Member
from meshsim.mesh import Mesh, PodPlace
from meshsim.network import packets
from meshsim.pod import NO_SUCH_PROGRAM
from meshsim.resources import Documents, Resource
from meshsim.surroundings import surrounded

FAILED = 1
TAIL_OF_MANY = 10  # kubectl shows the last lines only where a selector chose the pods
STDOUT = "-"
_POLL = 0.1
_CERTIFICATES = ("/etc/certs/", "/var/run/secrets/workload-spiffe-credentials/")
"""Where Istio has a proxy's certificates. A pod in namespaces has the first itself; on sockets it has no files of its own."""


class Commands:
    """The commands on one live mesh. Changes take turns."""

    def __init__(self, live: LiveMesh, clock: Callable[[], float]):
        self._live, self._clock, self._started = live, clock, clock()
        self._store = Store(live.mesh.documents.resources)
        self._turn = asyncio.Lock()
        self._born: dict[str, float] = {}
        self._note_births()

    def _note_births(self) -> None:
        now = self._clock()
        self._born = {r.id: self._born.get(r.id, now) for r in self._live.mesh.resources}

    def _age(self, resource: Resource[Json]) -> str:
        seconds = int(self._clock() - self._born.get(resource.id, self._started))
        for size, unit, least in ((86400, "d", 172800), (3600, "h", 7200), (60, "m", 120)):
            if seconds >= least:
                return f"{seconds // size}{unit}"
        return f"{seconds}s"

    async def run(self, command: str, asked: Namespace, terminal: Terminal) -> int:
        """Do it; the exit status. What is wrong is said on the terminal."""
        does: dict[str, Callable[[Namespace, Terminal], Awaitable[int]]] = {
            "apply": self._apply, "delete": self._delete, "create": self._create, "label": self._label, "install": self._install,
            "get": self._get, "describe": self._describe, "logs": self._logs, "exec": self._exec,
            "capture": self._capture,
        }  # fmt: skip
        try:
            return await does[command](asked, terminal)
        except MeshsimError as e:
            await terminal.say(str(e))
            return FAILED

    # Changes -------------------------------------------------------------------------------------------------------------------------

    async def _apply(self, asked: Namespace, terminal: Terminal) -> int:
        if not asked.files:
            raise MeshsimError("error: must specify one of -f and -k")

        def change(store: Store, said: list[str], refused: list[str]) -> None:
            for resource, document in store.read(asked.files, asked.namespace):
                _try(partial(store.apply, resource, document), said, refused)

        return await self._change(change, terminal)

    async def _install(self, asked: Namespace, terminal: Terminal) -> int:
        def change(store: Store, said: list[str], refused: list[str]) -> None:
            for resource, document in store.read([("--set", operator(asked.sets, asked.files))], None):
                store.apply(resource, document)
            said += ["✔ Egress gateways installed", "✔ Installation complete"]

        return await self._change(change, terminal)

    async def _create(self, asked: Namespace, terminal: Terminal) -> int:
        def change(store: Store, said: list[str], refused: list[str]) -> None:
            said.append(store.create_namespace(asked.name))

        return await self._change(change, terminal)

    async def _delete(self, asked: Namespace, terminal: Terminal) -> int:
        def change(store: Store, said: list[str], refused: list[str]) -> None:
            missing: list[str] = []
            for resource, _ in store.read(asked.files, asked.namespace):
                given = (find(resource.kind), resource.namespace, resource.name, resource.location.file)
                _try(partial(store.delete, *given), said, missing)
            for kind, name in _named(asked.words):
                _try(partial(store.delete, kind, asked.namespace or DEFAULT, name), said, missing)
            refused += [] if asked.ignore_not_found else missing

        return await self._change(change, terminal)

    async def _label(self, asked: Namespace, terminal: Terminal) -> int:
        changes: dict[str, str | None] = {}
        for word in [w for w in asked.words if "=" in w or w.endswith("-")]:
            key, equals, value = word.partition("=")
            changes[key if equals else word[:-1]] = value if equals else None
        named = list(_named([w for w in asked.words if "=" not in w and not w.endswith("-")]))
        if not changes or not named:
            missing = "at least one label update is required" if named else "one or more resources must be specified"
            raise MeshsimError(f"error: {missing}")

        def change(store: Store, said: list[str], refused: list[str]) -> None:
            for kind, name in named:
                said.append(store.label(kind, asked.namespace or DEFAULT, name, changes, overwrite=asked.overwrite))

        return await self._change(change, terminal)

    async def _change(self, change: Callable[[Store, list[str], list[str]], None], terminal: Terminal) -> int:
        """Make a change of the store one of the mesh: all of what was taken, or nothing when the mesh cannot become that."""
        said: list[str] = []
        refused: list[str] = []
        async with self._turn:
            store = self._store.copy()
            change(store, said, refused)
            if said:
                await self._live.apply(Mesh(*surrounded(Documents(store.resources), alone=False), after=self._live.mesh))
                self._store = store
                self._note_births()
        for line in said:
            await terminal.out(line + "\n")
        for line in refused:
            await terminal.say(line)
        return FAILED if refused else 0

    # Questions -----------------------------------------------------------------------------------------------------------------------

    async def _get(self, asked: Namespace, terminal: Terminal) -> int:
        kinds, names = _asked_for(asked.words)
        items, failed = await self._selected(kinds, names, asked, terminal)
        if failed and not items:
            return FAILED
        await self._print(items, kinds, asked, terminal, single=len(names) == 1)
        return FAILED if failed else 0

    async def _describe(self, asked: Namespace, terminal: Terminal) -> int:
        kinds, names = _asked_for(asked.words)
        known = [r.name for kind in kinds for r in self._of(kind, asked.namespace or DEFAULT)]
        full = [n for name in names for n in ([name] if name in known else [k for k in known if k.startswith(name)] or [name])]
        items, failed = await self._selected(kinds, full, asked, terminal)
        if items:
            await terminal.out("\n\n\n".join(described(r, self._live.mesh.resources) for r in items) + "\n")
        elif not failed:
            await terminal.say(_nothing_found(kinds, asked))
        return FAILED if failed else 0

    async def _selected(
        self, kinds: list[Named], names: list[str], asked: Namespace, terminal: Terminal
    ) -> tuple[list[Resource[Json]], bool]:
        """What is asked for, and whether something of it is missing, which is said."""
        items, failed = [], False
        for kind in kinds:
            found = self._of(kind, None if asked.all_namespaces else asked.namespace or DEFAULT)
            found = [r for r in found if _fits(r.metadata.labels, asked.selector)]
            for name in names:
                if not any(r.name == name for r in found):
                    await terminal.say(f'Error from server (NotFound): {kind.qualified_plural} "{name}" not found')
                    failed = True
            items += [r for r in found if not names or r.name in names]
        return items, failed

    async def _print(self, items: list[Resource[Json]], kinds: list[Named], asked: Namespace, terminal: Terminal, *, single: bool) -> None:
        form, _, template = asked.output.partition("=")
        values = [builtins(r) for r in items]
        whole = values[0] if single else {"apiVersion": "v1", "items": values, "kind": "List", "metadata": {"resourceVersion": ""}}
        if form == "jsonpath":
            await terminal.out(jsonpath.render(template, whole))
        elif form == "json":
            await terminal.out(msgspec.json.format(msgspec.json.encode(whole), indent=4).decode() + "\n")
        elif form == "yaml":
            await terminal.out(yaml.safe_dump(whole, sort_keys=False))
        elif form == "name":
            await terminal.out("".join(f"{find(r.kind).qualified}/{r.name}\n" for r in items))
        elif form not in ("", "wide"):
            raise MeshsimError(f'error: unable to match a printer suitable for the output format "{form}"')
        elif not items:
            await terminal.say(_nothing_found(kinds, asked))
        else:
            blocks = []
            for kind in kinds:
                of_kind = [r for r in items if r.kind == kind.kind]
                if of_kind:
                    shown = asked.all_namespaces and kind.namespaced
                    lines = tables.table(
                        kind.kind, of_kind, self._age, wide=form == "wide", namespaces=shown, labels=asked.show_labels, full=len(kinds) > 1
                    ).splitlines()
                    blocks.append("\n".join(lines[1:] if asked.no_headers else lines))
            await terminal.out("\n\n".join(blocks) + "\n")

    def _of(self, kind: Named, namespace: str | None) -> list[Resource[Json]]:
        if kind.kind == "Namespace":
            store = self._store.copy()
            for name in self._store.namespaces:
                if f"Namespace//{name}" not in store.by_id:
                    store.label(kind, "", name, {}, overwrite=False)
            found = [r for r in store.resources if r.kind == "Namespace"]
        else:
            found = [r for r in self._live.mesh.resources if r.kind == kind.kind]
        if namespace is not None and kind.namespaced:
            found = [r for r in found if r.namespace == namespace]
        return sorted(found, key=lambda r: (r.namespace, r.name))

    # Pods ----------------------------------------------------------------------------------------------------------------------------

    async def _logs(self, asked: Namespace, terminal: Terminal) -> int:
        if asked.selector:
            pods = [r for r in self._of(find("pod"), asked.namespace or DEFAULT) if _fits(r.metadata.labels, asked.selector)]
            members = [self._live.proxy(f"{r.namespace}/{r.name}") for r in pods if self._live.mesh.pod(f"{r.namespace}/{r.name}").proxy]
            if not members:
                await terminal.say(f"No resources found in {asked.namespace or DEFAULT} namespace.")
        elif asked.pod:
            members = [self._live.proxy(_full(self._place(asked.pod, asked.namespace)))]
        else:
            said = "error: POD or TYPE/NAME is a required argument for the logs command"
            raise MeshsimError(said)
        tail = asked.tail if asked.tail is not None else TAIL_OF_MANY if asked.selector else -1
        seen: dict[str, int] = {}
        for member in members:
            lines = member.log()
            seen[member.name] = len(lines)
            await terminal.out(_joined(lines[max(len(lines) - tail, 0) :] if tail >= 0 else lines))
        while asked.follow and not terminal.gone.is_set():
            await _wait(terminal.gone, _POLL)
            for member in members:
                lines = member.log()
                await terminal.out(_joined(lines[seen[member.name] :])) if len(lines) > seen[member.name] else None
                seen[member.name] = len(lines)
        return 0

    async def _exec(self, asked: Namespace, terminal: Terminal) -> int:
        if not asked.after:
            raise MeshsimError("error: you must specify at least one command for the container")
        place = self._place(asked.pod, asked.namespace)
        resource = next(r for r in self._live.mesh.resources if r.kind == "Pod" and (r.namespace, r.name) == (place.namespace, place.name))
        known = tables.containers(resource)
        if asked.container and known and asked.container not in known:
            raise MeshsimError(f"Error from server (BadRequest): container {asked.container} is not valid for pod {place.name}")
        pod = self._live.pod(_full(place))
        if place.proxy is not None:
            lacking = _CERTIFICATES if pod.enter is None else _CERTIFICATES[1:]
            done = await self._certificates(self._live.proxy(_full(place)), asked.after, lacking, terminal)
            if done is not None:
                return done
        if asked.tty and not terminal.kind:
            await terminal.say("Unable to use a TTY - input is not a terminal or the right kind of file")
        status = await run(pod, asked.after, terminal, stdin=asked.stdin)
        if status:
            if status == NO_SUCH_PROGRAM:
                await terminal.say(f'error: exec: "{asked.after[0]}": executable file not found in $PATH')
            await terminal.say(f"command terminated with exit code {status}")
        return status

    async def _capture(self, asked: Namespace, terminal: Terminal) -> int:
        place = self._place(asked.pod, asked.namespace)
        tap = self._live.tap(_full(place))
        try:
            to_stdout = asked.write == STDOUT
            out = os.fdopen(os.dup(terminal.stdout), "wb") if to_stdout else open(Path(terminal.folder, asked.write), "wb")  # noqa: SIM115
        except OSError as e:
            tap.close()
            raise MeshsimError(f"error: {asked.write}: {e.strerror}") from None
        with out:
            await terminal.say(f"listening in {_full(place)}; Ctrl-C ends the capture")
            count = await packets.record(tap, out, terminal.gone, asked.count)
        await terminal.say(f"{count} packets captured")
        return 0

    async def _certificates(self, member: Member, words: list[str], folders: tuple[str, ...], terminal: Terminal) -> int | None:
        """`cat` of a proxy's certificates in folders that its pod lacks here. None for any other command."""
        if words[0] == "cat" and words[1:] and all(w.startswith(folders) for w in words[1:]):
            files = member.workload.files
            known = {"cert-chain.pem": files.chain, "key.pem": files.key, "root-cert.pem": files.root}
            for word in words[1:]:
                file = known.get(word.rpartition("/")[2])
                if file is None:
                    await terminal.say(f"cat: {word}: No such file or directory")
                    return FAILED
                await terminal.out(Path(file).read_text())
            return 0
        return None

    def _place(self, name: str, namespace: str | None) -> PodPlace:
        bare = name.rpartition("/")[2]
        inside = [p for p in self._live.mesh.pods if p.namespace == (namespace or DEFAULT)]
        found = next((p for p in inside if bare == p.name), None) or next((p for p in inside if bare == p.app), None)
        if found is None:
            raise Rejected(f'Error from server (NotFound): pods "{bare}" not found')
        return found


def _full(place: PodPlace) -> str:
    return f"{place.namespace}/{place.name}"


def _try(step: Callable[[], str], said: list[str], refused: list[str]) -> None:
    try:
        said.append(step())
    except Rejected as e:
        refused.append(str(e))


def _named(words: Sequence[str]) -> list[tuple[Named, str]]:
    """`KIND NAME...` or `KIND/NAME...`. Raises MeshsimError."""
    if any("/" in w for w in words):
        return [(find(w.partition("/")[0]), w.partition("/")[2]) for w in words]
    if len(words) == 1:
        raise MeshsimError("error: resource(s) were provided, but no name was specified")
    return [(find(kind), name) for kind in words[0].split(",") for name in words[1:]] if words else []


def _nothing_found(kinds: list[Named], asked: Namespace) -> str:
    namespaced = kinds[0].namespaced and not asked.all_namespaces
    return f"No resources found in {asked.namespace or DEFAULT} namespace." if namespaced else "No resources found"


def _asked_for(words: Sequence[str]) -> tuple[list[Named], list[str]]:
    if "/" in words[0]:
        named = _named(words)
        return list(dict.fromkeys(kind for kind, _ in named)), [name for _, name in named]
    return [find(kind) for kind in words[0].split(",")], list(words[1:])


def _fits(labels: dict[str, str], selector: str) -> bool:
    """A selector of equalities: `a=b,c!=d,e,!f`."""
    for part in filter(None, selector.split(",")):
        key, unequal, value = part.partition("!=")
        if unequal and labels.get(key) == value:
            return False
        if unequal:
            continue
        key, equal, value = part.partition("=")
        if equal and labels.get(key) != value.lstrip("="):
            return False
        if not equal and (key.removeprefix("!") in labels) == key.startswith("!"):
            return False
    return True


def _joined(lines: Sequence[str]) -> str:
    return "".join(line.rstrip("\n") + "\n" for line in lines)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return
