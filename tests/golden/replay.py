"""Replay one case on an engine: every answer first, then the files, and only then a look at what was recorded.

How this works: `replay` reads the case, compiles it, hands it to an engine and turns whatever happens into the recorded form; a case
that raises or takes too long still has an outcome for each call. An engine is a function from a case and its compiled configuration
to the outcomes of its calls.
"""

from __future__ import annotations

import json
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any as Json

from meshsim import xds
from meshsim.errors import NotSimulated
from tests.golden import case as cases
from tests.golden.case import Case
from tests.golden.slim import slim

GUARD = 60  # seconds for one case
LISTS = ("listeners", "clusters", "routes", "endpoints")
Outcome = dict[str, Json]
Engine = Callable[[Case, dict[str, xds.ProxyConfig]], list[Outcome]]


@dataclass
class Answer:
    """What replaying one case gave. failed: why it could not be replayed to its end, for people."""

    name: str
    calls: list[Outcome] = field(default_factory=list)
    xds: dict[str, Json] = field(default_factory=dict)  # by proxy; slimmed
    whole: dict[str, Json] = field(default_factory=dict)
    failed: str = ""


class Overtime(Exception):
    """The case passed its time."""


def replay(folder: Path, engine: Engine, base: Path = cases.BASE) -> Answer:
    """The engine's answer to the case in `folder`; never raises for what a case does."""
    answer = Answer(folder.name)
    case: Case | None = None
    try:
        with _guard():
            case = cases.read(folder, base)
            configs = case.compile()
            for name, config in configs.items():
                answer.whole[name] = whole(config)
                answer.xds[name] = slim(answer.whole[name])
            answer.calls = engine(case, configs)
            answer.failed = "".join(call.pop("traceback", "") for call in answer.calls)
    except NotSimulated as e:
        answer.calls = _all_calls(case, f"not simulated: {e.field}")
    except Exception as e:  # a case that raises is an outcome too
        words = "passed 60 seconds" if isinstance(e, Overtime) else f"{type(e).__name__}: {e}"
        answer.calls = _all_calls(case, f"internal: {words}")
        answer.failed = "".join(traceback.format_exception(e))
    return answer


def whole(config: xds.ProxyConfig) -> Json:
    """A proxy's configuration as JSON values, with all four lists."""
    value = json.loads(xds.encode(config))
    return {**{kind: [] for kind in LISTS}, **value}


def write(answer: Answer, out: Path | None, full_xds: Path | None) -> None:
    """The files of one case."""
    if out:
        _put(out / answer.name / "outcomes.json", {"case": answer.name, "calls": answer.calls})
        for proxy, config in answer.xds.items():
            _put(out / answer.name / "xds" / f"{proxy}.json", config)
    if full_xds:
        for proxy, config in answer.whole.items():
            _put(full_xds / answer.name / "xds" / f"{proxy}.json", config)


def _put(path: Path, value: Json) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def _all_calls(case: Case | None, error: str) -> list[Outcome]:
    return [{"call": c.get("name", ""), "client": {"error": error}, "proxies": [], "servers": []} for c in (case.calls if case else [])]


@contextmanager
def _guard() -> Iterator[None]:
    """Raise Overtime in here after GUARD seconds. Signals reach only the main thread; elsewhere there is no guard."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def over(_number: int, _frame: FrameType | None) -> None:
        raise Overtime

    before = signal.signal(signal.SIGALRM, over)
    signal.alarm(GUARD)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
