"""When a simulated exchange ends by itself: the route's timeout, the longest a stream may take, how long it may do nothing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from meshsim.routing.exchange import Exchange
from meshsim.routing.steps import Step


class Limit(NamedTuple):
    """`act` at `when`, if the exchange is still waiting then."""

    when: float
    act: Callable[[], Step]


def soonest(this: Exchange, start: float, routed: float | None) -> Limit | None:
    """The limit that is reached first by an exchange that began at `start`, and whose route's timeout counts from `routed`.

    A simulated request is complete when it begins and nothing of its response moves before the whole is there: a stream that waits is idle.
    """
    limits = []
    if routed is not None:
        limits.append(Limit(routed + this.timeout, this.timed_out))
    if this.longest:
        limits.append(Limit(start + this.longest, this.lasted_too_long))
    if this.idle_timeout:
        limits.append(Limit(start + this.idle_timeout, partial(this.idle, request_complete=True)))
    return min(limits, key=lambda limit: limit.when, default=None)
