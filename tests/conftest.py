"""Every test leaves nothing behind: no task, no socket, no process. Checked after each one."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

DESCRIPTORS = Path("/proc/self/fd")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            item.add_marker(pytest.mark.usefixtures("no_leaked_task"))


@pytest.fixture
async def no_leaked_task() -> AsyncIterator[None]:
    """Whatever the test started on its loop has ended with it."""
    before = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert not left, f"tasks still running: {left}"


@pytest.fixture(autouse=True)
def no_leak() -> Iterator[None]:
    """No socket and no child process more than before; where /proc is missing (macOS), Linux runs hold this."""
    if not DESCRIPTORS.exists():
        yield
        return
    sockets, children = _sockets(), _children()
    yield
    if len(_sockets()) > len(sockets):
        gc.collect()  # an event loop that was closed but not collected still has its own pair
    grown = _sockets() - sockets
    assert len(_sockets()) <= len(sockets), f"sockets left open: {grown}"
    assert not _children() - children, f"processes still running: {_children() - children}"


def _sockets() -> set[str]:
    found = set()
    for entry in os.listdir(DESCRIPTORS):
        try:
            target = os.readlink(DESCRIPTORS / entry)
        except OSError:
            continue
        if target.startswith("socket:"):
            found.add(target)
    return found


def _children() -> set[str]:
    try:
        return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())
    except OSError:
        return set()
