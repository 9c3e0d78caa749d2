"""What the checks of one resource say, under the codes istioctl gives them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any as Json

from meshsim.analysis.catalogue import Documents
from meshsim.analysis.findings import CATALOG, Finding, full_name
from meshsim.errors import Problem
from meshsim.resources.resource import Resource
from meshsim.resources.validation import offline

_UNUSED_RULE = re.compile(r"virtualService rule (.+) not used \((.*)\)")
_UNUSED_MATCH = re.compile(r"virtualService rule (.+?) match (.+) is not used \(duplicate/overlapping match in rule (.+)\)")


def validation(documents: Documents) -> Iterator[Finding]:
    """IST0106, IST0130, IST0131, IST0133: what a resource's own text is reproached with."""
    for resources in documents.by_kind.values():
        for resource in resources:
            for problem in offline(resource):
                yield found(resource, problem)


def found(resource: Resource[Json], problem: Problem) -> Finding:
    """A problem of the validation as a finding."""
    code, values = _coded(problem)
    level, name, text = CATALOG[code]
    return Finding(code, level, text.format(*values), f"{resource.kind} {full_name(resource)}", problem.location, name)


def _coded(problem: Problem) -> tuple[str, tuple[str, ...]]:
    if problem.severity == "error":
        return "IST0106", (problem.message,)
    for code, pattern in (("IST0131", _UNUSED_MATCH), ("IST0130", _UNUSED_RULE)):
        said = pattern.fullmatch(problem.message)
        if said is not None:
            return code, said.groups()
    return "IST0133", (problem.message,)
