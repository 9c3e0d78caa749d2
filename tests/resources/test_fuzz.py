"""Documents that are almost right: recorded ones with a few parts replaced or removed.

Whatever comes of them, nothing but a MeshsimError may be raised, and the quick verdict that a mesh is loaded with is that of the whole
validation.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any as Json

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import meshsim
from meshsim import resources
from meshsim.errors import MeshsimError
from meshsim.resources.validation import rejected, validate

GOLDEN = Path(__file__).parent.parent / "golden"
BASE = (GOLDEN / "base.yaml").read_text()
CASES = [
    [document for document in yaml.load_all(file.read_text(), Loader=yaml.CSafeLoader) if document][1:]
    for file in sorted(GOLDEN.glob("cases/*/case.yaml"))
]
DOCUMENTS = [document for case in CASES for document in case if "istio.io" in document["apiVersion"]]
ODD = [
    None, "", 0, -1, 70000, 2**40, True, [], {}, "a_b", "*", "*.com", "5s", "0s", "1.5ms", "no", "x" * 300, [None], {"a": None},
    "10.0.0.0/33", "[::]", "a.b.c", 1.5, ["a"], [{}], "DNS", ".", "~", "mesh", "(a", "{*}/{x}", "%A", "unix:///x", "100", "SIMPLE", 2,
    "@request.auth.claims.x",
]  # fmt: skip


def places(value: Json, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if path:
        yield path
    for name, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(item, (*path, name))


def spoil(document: dict[str, Json], rng: random.Random, times: int) -> None:
    """Replace or remove parts of a document's spec."""
    for _ in range(times):
        found = list(places(document.get("spec") or {}))
        if not found:
            return
        path = rng.choice(found)
        holder = document["spec"]
        for step in path[:-1]:
            holder = holder[step]
        if rng.random() < 0.25:
            del holder[path[-1]]
        else:
            holder[path[-1]] = copy.deepcopy(rng.choice(ODD))


def check_document(seed: int) -> None:
    rng = random.Random(seed)
    document = copy.deepcopy(rng.choice(DOCUMENTS))
    spoil(document, rng, rng.randint(1, 3))
    loaded = resources.loads(json.dumps(document))
    problems = validate(loaded)
    wrong = any(p.severity == "error" for p in problems)
    assert bool(loaded.resources) or wrong, (loaded.problems, document)
    if not any("proto name" in p.message for p in loaded.problems):
        assert [rejected(resource) for resource in loaded.resources] == [wrong] * len(loaded.resources), document


def check_mesh(seed: int, folder: Path) -> None:
    rng = random.Random(seed)
    documents = copy.deepcopy(rng.choice(CASES))
    spoil(rng.choice(documents), rng, 1)
    file = folder / "mesh.yaml"
    file.write_text(yaml.safe_dump_all(documents) + "---\n" + BASE)
    try:
        mesh = meshsim.load(file)
        for proxy in mesh.proxies:
            mesh.config(proxy)
        for url in ("http://edition.cnn.com/politics", "https://edition.cnn.com/", "tcp://203.0.113.9:3306"):
            mesh.simulate("sleep", url)
    except MeshsimError as e:
        assert str(e)


SEEDS = st.integers(0, 2**32)


@given(SEEDS)
@settings(max_examples=200, deadline=None)
def test_spoiled_documents_get_one_verdict(seed: int) -> None:
    check_document(seed)


@given(SEEDS)
@settings(max_examples=40, deadline=None)
def test_spoiled_meshes_are_refused_or_work(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    check_mesh(seed, tmp_path_factory.getbasetemp())


@pytest.mark.fuzz
@given(SEEDS)
@settings(max_examples=2000, deadline=None)
def test_many_spoiled_documents_get_one_verdict(seed: int) -> None:
    check_document(seed)


@pytest.mark.fuzz
@given(SEEDS)
@settings(max_examples=200, deadline=None)
def test_many_spoiled_meshes_are_refused_or_work(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    check_mesh(seed, tmp_path_factory.getbasetemp())
