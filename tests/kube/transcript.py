"""Transcripts: console blocks of a page in docs/pages, run again and compared with what they show.

A block's lines that begin with `$ ` are commands, with the lines of their here-documents and those after a backslash; what follows is what
they print. There `...` stands for any text in a line, and a line that is only `...` for any lines. `kubectl` and `istioctl` are `meshsim`.
"""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.kube.cluster import Cluster

LIMIT = 60.0  # seconds for a command
SETTLE = 3.0  # seconds until a log line is written or a counter has counted
READS = re.compile(r"\blogs\b|stats\b")  # what shows what proxies note after a client has its answer
EXIT = re.compile(r"^command terminated with exit code (\d+)$", re.M)


@dataclass
class Step:
    """A command and what it prints. `section`: the heading it stands under."""

    section: str
    command: str
    prints: str
    line: int


@dataclass
class Shell:
    """A terminal in which the mesh's commands run; what is exported stays for the next one."""

    cluster: Cluster
    folder: Path
    columns: int = 200
    seen: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._state = self.folder / "state"
        self._state.write_text("")
        programs = self.folder / "bin"
        programs.mkdir()
        for name in ("kubectl", "istioctl", "meshsim"):
            (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" -m meshsim "$@"\n')
            (programs / name).chmod(0o755)
        path = f"{programs}:{os.environ['PATH']}"
        self._environment = self.cluster.environment | {"PATH": path, "STATE": str(self._state), "TERM": "xterm"}

    def run(self, command: str) -> tuple[int, str]:
        """Its exit status, and what it printed on the terminal."""
        ours, theirs = os.openpty()
        fcntl.ioctl(ours, termios.TIOCSWINSZ, bytes([50, 0, self.columns, 0, 0, 0, 0, 0]))
        script = f'. "$STATE"\n{command}\nstatus=$?\nexport -p > "$STATE"\nexit $status\n'
        process = subprocess.Popen(
            ["bash", "-c", script], stdin=theirs, stdout=theirs, stderr=theirs, env=self._environment, cwd=self.cluster.root,
            start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(theirs)
        try:
            text = _everything(ours)
            return process.wait(LIMIT), text
        finally:
            process.kill()
            os.close(ours)

    def play(self, step: Step) -> str:
        """Nothing, or what is not as the transcript shows it."""
        limit = time.monotonic() + SETTLE
        while True:
            status, text = self.run(step.command)
            wrong = different(step.prints, status, text)
            if not wrong or not READS.search(step.command) or time.monotonic() > limit:
                break
        self.seen.setdefault(step.section, []).extend(text.splitlines())
        return wrong


def steps(text: str) -> Iterator[Step]:
    """The commands of a page in its order."""
    section, step, end = "", None, ""
    inside = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("```"):
            if step is not None:
                yield step
            step, inside = None, line == "```console"
        elif not inside:
            section = line.lstrip("# ") if line.startswith("#") else section
        elif step is not None and (end or step.command.endswith("\\")):
            step.command += "\n" + line
            end = "" if line == end else end
        elif line.startswith("$ "):
            if step is not None:
                yield step
            step = Step(section, line[2:], "", number)
            end = "EOF" if "<<EOF" in line else ""
        elif step is not None:
            step.prints += line + "\n"


def different(prints: str, status: int, text: str) -> str:
    """Nothing, or what was printed instead, when it does not fit; the exit status must be the one that is spoken of, else 0."""
    said = EXIT.search(prints)
    wanted = int(said[1]) if said else 0
    pattern = "".join("(?:.*\n)*?" if line == "..." else re.escape(line).replace(r"\.\.\.", ".*") + "\n" for line in prints.splitlines())
    text = text if not text or text.endswith("\n") else text + "\n"
    if re.fullmatch(pattern, text) and status == wanted:
        return ""
    return f"exit status {status}, and it printed:\n{text}"


def fits(cell: str, line: str) -> bool:
    """Whether a line is what a cell shows."""
    return re.fullmatch(re.escape(cell).replace(r"\.\.\.", ".*"), line.rstrip()) is not None


def _everything(terminal: int) -> str:
    data = b""
    while True:
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # EIO: nobody has the other end any more
            return data.decode("utf-8", "replace").replace("\r", "")
        if not piece:
            return data.decode("utf-8", "replace").replace("\r", "")
        data += piece
