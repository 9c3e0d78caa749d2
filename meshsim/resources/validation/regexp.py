"""Whether Go's regexp (RE2 syntax) would compile an expression, and what it says when it would not.

How this works: one pass from left to right over the expression, as regexp/syntax does it, which builds nothing. All that must be remembered
is whether there is something to repeat, the repetition just seen, and the open groups. RE2 has no look-around, no back-references and
at most 1000 repetitions.
"""

from __future__ import annotations

import re

_LIMIT = 1000
_REPEAT = re.compile(r"\{(\d+)(?:(,)(\d*))?\}")
_POSIX = frozenset((
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper", "word", "xdigit",
))  # fmt: skip
_UNICODE = re.compile(r"\\[pP](?:([CLMNPSZclmnpsz])|\{\^?([A-Za-z_]+)\})")
_HEX = re.compile(r"\\x(?:[0-9a-fA-F]{2}|\{[0-9a-fA-F]+\})")
_HEX_BEGUN = re.compile(r"\\x(\{[0-9A-Fa-f]*.?|.{0,2})", re.DOTALL)
_OCTAL = re.compile(r"\\(?:0[0-7]{0,2}|[1-7][0-7]{1,2})")


def regex_error(text: str) -> str | None:
    """`error parsing regexp: ...`, or None."""
    try:
        _Parser(text).run()
    except _Wrong as wrong:
        return f"error parsing regexp: {wrong.what}: `{wrong.where}`"
    return None


class _Wrong(Exception):
    def __init__(self, what: str, where: str):
        self.what, self.where = what, where


