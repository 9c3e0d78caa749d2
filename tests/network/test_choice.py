"""Which network is chosen, and a whole mesh on namespaces, in a program of its own: entering them has no way back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from meshsim.network import choice, namespaces
from meshsim.network.loopback import LoopbackNetwork

REASON = namespaces.unavailable()
SCENARIO = Path(__file__).parents[2] / "scenarios" / "egress-gateway-http"

PROGRAM = """
import sys
from meshsim.network import choice
chosen = choice.enter("netns")
import asyncio
import meshsim

async def main():
    sys.stdout.reconfigure(line_buffering=True)
    async with meshsim.load(sys.argv[1]).run(processes=sys.argv[2] == "processes", network=chosen.kind) as live:
        sleep = live.pod("sleep")
        reply = await sleep.get("http://edition.cnn.com/politics")
        print(reply.status, reply.header("location"))
        print(len((await sleep.get("https://edition.cnn.com/politics")).body))
        print(await sleep.run(sys.executable, "-c", "import socket; socket.create_connection(('edition.cnn.com', 443), 5)"))
        print(await sleep.run(sys.executable, "-c", "import socket; socket.getaddrinfo('nowhere.example', 80)"))
        print(await sleep.run(sys.executable, "-c", "import socket; print(socket.gethostbyname('istio-egressgateway.istio-system'))"))
        while len(live.proxy("sleep").log()) < 2:
            await asyncio.sleep(0.01)
        print("outbound|80|cnn|" in live.proxy("sleep").log()[0])

asyncio.run(main())
"""


@pytest.mark.skipif(bool(REASON), reason=REASON)
@pytest.mark.netns
@pytest.mark.parametrize("how", ["processes", "one process"])
def test_a_mesh_on_namespaces(how: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(SCENARIO), how], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:-1] == [
        "301 https://edition.cnn.com/politics", "150000", "0", "1", "10.96.10.10", "0", "True",
    ]


def test_loopback_is_there_everywhere(tmp_path: Path) -> None:
    chosen = choice.enter("loopback")
    assert chosen.kind == "loopback" and "Unix sockets" in chosen.reason
    assert isinstance(choice.of_folder(tmp_path), LoopbackNetwork)


def test_auto_says_why_it_cannot_have_namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespaces, "unavailable", lambda: "nft not found: install nftables")
    assert choice.enter("auto") == choice.Choice("loopback", "network: loopback, because nft not found: install nftables")


@pytest.mark.parametrize(
    ("missing", "settings", "said"),
    [
        (("ip",), {}, "ip not found: install iproute2"),
        (("nft",), {}, "nft not found: install nftables"),
        (("ip", "nft"), {}, "ip and nft not found: install iproute2 nftables"),
        ((), {"max_user_namespaces": "0"}, "user namespaces are switched off: sysctl -w user.max_user_namespaces=15000"),
        (
            (),
            {"unprivileged_userns_clone": "0"},
            "user namespaces are for root only here: sysctl -w kernel.unprivileged_userns_clone=1",
        ),
        (
            (),
            {"apparmor_restrict_unprivileged_userns": "1"},
            "AppArmor restricts user namespaces: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        ((), {}, "user namespaces are not available here (not permitted); inside a container they need its permission"),
    ],
)
def test_auto_names_what_to_install_or_set(
    missing: tuple[str, ...], settings: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refused() -> None:
        raise namespaces.NamespacesUnavailable("")

    known = [(tmp_path / Path(path).name, value, remedy) for path, value, remedy in namespaces._SETTINGS]
    for path, value, _ in known:
        path.write_text(settings.get(path.name, "good" + value) + "\n")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(namespaces, "_SETTINGS", known)
    monkeypatch.setattr(namespaces, "program", lambda name: None if name in missing else f"/sbin/{name}")
    monkeypatch.setattr(namespaces, "enter", refused)
    assert choice.enter("auto") == choice.Choice("loopback", f"network: loopback, because {said}")
