"""The texts behind what a user names: files, folders, standard input."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from meshsim.errors import ConfigError, Location, Problem

_PACKAGE = Path(__file__).resolve().parent
HOMES = (_PACKAGE.parent, _PACKAGE / "_shipped")  # of a checkout's samples, and of a wheel's


def shipped(name: str) -> str:
    """A path as given, or where there is none, the sample of that name that came with meshsim (`samples/sleep/sleep.yaml`)."""
    if name.startswith("samples/") and not Path(name).exists():
        return next((str(home / name) for home in HOMES if (home / name).exists()), name)
    return name


def texts(sources: Iterable[str | Path], stdin: str | None) -> Iterator[tuple[str, str]]:
    """The name and text of each file that `load` would read."""
    for source in sources:
        if str(source) == "-":
            yield "<stdin>", sys.stdin.read() if stdin is None else stdin
            continue
        path = Path(source)
        found = sorted(p for p in path.iterdir() if p.suffix in (".yaml", ".yml")) if path.is_dir() else [path]
        if not found:
            raise ConfigError([Problem("error", "no *.yaml or *.yml files in this folder", Location(str(path), 1))])
        for file in found:
            try:
                yield str(file), file.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as e:
                reason = e.strerror if isinstance(e, OSError) else "not UTF-8 text"
                raise ConfigError([Problem("error", str(reason), Location(str(file), 1))]) from None
