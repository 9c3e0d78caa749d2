"""How connections end, as a table of what happens when; the same state machine that sockets follow."""

from __future__ import annotations

import pytest

from meshsim.routing.lifetime import IDLE_TIMEOUT, MAX_DURATION, Lifetime, Limits, Stage

OPEN, DRAINING, CLOSING = Stage
ALL = Limits(idle=10, longest=100, requests=3, drain=5)

# (limits, what happens as (time, event), when to look, has the client spoken, the stage then, the limit that was reached)
ENDS: list[tuple[Limits, list[tuple[float, str]], float, bool, Stage, str]] = [
    (ALL, [], 9, False, OPEN, ""),
    (ALL, [], 10, False, CLOSING, IDLE_TIMEOUT),
    (ALL, [(1, "busy")], 50, True, OPEN, ""),
    (ALL, [(1, "busy"), (30, "free")], 39, True, OPEN, ""),
    (ALL, [(1, "busy"), (30, "free")], 40, True, DRAINING, IDLE_TIMEOUT),
    (ALL, [(1, "busy"), (30, "free"), (40, "check")], 44, True, DRAINING, ""),
    (ALL, [(1, "busy"), (30, "free"), (40, "check")], 45, True, CLOSING, ""),
    (ALL, [(1, "busy")], 100, True, DRAINING, MAX_DURATION),
    (ALL, [(99, "busy"), (99, "free")], 100, False, CLOSING, MAX_DURATION),
    (Limits(idle=0), [], 1e9, False, OPEN, ""),
    (ALL, [(1, "drain")], 5, True, DRAINING, ""),
    (ALL, [(1, "drain")], 6, True, CLOSING, ""),
]


@pytest.mark.parametrize(("limits", "events", "at", "spoken", "stage", "reached"), ENDS)
def test_how_a_connection_ends(
    limits: Limits, events: list[tuple[float, str]], at: float, spoken: bool, stage: Stage, reached: str
) -> None:
    life = Lifetime(limits, 0.0)
    for when, event in events:
        if event == "busy":
            life.busy()
        elif event == "check":
            life.check(when, spoken=spoken)
        else:
            getattr(life, event)(when)
    assert (life.check(at, spoken=spoken), life.stage) == (reached, stage)


def test_the_last_request_is_known_when_it_begins() -> None:
    life = Lifetime(ALL, 0.0)
    assert [life.busy() for _ in range(4)] == [False, False, True, False]


def test_there_is_always_a_time_to_look_again_until_it_closes() -> None:
    life = Lifetime(ALL, 0.0)
    assert life.due(0) == 10
    life.busy()
    assert life.due(50) == 10  # busy: at the earliest then
    life.drain(60)
    assert life.due(61) == 4
    life.close()
    assert life.due(62) == 0
