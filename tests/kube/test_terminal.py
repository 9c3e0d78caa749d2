"""`exec -it`: a shell in a pod has a terminal of its own, with its size, its keys, jobs and exit status."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from typing import Any as Json

import pytest

from tests.kube.cluster import Cluster

PROMPT = "> "
JOB = "sh -c 'echo begun; exec sleep 1000'\n"  # says so itself, when it has the terminal and keys reach it
PATIENCE = 20.0  # seconds for something to be printed


class Console:
    """A terminal with `meshsim` at its other end."""

    def __init__(self, kubectl: Cluster, *words: str):
        self._ours, theirs = os.openpty()
        self.resize(24, 80, tell=False)
        self.before = termios.tcgetattr(theirs)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "meshsim", *words], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            env=kubectl.environment | {"TERM": "vt100"}, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        self._theirs = theirs
        self._seen = ""

    def resize(self, rows: int, columns: int, *, tell: bool = True) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, b"".join(n.to_bytes(2, sys.byteorder) for n in (rows, columns, 0, 0)))
        if tell:
            self.process.send_signal(signal.SIGWINCH)

    def type(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def until(self, text: str) -> str:
        """Everything printed since the last time, up to and with this."""
        limit = time.monotonic() + PATIENCE
        while text not in self._seen:
            assert select.select([self._ours], [], [], limit - time.monotonic())[0], f"no {text!r} in {self._seen!r}"
            self._seen += os.read(self._ours, 4096).decode()
        found, _, self._seen = self._seen.partition(text)
        return found + text

    def ended(self) -> int:
        return self.process.wait(PATIENCE)

    @property
    def settings(self) -> list[Json]:
        return termios.tcgetattr(self._theirs)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)
        os.close(self._theirs)


@pytest.fixture
def shell(kubectl: Cluster) -> Iterator[Console]:
    console = Console(kubectl, "exec", "-it", "sleep", "-c", "sleep", "--", "env", "PS1=> ", "sh", "-i")
    try:
        console.until(PROMPT)
        yield console
    finally:
        console.close()


def test_size_and_name_of_the_terminal(shell: Console) -> None:
    shell.type("stty size; echo $TERM.\n")
    assert "24 80\r\nvt100.\r\n" in shell.until("vt100.\r\n")
    shell.resize(50, 132)
    shell.type("until stty size | grep 132; do :; done; echo fi''ts\n")
    assert "50 132" in shell.until("fits\r\n")


def test_keys_and_jobs(shell: Console) -> None:
    shell.type(JOB)
    shell.until("begun\r\n")
    shell.type("\x03")
    shell.until(PROMPT)
    shell.type("echo after=$?\n")
    shell.until("after=130\r\n")
    shell.type(JOB)
    shell.until("begun\r\n")
    shell.type("\x1a")
    shell.until("Stopped")
    shell.type("kill %1; bg; wait; echo id''le.\n")
    shell.until("idle.\r\n")


def test_exit_status_and_settings(shell: Console) -> None:
    assert shell.settings != shell.before, "keys come raw while the shell runs"
    shell.type("exit 7\n")
    assert "command terminated with exit code 7" in shell.until("code 7")
    assert shell.ended() == 7
    assert shell.settings == shell.before


def test_end_of_input(kubectl: Cluster) -> None:
    console = Console(kubectl, "exec", "-it", "sleep", "--", "sh", "-c", "echo begun; exec cat")
    try:
        console.until("begun\r\n")
        console.type("hello\n")
        console.until("hello\r\nhello\r\n")
        console.type("\x04")
        assert console.ended() == 0
    finally:
        console.close()


def test_a_client_that_dies_takes_its_command_along(kubectl: Cluster) -> None:
    console = Console(kubectl, "exec", "-it", "sleep", "--", "sh", "-c", "echo $$; exec sleep 1000")
    try:
        pid = int(console.until("\r\n"))
        console.process.kill()
        console.ended()
        limit = time.monotonic() + PATIENCE
        while os.path.exists(f"/proc/{pid}") and time.monotonic() < limit:
            time.sleep(0.01)
        assert not os.path.exists(f"/proc/{pid}")
    finally:
        console.close()


def test_without_a_terminal_there_is_none(kubectl: Cluster) -> None:
    done = kubectl("exec", "-it", "sleep", "--", "cat", text="hello\n")
    assert (done.stdout, done.returncode) == ("hello\n", 0)
    assert done.stderr == "Unable to use a TTY - input is not a terminal or the right kind of file\n"
