"""`meshsim capture` of a mesh that is up, read by tcpdump through a pipe."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from tests.kube.cluster import cluster
from tests.network.inside import needs_netns


@needs_netns
@pytest.mark.skipif(not (shutil.which("tcpdump") and shutil.which("curl")), reason="tcpdump or curl is missing")
def test_tcpdump_reads_it_while_it_is_written() -> None:
    with cluster("cap", "egress-gateway-http", "--network", "netns") as mesh:
        command = [sys.executable, "-m", "meshsim", "capture", "sleep", "-c", "4", "-w", "-"]
        writing = subprocess.Popen(command, env=mesh.environment, cwd=mesh.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        reading = subprocess.Popen(["tcpdump", "-nr", "-"], stdin=writing.stdout, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert writing.stdout is not None
        writing.stdout.close()
        while writing.poll() is None:
            mesh.says("exec", "sleep", "--", "curl", "-s", "-o", "/dev/null", "localhost:15000/ready")
        read, _ = reading.communicate(timeout=20)
        assert (writing.returncode, reading.returncode) == (0, 0), writing.communicate()
        writing.communicate()
        assert len(read.splitlines()) == 4 and "IP 127.0.0.1" in read
