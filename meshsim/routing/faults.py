"""Injected faults: a delay, an abort, or both, for a share of the requests."""

from __future__ import annotations

import random
from typing import NamedTuple

from meshsim.routing import routes
from meshsim.xds.http_filters import HttpFault
from meshsim.xds.message import FractionalPercent, RuntimeFractionalPercent, seconds


class Fault(NamedTuple):
    """What befalls one request: seconds of delay, then a status (with a gRPC status where that was asked for); None for neither."""

    delay: float | None
    status: int | None
    grpc: int | None = None


def drawn(config: HttpFault, rng: random.Random) -> Fault | None:
    """Throw the dice for one request; None where nothing befalls it."""
    delay: float | None = None
    if config.delay is not None and config.delay.fixed_delay and _hit(config.delay.percentage, rng):
        delay = seconds(config.delay.fixed_delay)
    status: int | None = None
    grpc: int | None = None
    if config.abort is not None and _hit(config.abort.percentage, rng):
        grpc = config.abort.grpc_status
        status = 200 if grpc is not None else config.abort.http_status
    return Fault(delay, status, grpc) if delay is not None or status is not None else None


def _hit(share: FractionalPercent | None, rng: random.Random) -> bool:
    return share is not None and routes.chance(RuntimeFractionalPercent(default_value=share), rng)
