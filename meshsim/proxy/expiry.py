"""The timer behind a connection's `Lifetime`: asks it when something can be due, and has the connection do what it says.

There is one timer per connection, set to the earliest moment anything can happen if nothing else does; a request in between only makes
the next look come for nothing, so that requests need not touch it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from meshsim.routing.lifetime import Lifetime, Stage

if TYPE_CHECKING:
    from meshsim.proxy.core import Core
    from meshsim.routing.manager import Manager


class Ending(Protocol):
    """A connection with a lifetime."""

    @property
    def spoken(self) -> bool:
        """Whether the client has sent anything."""

    def ask_to_go(self) -> None:
        """Tell the client to send no more requests here, where its protocol can."""

    def drain(self) -> None:
        """End it as soon as nothing is under way."""


class Expiry:
    """One connection's."""

    def __init__(self, core: Core, manager: Manager, lifetime: Lifetime, connection: Ending):
        self._core, self._manager = core, manager
        self._connection: Ending | None = connection
        self.lifetime = lifetime
        self._timer: asyncio.TimerHandle | None = None
        self._set()

    def retire(self) -> None:
        """The client shall go, because what it is connected to was replaced."""
        if self._connection is not None:
            self.lifetime.drain(self._core.loop.time())
            self._connection.ask_to_go()
            self._set()

    def stop(self) -> None:
        """The connection is no more, or another's; nothing here holds on to it."""
        self._cancel()
        self._connection = None

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self) -> None:
        self._cancel()
        left = self.lifetime.due(self._core.loop.time())
        if left:
            self._timer = self._core.loop.call_later(left, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._connection is None:
            return
        before = self.lifetime.stage
        reached = self.lifetime.check(self._core.loop.time(), spoken=self._connection.spoken)
        if reached:
            self._core.count(self._manager, reached)
        if self.lifetime.stage is Stage.CLOSING:
            self._connection.drain()
            return
        if self.lifetime.stage is not before:
            self._connection.ask_to_go()
        self._set()
