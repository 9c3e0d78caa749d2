"""Errors a person sees, and where in their YAML each one is.

Every exception meshsim raises on purpose derives from `MeshsimError`; the command line prints its text and no traceback.
Anything else that escapes is a bug in meshsim.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Location:
    """A place in a YAML file; line and column count from 1, as editors do. Column 0: the whole line."""

    file: str
    line: int
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.column else f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to tell the author of a file: an error, or a warning that does not stop anything."""

    severity: str  # "error" | "warning"
    message: str
    location: Location | None = None
    resource: str = ""  # Kind/namespace/name
    hint: str = ""  # the nearest name, or what is allowed

    def __str__(self) -> str:
        place = f"{self.location}: " if self.location else ""
        resource = f"{self.resource}: " if self.resource else ""
        hint = f"; {self.hint}" if self.hint else ""
        return f"{place}{self.severity}: {resource}{self.message}{hint}"


class MeshsimError(Exception):
    """Something the user can mend; the text says what and where."""


class ConfigError(MeshsimError):
    """Every problem found in the given YAML, at once."""

    def __init__(self, problems: list[Problem]):
        self.problems = problems
        super().__init__("\n".join(str(p) for p in problems))


class NotSimulated(MeshsimError):
    """Valid Istio that meshsim does not model yet; names the field so that nobody takes silence for an answer."""

    def __init__(self, field: str, location: Location | None = None):
        self.field, self.location = field, location
        super().__init__(f"{location}: not simulated yet: {field}" if location else f"not simulated yet: {field}")
