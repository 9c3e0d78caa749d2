"""Notice that a file of a proxy's folder was replaced.

How this works: a configuration is changed by renaming new files into place, so that is what is listened for, as Envoy does: with
inotify where Linux has it, else by comparing the files' ids and times twice a second. Several renames in a row are one change: it is
told when no other has followed for a moment.
"""

from __future__ import annotations

import asyncio
import ctypes
import ctypes.util
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

_MOVED_TO = 0x80  # IN_MOVED_TO
_FLAGS = os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0)
_TOGETHER = 0.02  # seconds in which renames belong to one change
_POLL = 0.5  # seconds between looks without inotify


class Watch:
    """Calls `changed` after renames into any of `folders`, until closed."""

    def __init__(self, folders: Iterable[Path], changed: Callable[[], None]):
        self._folders, self._changed = list(folders), changed
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._inotify = _inotify(self._folders)
        self._seen: frozenset[tuple[str, int, int]] = frozenset()
        if self._inotify is not None:
            self._loop.add_reader(self._inotify, self._on_event)
        else:
            self._seen = self._look()
            self._timer = self._loop.call_later(_POLL, self._poll)

    def close(self) -> None:
        """Closing twice is allowed."""
        if self._timer is not None:
            self._timer.cancel()
        if self._inotify is not None:
            self._loop.remove_reader(self._inotify)
            os.close(self._inotify)
            self._inotify = None

    def _on_event(self) -> None:
        assert self._inotify is not None
        os.read(self._inotify, 65536)  # which file it was does not matter: everything is read again
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(_TOGETHER, self._changed)

    def _poll(self) -> None:
        seen = self._look()
        self._timer = self._loop.call_later(_POLL, self._poll)
        if seen != self._seen:
            self._seen = seen
            self._changed()

    def _look(self) -> frozenset[tuple[str, int, int]]:
        found = set()
        for folder in self._folders:
            for entry in os.scandir(folder):
                if entry.name.endswith(".json"):
                    status = entry.stat()
                    found.add((entry.path, status.st_ino, status.st_mtime_ns))
        return frozenset(found)


def _inotify(folders: Iterable[Path]) -> int | None:
    """A descriptor that becomes readable on a rename into a folder; None where there is no inotify."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(ctypes.util.find_library("c") or None, use_errno=True)
    descriptor: int = library.inotify_init1(_FLAGS)
    if descriptor < 0:
        return None
    for folder in folders:
        if library.inotify_add_watch(descriptor, os.fsencode(folder), _MOVED_TO) < 0:
            os.close(descriptor)
            return None
    return descriptor