class _Parser:
    def __init__(self, text: str):
        self._text, self._at = text, 0
        self._operand: int | None = None  # how often what stands before is repeated within itself; None: nothing stands before
        self._groups: list[int] = []  # the largest repetition seen so far in each open group
        self._largest = 1
        self._repetition: int | None = None  # where the repetition just read begins

    def run(self) -> None:
        while self._at < len(self._text):
            start, repetition = self._at, self._repetition
            self._repetition = None
            char = self._text[start]
            if char == "(":
                self._open()
            elif char == ")":
                self._close()
            elif char == "|":
                self._at, self._operand = start + 1, None
            elif char in "*+?":
                self._at = start + 1
                self._repeat(start, repetition, 1)
            elif char == "{" and (found := _REPEAT.match(self._text, start)):
                self._at = found.end()
                self._repeat(start, repetition, self._count(found))
            else:
                self._at = self._class(start) if char == "[" else self._escape(start) if char == "\\" else start + 1
                self._operand = 1
        if self._groups:
            raise _Wrong("missing closing )", self._text)

    def _open(self) -> None:
        text, start = self._text, self._at
        if text.startswith(("(?P<", "(?<"), start):
            self._at = self._name(start) + 1
        elif text.startswith("(?", start):
            self._at = end = self._flags(start)
            if text[end - 1] == ")":
                return  # flags alone change nothing of what stands there
        else:
            self._at = start + 1
        self._groups.append(self._largest)
        if len(self._groups) > _LIMIT:
            raise _Wrong("expression nests too deeply", text)
        self._largest, self._operand = 1, None

    def _name(self, start: int) -> int:
        """Where the name of a group ends."""
        end = self._text.find(">", start)
        name = self._text[self._text.index("<", start) + 1 : end]
        if end < 0 or not re.fullmatch("[A-Za-z0-9_]+", name):
            raise _Wrong("invalid named capture", self._text[start:] if end < 0 else self._text[start : end + 1])
        return end

    def _flags(self, start: int) -> int:
        """Behind `(?i)` or `(?i:`."""
        at, negative, any_flag = start + 2, False, True
        while at < len(self._text):
            char = self._text[at]
            at += 1
            if char in "imsU":
                any_flag = True
            elif char == "-" and not negative:
                negative, any_flag = True, False
            elif char in ":)" and any_flag:
                return at
            else:
                break
        raise _Wrong("invalid or unsupported Perl syntax", self._text[start:at])

    def _close(self) -> None:
        if not self._groups:
            raise _Wrong("unexpected )", self._text)
        self._at += 1
        self._operand = self._largest
        self._largest = max(self._groups.pop(), self._largest)

    def _count(self, found: re.Match[str]) -> int:
        low = int(found[1])
        high = low if found[2] is None else int(found[3]) if found[3] else -1
        if low > _LIMIT or high > _LIMIT or 0 <= high < low:
            raise _Wrong("invalid repeat count", found[0])
        return max(low, high, 1)

    def _repeat(self, start: int, repetition: int | None, times: int) -> None:
        if self._text.startswith("?", self._at):
            self._at += 1
        written = self._text[start : self._at]
        if repetition is not None:
            raise _Wrong("invalid nested repetition operator", self._text[repetition : self._at])
        if self._operand is None:
            raise _Wrong("missing argument to repetition operator", written)
        self._operand *= times
        if self._operand > _LIMIT:
            raise _Wrong("invalid repeat count", written)
        self._largest = max(self._largest, self._operand)
        self._repetition = start

    def _escape(self, start: int, *, in_class: bool = False) -> int:
        """Behind an escape sequence."""
        text = self._text
        if start + 1 == len(text):
            raise _Wrong("trailing backslash at end of expression", "")
        char = text[start + 1]
        if char in "pP":
            return self._unicode(start)
        if char in "dDsSwW" or char in "afnrtv" or (char in "AbBz" and not in_class):
            return start + 2
        if char == "Q" and not in_class:
            end = text.find("\\E", start)
            return len(text) if end < 0 else end + 2
        for pattern in (_HEX, _OCTAL):
            if found := pattern.match(text, start):
                return found.end()
        if char.isascii() and not char.isalnum():
            return start + 2
        read = _HEX_BEGUN.match(text, start)
        raise _Wrong("invalid escape sequence", read[0] if read else text[start : start + 2])

    def _unicode(self, start: int) -> int:
        if found := _UNICODE.match(self._text, start):
            return found.end()
        end = self._text.find("}", start) if self._text.startswith("{", start + 2) else start + 2
        raise _Wrong("invalid character class range", self._text[start:] if end < 0 else self._text[start : end + 1])

    def _class(self, start: int) -> int:
        """Behind `[...]`."""
        text = self._text
        at = start + (2 if text.startswith("^", start + 1) else 1)
        first = True
        while first or not text.startswith("]", at):
            first = False
            if text.startswith("[:", at) and (end := text.find(":]", at + 2)) >= 0:
                if text[at + 2 : end].removeprefix("^") not in _POSIX:
                    raise _Wrong("invalid character class range", text[at : end + 2])
                at = end + 2
                continue
            if text.startswith(("\\p", "\\P", "\\d", "\\D", "\\s", "\\S", "\\w", "\\W"), at):
                at = self._escape(at, in_class=True)
                continue
            low = at
            at = self._member(at, start)
            if text.startswith("-", at) and at + 1 < len(text) and text[at + 1] != "]":
                dash = at
                at = self._member(dash + 1, start)
                if _code(text[dash + 1 : at]) < _code(text[low:dash]):
                    raise _Wrong("invalid character class range", text[low:at])
        return at + 1

    def _member(self, at: int, start: int) -> int:
        if at >= len(self._text):
            raise _Wrong("missing closing ]", self._text[start:])
        return self._escape(at, in_class=True) if self._text[at] == "\\" else at + 1


_LETTERS = {"a": 7, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11}


def _code(written: str) -> int:
    """The code point of one member of a class."""
    if len(written) == 1:
        return ord(written)
    body = written[1:]
    if body[0] == "x":
        return int(body[1:].strip("{}"), 16)
    return int(body, 8) if body[0].isdigit() else _LETTERS.get(body, ord(body[0]))
