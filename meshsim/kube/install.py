"""The words of `istioctl install` as an IstioOperator."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any as Json

import yaml

from meshsim.errors import MeshsimError
from meshsim.installation import KIND
from meshsim.resources import reader

_STEP = re.compile(r"([A-Za-z0-9_-]+)((?:\[\d+\])*)")
MOST_MEMBERS = 100  # of a list that --set fills


def operator(sets: Iterable[str], files: Iterable[tuple[str, str]]) -> str:
    """One IstioOperator as YAML: what the files say, and over it each `PATH=VALUE`. Raises MeshsimError."""
    whole: dict[str, Json] = {"apiVersion": "install.istio.io/v1alpha1", "kind": KIND}
    whole["metadata"] = {"name": "installed-state", "namespace": "istio-system"}
    for name, text in files:
        for document in _documents(name, text):
            whole = _over(whole, document)
    for word in sets:
        path, equals, value = word.partition("=")
        if not equals:
            raise MeshsimError(f"Error: --set takes PATH=VALUE, found {word!r}")
        read = reader.values(value, f"--set {path}")
        _set(whole.setdefault("spec", {}), path, read[0] if read else None)
    return yaml.safe_dump(whole, sort_keys=False)


def _documents(name: str, text: str) -> Iterable[dict[str, Json]]:
    for document in reader.values(text, name):
        if not isinstance(document, dict) or document.get("kind", KIND) != KIND:
            raise MeshsimError(f"Error: {name}: an {KIND} is wanted here")
        yield document


def _over(under: Json, over: Json) -> Json:
    """One value over another: mappings are joined, everything else is replaced."""
    if isinstance(under, Mapping) and isinstance(over, Mapping):
        return {**under, **{key: _over(under.get(key), value) for key, value in over.items()}}
    return over


def _set(into: dict[str, Json], path: str, value: Json) -> None:
    """`components.egressGateways[0].enabled`, made where it is not there."""
    place: Json = into
    steps: list[str | int] = []
    for part in path.split("."):
        found = _STEP.fullmatch(part)
        if found is None:
            raise MeshsimError(f"Error: --set: {path!r} is no path")
        steps += [found[1], *(int(n) for n in re.findall(r"\d+", found[2]))]
    for step, following in zip(steps, [*steps[1:], None], strict=True):
        if isinstance(step, int) != isinstance(place, list):
            raise MeshsimError(f"Error: --set: {path!r} does not fit what is there")
        if isinstance(step, int):
            if step >= MOST_MEMBERS:
                raise MeshsimError(f"Error: --set: {path!r}: no list is that long")
            place += [None] * (step + 1 - len(place))
        empty: Json = value if following is None else [] if isinstance(following, int) else {}
        if following is None or (place.get(step) if isinstance(place, dict) else place[step]) is None:
            place[step] = empty
        place = place[step]
