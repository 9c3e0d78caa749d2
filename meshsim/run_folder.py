"""The run folder of a live mesh: private, locked while its mesh lives, and swept away when its owner died.

Everything a live mesh leaves on the machine is in here: sockets, xds files, keys, logs. The path is short because Unix sockets'
paths are.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import shutil
import tempfile
from pathlib import Path

PREFIX = "meshsim-"
LOCK = "lock"
BASE_VARIABLE = "MESHSIM_RUN"
_IN_MEMORY = Path("/dev/shm")


def base() -> Path:
    """Where run folders are made: $MESHSIM_RUN, else /tmp where it exists, since $TMPDIR is too long for sockets on macOS."""
    if BASE_VARIABLE in os.environ:
        return Path(os.environ[BASE_VARIABLE])
    return Path("/tmp") if os.access("/tmp", os.W_OK) else Path(tempfile.gettempdir())


def brief_base() -> Path:
    """Where those of brief meshes are made: in memory where there is a place for it (Linux). On a disk, making and deleting their files
    takes longer than all the rest of such a mesh."""
    if BASE_VARIABLE not in os.environ and os.access(_IN_MEMORY, os.W_OK | os.X_OK):
        return _IN_MEMORY
    return base()


class RunFolder:
    """A new folder, mode 0700, whose lock this process holds until `remove` or its own end. brief: of a mesh within this process."""

    def __init__(self, *, brief: bool = False) -> None:
        _sweep_once()
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=brief_base() if brief else base()))
        self._lock = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def remove(self) -> None:
        """Delete it with everything inside. Removing twice is allowed."""
        if self._lock >= 0:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._lock)
            self._lock = -1


def sweep() -> None:
    """Delete the run folders of this user whose owner is gone."""
    for place in {base(), brief_base()}:
        with contextlib.suppress(OSError), os.scandir(place) as entries:
            for path in [Path(e) for e in entries if e.name.startswith(PREFIX) and e.is_dir(follow_symlinks=False)]:
                with contextlib.suppress(OSError):
                    if path.stat().st_uid == os.getuid() and is_abandoned(path):
                        shutil.rmtree(path, ignore_errors=True)


@functools.cache
def _sweep_once() -> None:
    """A process that makes many meshes need not look again: what others leave behind, the next process finds."""
    sweep()


def is_abandoned(folder: Path) -> bool:
    """Whether nobody holds the folder's lock any more; a folder without one may just be on its way into the world."""
    try:
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True
