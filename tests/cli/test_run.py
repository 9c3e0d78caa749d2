"""`meshsim run`: a real command in a real mesh, its exit status, and nothing left behind, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

RUN = [sys.executable, "-m", "meshsim", "run", "egress-gateway-http"]
NETWORKS = ["loopback", "auto"]


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(
    "command,status,words",
    [
        (["sh", "-c", "exit 3"], 3, ""),
        (["true"], 0, ""),
        (["no-such-command-anywhere"], 127, "no such command"),
    ],
    ids=["status", "success", "unknown"],
)
def test_the_exit_status_is_the_commands(network: str, command: list[str], status: int, words: str) -> None:
    done = subprocess.run([*RUN, "--network", network, "--", *command], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_command_the_shell_opens_in_the_pod() -> None:
    environment = {**os.environ, "SHELL": "/bin/sh"}
    done = subprocess.run(RUN, input="echo in a shell; exit 4\n", capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert (done.returncode, done.stdout) == (4, "in a shell\n")
    assert "in default/sleep" in done.stderr




@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["interrupted", "terminated"])
def test_nothing_is_left_behind(network: str, number: signal.Signals) -> None:
    command = [*RUN, "--network", network, "--", "sh", "-c", "echo $SSL_CERT_FILE; exec sleep 60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        roots = Path(process.stdout.readline().strip())
        assert roots.is_absolute()
        os.killpg(process.pid, number)
        _, complaints = process.communicate(timeout=30)
    assert process.returncode != 0
    assert "Traceback" not in complaints
    assert not roots.exists()
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
