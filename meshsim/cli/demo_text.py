"""A step of a walk-through as lines of a terminal: 80 columns, no colour needed, in the language of its reader."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

from meshsim.cli import columns, wire_text
from meshsim.mesh import Mesh
from meshsim.network.choice import NETNS, Choice
from meshsim.walkthrough import Played, Step, Walkthrough, wording
from meshsim.words import Words

MOST_LINES = 14  # of a command's output
_URL = re.compile(r"https?://[^\s'\"]+")
_LABEL = 10  # columns of `ok` and `not ok`


def heading(walkthrough: Walkthrough, mesh: Mesh, choice: Choice, words: Words) -> Iterator[str]:
    """What is played, and where."""
    yield columns.fill(walkthrough.title(words.language))
    pods = ", ".join(f"{p.app}.{p.namespace}" for p in mesh.pods if p.proxy)
    yield columns.fill(words("processes", pods=pods))
    key = "netns" if choice.kind == NETNS else "loopback because" if choice.missing else "loopback"
    yield columns.fill(words(key, missing=choice.missing))


def title(number: int, total: int, step: Step, words: Words) -> str:
    """The number and title of a step."""
    return columns.fill(wording(step, words.language).title, f" {words('step', number=number, total=total)}   ")


def commands(step: Step, folder: Path, words: Words) -> Iterator[str]:
    """What is done in a step, as a person would type it."""
    if text := wording(step, words.language).text:
        yield columns.fill(text, "   ")
    for name in step.apply:
        yield f"   $ kubectl apply -f {name}"
        yield textwrap.indent((folder / name).read_text().rstrip(), "     ")
    for name in step.delete:
        yield f"   $ kubectl delete {name.lower()}"
    if step.run:
        yield columns.command(step.run, "   $ ")


def outcome(played: Played, words: Words) -> Iterator[str]:
    """What came of it: what the command printed, what the proxies wrote and counted."""
    printed = played.output.replace("\r", "").splitlines()
    for line in (f"   {line}" for line in printed[:MOST_LINES]):
        yield line if columns.width(line) <= columns.WIDTH else columns.fill(line, "   ", "     ")
    if len(printed) > MOST_LINES:
        yield f"   {words('left out', count=len(printed) - MOST_LINES)}"
    if played.exit:
        yield f"   {words('exit', status=played.exit)}"
    for pod, entries in played.log.items():
        yield f"   {words('logged' if entries else 'logged nothing', pod=pod)}"
        yield from (columns.fill(entry, "     ", "       ") for entry in entries)
    for (pod, name), (before, after) in played.counters.items():
        yield f"   {words('counter', pod=pod)}"
        yield columns.fill(f"{name}: {before} -> {after}", "     ", "       ")


def verdict(played: Played, mesh: Mesh, words: Words) -> Iterator[str]:
    """What is not as the page shows; or what is, in a few words."""
    for failure in played.failures:
        yield columns.fill(failure, _label(words("not ok")))
    if played.step.run and not played.failures:
        yield columns.fill(_shown(played.step, mesh, words), _label(words("ok")))


def _label(word: str) -> str:
    return f"   {word}{' ' * (_LABEL - columns.width(word))}"


def _shown(step: Step, mesh: Mesh, words: Words) -> str:
    """What the page shows of this step."""
    expect = step.expect
    found = [", ".join(filter(None, (f"{r.version} {r.status}".strip() for r in expect.responses)))]
    found += [words("exit", status=expect.exit)] if expect.exit else expect.output
    seen = {entry.pod: entry.absent for entry in expect.log if mesh.pod(entry.pod).is_gateway}
    found += [words("saw nothing" if absent else "saw", pod=pod) for pod, absent in seen.items()]
    return words("also").join(filter(None, found))


def picture(step: Step, mesh: Mesh, words: Words) -> Iterator[str]:
    """Who spoke what to whom: the same mesh, walked without a socket."""
    urls = _URL.findall(step.run)
    if "--connect-to" in step.run:  # which sends the request elsewhere than its URL says
        return
    if urls and (trace := mesh.simulate(step.sender, urls[0])).hops:
        yield from wire_text.short(trace, words, "   ")
