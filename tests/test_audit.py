"""The audit as a table: a configuration, and the ways out that it leaves open."""

from __future__ import annotations

import subprocess
import sys

import pytest

import meshsim
from meshsim import audit
from meshsim.network import namespaces

SCENARIO = "scenarios/network-policy"
REASON = namespaces.unavailable()
NETNS = [pytest.mark.netns, pytest.mark.skipif(bool(REASON), reason=REASON)]
REGISTRY_ONLY = """
apiVersion: meshsim.dev/v1alpha1
kind: MeshConfig
metadata: {name: istio}
spec: {outboundTrafficPolicy: {mode: REGISTRY_ONLY}}
"""


@pytest.fixture(scope="module")
def by_way(tmp_path_factory):
    """Outcome and layer of every way, by configuration."""
    strict = tmp_path_factory.mktemp("audit") / "mesh-config.yaml"
    strict.write_text(REGISTRY_ONLY)
    found = {}
    for name, sources, pod in [
        ("open", [], "default/sleep"),
        ("registry only", [strict], "default/sleep"),
        ("policy", [f"{SCENARIO}/steps/labels.yaml"], "test-egress/sleep"),
        ("policy and sidecar", [f"{SCENARIO}/steps/{n}.yaml" for n in ("labels", "injection", "destination-rule")], "test-egress/sleep"),
    ]:
        for finding in audit.audit(meshsim.load(SCENARIO, *sources), pod):
            found[name, finding.way.name, finding.way.target] = (finding.outcome, finding.layer)
    return found


@pytest.mark.parametrize(
    ("configuration", "way", "target", "outcome"),
    [
        ("open", "by name", "https://edition.cnn.com/", (audit.GATEWAY, "")),
        ("open", "by name", "http://edition.cnn.com/", (audit.OPEN, "")),
        ("open", "forged SNI", "198.51.100.66:443 as edition.cnn.com", (audit.GATEWAY, "")),
        ("open", "by name, past the sidecar", "https://edition.cnn.com/", (audit.OPEN, "")),
        ("open", "UDP", "udp 198.51.100.66:443", (audit.OPEN, "")),
        ("registry only", "to a stranger", "http://stranger.test/", (audit.STOPPED, "sidecar")),
        ("registry only", "to a stranger", "tcp stranger.test:8080", (audit.STOPPED, "sidecar")),
        ("registry only", "to a stranger, past the sidecar", "tcp stranger.test:8080", (audit.OPEN, "")),
        ("policy", "by name", "https://edition.cnn.com/", (audit.STOPPED, "network")),
        ("policy", "UDP", "udp 198.51.100.66:443", (audit.STOPPED, "network")),
        ("policy and sidecar", "by name", "https://edition.cnn.com/", (audit.GATEWAY, "")),
        ("policy and sidecar", "by name, past the sidecar", "https://edition.cnn.com/", (audit.STOPPED, "network")),
    ],
)
def test_what_stops_a_way(by_way, configuration, way, target, outcome):
    assert by_way[configuration, way, target] == outcome


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["--from", "sleep.default", "--network", "loopback"], 1, "ways lead past the gateway"),
        (["--from", "sleep.test-egress", "-f", f"{SCENARIO}/steps/labels.yaml"], 0, "0 of 10 ways lead past the gateway"),
        (["--from", "sleep.test-egress", "-o", "json", "--network", "loopback"], 0, '"layer": "network"'),
        (["--from", "sleep.default", "--network", "loopback"], 1, "nothing stops it: no sidecar captures UDP"),
        pytest.param(["--from", "sleep.default", "--network", "netns"], 1, "a datagram was sent, and arrived", marks=NETNS),
        pytest.param(["--from", "sleep.test-egress", "--network", "netns"], 0, "a datagram was sent, and lost: NetworkPolicy", marks=NETNS),
        (["--from", "nobody"], 2, "no pod 'nobody'"),
    ],
)
def test_the_command(arguments, status, says):
    command = [sys.executable, "-m", "meshsim", "audit", SCENARIO, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, says in done.stdout + done.stderr, "Traceback" in done.stderr) == (status, True, False), done
