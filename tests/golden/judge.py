"""How an answer compares with what the case's folder recorded."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any as Json

from tests.golden.compare import differences
from tests.golden.replay import Answer

LEVELS = (1, 2, 3)
EQUAL = LEVELS[-1] + 1
_NOTHING: Json = {"client": {}, "proxies": [], "servers": []}


@dataclass
class Verdict:
    """files: each recorded xds file and what differs in it ("" = equal). calls: the highest level up to which each call is equal
    (0 to 3) and what differs."""

    name: str
    files: dict[str, str] = field(default_factory=dict)
    calls: dict[str, tuple[int, list[str]]] = field(default_factory=dict)
    failed: bool = False

    @property
    def theme(self) -> str:
        return self.name.partition("-")[0]


def judge(answer: Answer, folder: Path, *, calls: bool = True) -> Verdict:
    """Compare with what `folder` holds; what was not recorded is not compared, nor calls that were not made."""
    verdict = Verdict(answer.name, failed=bool(answer.failed))
    for file in sorted((folder / "xds").glob("*.json")):
        verdict.files[file.stem] = difference(json.loads(file.read_text()), answer.xds.get(file.stem))
    recorded = folder / "outcomes.json"
    if calls and recorded.exists():
        got = {c["call"]: c for c in answer.calls}
        for call in json.loads(recorded.read_text())["calls"]:
            if not call.get("varies"):
                found = differences(call, got.get(call["call"], _NOTHING))
                worst = min((level for level, _ in found), default=EQUAL)
                verdict.calls[call["call"]] = (worst - 1, [f"{level}: {text}" for level, text in found])
    return verdict


def difference(want: Json, got: Json, path: str = "") -> str:
    """The first place where two JSON values differ, for people; "" when they are equal."""
    if want == got:
        return ""
    if isinstance(want, dict) and isinstance(got, dict):
        for key in sorted(want.keys() | got.keys()):
            if want.get(key) != got.get(key):
                return difference(want.get(key), got.get(key), f"{path}.{key}")
    if isinstance(want, list) and isinstance(got, list):
        named = {_name(v): v for v in got}
        for n, value in enumerate(want):
            other = named.get(_name(value)) if _name(value) else (got[n] if n < len(got) else None)
            if value != other:
                return difference(value, other, f"{path}[{_name(value) or n}]")
        extra = [v for v in got if v not in want]
        return f"{path}: not recorded: {_short(extra[0])}" if extra else f"{path}: in another order"
    return f"{path}: recorded {_short(want)}, compiled {_short(got)}"


def _name(value: Json) -> str:
    found = (value.get("name") or value.get("cluster_name") or "") if isinstance(value, dict) else ""
    return found if isinstance(found, str) else ""


def _short(value: Json) -> str:
    text = json.dumps(value)
    return text if len(text) < 160 else text[:157] + "..."


def table(verdicts: list[Verdict]) -> str:
    """Per theme: xds files equal, and calls equal on each of the cumulative levels."""
    counts: dict[str, Counter[str]] = {}
    for verdict in verdicts:
        for theme in (verdict.theme, "all"):
            count = counts.setdefault(theme, Counter())
            count["cases"] += 1
            count["failed"] += verdict.failed
            count["files"] += len(verdict.files)
            count["equal files"] += sum(not text for text in verdict.files.values())
            count["calls"] += len(verdict.calls)
            for level in LEVELS:
                count[f"level {level}"] += sum(reached >= level for reached, _ in verdict.calls.values())
    head = f"{'theme':8}{'cases':>7}{'xds equal':>15}{'1 answer':>15}{'2 way':>15}{'3 wire':>15}"
    rows = [head]
    for theme in sorted(counts, key=lambda t: (t == "all", t)):
        c = counts[theme]
        cells = [_of(c["equal files"], c["files"]), *(_of(c[f"level {level}"], c["calls"]) for level in LEVELS)]
        failed = f"  {c['failed']} failed" if c["failed"] else ""
        rows.append(f"{theme:8}{c['cases']:>7}" + "".join(f"{cell:>15}" for cell in cells) + failed)
    return "\n".join(rows)


def _of(part: int, whole: int) -> str:
    return f"{part}/{whole} {100 * part / whole:5.1f}%" if whole else "-"
