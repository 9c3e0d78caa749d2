"""Tests in namespaces: entering them has no way back, so a test's function runs in a forked child that does."""

from __future__ import annotations

import atexit
import os
import pickle
import traceback
from collections.abc import Callable
from typing import TypeVar

import pytest

from meshsim.network import namespaces

T = TypeVar("T")
REASON = namespaces.unavailable()


def needs_netns(test: T) -> T:
    """Marks a test that is skipped, with the reason, where there are no namespaces to be had."""
    return pytest.mark.netns(pytest.mark.skipif(bool(REASON), reason=REASON)(test))


def in_namespaces(main: Callable[[], T]) -> T:
    """The result of `main` in a child that has entered namespaces of its own. Raises AssertionError with the child's traceback."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        atexit._clear()  # what the child itself leaves to be tidied up is tidied up; its parent's things are not its own
        try:
            namespaces.enter()
            answer: tuple[bool, object] = True, main()
        except BaseException:
            answer = False, traceback.format_exc()
        with open(write, "wb") as out:
            pickle.dump(answer, out)
        atexit._run_exitfuncs()
        os._exit(0)
    os.close(write)
    with open(read, "rb") as answered:
        data = answered.read()
    os.waitpid(child, 0)
    assert data, "the child ended without an answer"
    good, result = pickle.loads(data)
    assert good, result
    return result

