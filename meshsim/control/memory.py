"""What was compiled before: a part that is made from the very same things is not made again.

How this works: an update replaces one resource among thousands. `recall(key, make)` gives the part that is known under the key, else makes
it. A key holds everything its part is made from: resources, and other parts, by identity, for none of them changes once it is there. So
nothing has to be declared stale: what has changed asks under another key. What an index did not ask for is forgotten by the next but one.

Where a part is made from something that is built anew each time, a `token` stands for it, the same as long as it is equal. A `stage`
is a part made of parts: while its own key stays the same nobody asks for those, so it keeps them itself.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any as Json
from typing import NamedTuple, TypeVar

T = TypeVar("T")
Key = tuple[Hashable, ...]


class Token:
    """Stands in keys for a value."""

    __slots__ = ()


class _Stage(NamedTuple):
    key: Key
    memory: Memory
    value: Json


class Memory:
    """Parts by their keys, and those of the memory before it."""

    def __init__(self, before: Memory | None = None):
        self._parts: dict[Hashable, tuple[Hashable, Json]] = {}  # with its key, so that no second one like it has to be kept
        self._older: dict[Hashable, tuple[Hashable, Json]] = before._parts if before else {}

    def recall(self, key: Key, make: Callable[[], T]) -> T:
        """The part of that key."""
        found = self._parts.get(key) or self._older.get(key)
        if found is None:
            return self._keep(key, make())
        self._parts[found[0]] = found
        value: T = found[1]
        return value

    def token(self, name: Hashable, value: Json) -> Token:
        """What stands for the value of that name in keys: the same as long as the value is equal, for resources: as they are the same."""
        known: tuple[Json, Token] | None = self._known((Token, name))
        if known is None or known[0] != value:
            known = self._keep((Token, name), (value, Token()))
        return known[1]

    def stage(self, name: Hashable, key: Key, make: Callable[[Memory], T]) -> T:
        """The part of that name, made anew with what its maker remembers when the key is another."""
        known: _Stage | None = self._known((_Stage, name))
        if known is None or known.key != key:
            memory = Memory(known.memory if known else None)
            known = self._keep((_Stage, name), _Stage(key, memory, make(memory)))
        value: T = known.value
        return value

    def _known(self, key: Key) -> Json:
        found = self._parts.get(key)
        if found is None:
            found = self._older.get(key)
            if found is None:
                return None
            self._parts[found[0]] = found
        return found[1]

    def _keep(self, key: Key, value: T) -> T:
        self._parts[key] = key, value
        return value
