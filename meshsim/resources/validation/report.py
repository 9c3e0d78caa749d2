"""What the checks of one resource find: messages in Istio's words, each at its field."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from meshsim.errors import Problem
from meshsim.resources.reader import Path, Source


class Report:
    """Collects the problems of one resource; paths are relative to its spec. `given` names the fields its spec sets, empty ones too."""

    def __init__(self, source: Source, resource: str, given: frozenset[str] = frozenset()):
        self._source, self._resource = source, resource
        self.problems: list[Problem] = []
        self.given: frozenset[str] = given
        self._prefix = ""

    def prefixed(self, prefix: str) -> Report:
        """A view of this report that puts `prefix` before its errors, not before its warnings."""
        view = Report(self._source, self._resource, self.given)
        view.problems, view._prefix = self.problems, prefix
        return view

    def error(self, message: str, *path: str | int) -> None:
        self._add("error", self._prefix + message, ("spec", *path))

    def warn(self, message: str, *path: str | int) -> None:
        self._add("warning", message, ("spec", *path))

    def check(self, message: str | None, *path: str | int) -> None:
        """An error where a check of `names` has something to say."""
        if message is not None:
            self.error(message, *path)

    def at(self, message: str, path: Path, hint: str = "", severity: str = "error") -> None:
        """A problem at a path from the document's root."""
        self._add(severity, message, path, hint)

    def _add(self, severity: str, message: str, path: Path, hint: str = "") -> None:
        self.problems.append(Problem(severity, message.rstrip(), self._source.locate(path), self._resource, hint))

    @contextmanager
    def without_warnings(self, quiet: bool = True) -> Iterator[None]:
        """Drop the warnings of what is checked inside: Istio loses some on their way to the user."""
        before = len(self.problems)
        yield
        if quiet:
            self.problems[before:] = [p for p in self.problems[before:] if p.severity == "error"]

    @property
    def failed(self) -> bool:
        return any(p.severity == "error" for p in self.problems)
