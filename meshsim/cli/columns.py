"""Text in a terminal's columns: how wide it shows, and where its lines may break.

A Chinese character takes two columns, and a line may break on either side of it; but no line begins with a closing mark or ends with an
opening one. Other text breaks at spaces, and a word that is wider than a line is cut.
Source: Unicode Standard Annex 11 (East Asian Width), and the rules for line starts and ends of Annex 14.
"""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Iterator

WIDTH = 80
_CLOSING = "。，、；：！？）》”’…"
_OPENING = "（《“‘"
_WORD = re.compile(r"""(?:[^\s'"\\]|\\.|'[^']*'|"(?:[^"\\]|\\.)*")+""")
_CONTINUED = " \\"  # how a command goes on
_SCRIPT = re.compile(r"(?<=[;|]) ")


def width(text: str) -> int:
    """The columns that a text takes."""
    return sum(map(_columns, text))


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def fill(text: str, first: str = "", rest: str | None = None) -> str:
    """The text in lines no wider than a screen; the first begins with `first`, the others with `rest` (without it, as many spaces)."""
    return "\n".join(_lines(text, first, " " * width(first) if rest is None else rest))


def _lines(text: str, first: str, rest: str) -> Iterator[str]:
    line, empty = first, True
    for gap, piece in _pieces(text):
        if not empty and width(line) + width(gap) + width(piece) > WIDTH:
            yield line
            line, empty = rest, True
        line += piece if empty else gap + piece
        empty = False
        while width(line) > WIDTH:
            end = _fitting(line)
            yield line[:end]
            line = rest + line[end:]
    yield line


def _fitting(line: str) -> int:
    """How many characters of a line there is room for."""
    used = 0
    for number, character in enumerate(line):
        used += _columns(character)
        if used > WIDTH:
            return number
    return len(line)


def _pieces(text: str) -> Iterator[tuple[str, str]]:
    """What must stay together, each with the space before it."""
    gap = ""
    for word in re.split(r"(\s+)", text.strip()):
        if word.isspace():
            gap = " "
            continue
        start = 0
        for at in range(1, len(word)):
            before, after = word[at - 1], word[at]
            wide = _columns(before) == 2 or _columns(after) == 2
            if wide and after not in _CLOSING and before not in _OPENING:
                yield gap, word[start:at]
                gap, start = "", at
        yield gap, word[start:]
        gap = ""


def command(line: str, prompt: str) -> str:
    """A shell command behind a prompt, as it can be typed: continued after a backslash between its words, and in a script for `sh -c` at
    the places where the shell lets a line end."""
    (_, first), *others = _words(line)
    lines, begins = [prompt + first], " " * (len(prompt) + 2)
    for ending, word in others:
        if width(lines[-1]) + 1 + width(word) + len(_CONTINUED) <= WIDTH:
            lines[-1] += f" {word}"
        else:
            lines[-1] += ending
            lines.append(begins + word)
    return "\n".join(lines)


def _words(line: str) -> Iterator[tuple[str, str]]:
    """Each word of a command, or statement of its script, with what ends a line before it."""
    script = shlex.split(line)[:2] == ["sh", "-c"]
    for word in _WORD.findall(line):
        first, *others = _SCRIPT.split(word) if script else [word]
        yield _CONTINUED, first
        yield from (("", statement) for statement in others)
