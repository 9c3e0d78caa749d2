"""Plain text for a terminal: tables, and a source line with its marker."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from meshsim.errors import Location


def table(head: Sequence[str], rows: Iterable[Sequence[str]], gap: int = 5) -> str:
    """Columns aligned with spaces, as kubectl and istioctl print them; the last one is not padded."""
    lines = [head, *rows]
    widths = [max(len(line[n]) for line in lines) + gap for n in range(len(head) - 1)]
    return "\n".join("".join(f"{cell:<{w}}" for cell, w in zip(line, widths, strict=False)) + line[-1] for line in lines)


def excerpt(location: Location) -> str:
    """The line of a file with a marker under the word at that place; empty when the file cannot be read again."""
    lines = _lines(location.file)
    if not 0 < location.line <= len(lines):
        return ""
    line = lines[location.line - 1].rstrip()
    start = max(location.column - 1, 0)
    word = line[start:].split(":", 1)[0] if ":" in line[start:] else line[start:]
    marker = " " * start + "^" * max(len(word.rstrip()), 1)
    return f"{location.line:>6} | {line}\n{'':>6} | {marker}"


@cache
def _lines(file: str) -> list[str]:
    try:
        return Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []


def count(number: int, noun: str) -> str:
    """`1 error`, `2 errors`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
