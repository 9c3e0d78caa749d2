"""Linux namespaces without root: the few system calls, and why they may be refused.

How this works: `enter` moves this process into a user namespace where it is root, a network namespace that holds nothing
but `lo`, and a mount namespace of its own; nothing outside changes. There it may make further network namespaces, one per
pod. A socket belongs to the namespace its thread was in when it was made, so one process can hold sockets of many pods:
it steps into a namespace, makes the socket, and steps back (two system calls). Namespaces live as long as a process is in
them or holds them open; when the mesh's processes are gone, the kernel takes everything away, however they ended.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from meshsim.errors import MeshsimError

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET = 0x00020000, 0x10000000, 0x40000000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
_PR_SET_PDEATHSIG = 1
_SBIN = ("/usr/sbin", "/sbin", "/usr/local/sbin")
_entered = False  # this process, by `enter`


class NamespacesUnavailable(MeshsimError):
    """This machine does not let an ordinary process make network namespaces; the text says what to install or set."""


class Namespace:
    """A network namespace held open by a descriptor. Steps in and out are for the calling thread only."""

    def __init__(self, path: str):
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    @property
    def path(self) -> str:
        """Where another process of the same user namespace can open it while this process lives."""
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    def enter(self) -> None:
        _call("setns", self.fd, CLONE_NEWNET)

    @contextmanager
    def inside(self, home: Namespace) -> Iterator[None]:
        """Make sockets and start programs in here; afterwards the thread is back in `home`."""
        if self is home:
            yield
            return
        self.enter()
        try:
            yield
        finally:
            home.enter()

    def close(self) -> None:
        os.close(self.fd)


def current() -> Namespace:
    """The network namespace this thread is in."""
    return Namespace("/proc/thread-self/ns/net")


def new(home: Namespace) -> Namespace:
    """A network namespace with nothing but a `lo` that is down."""
    _call("unshare", CLONE_NEWNET)
    try:
        return current()
    finally:
        home.enter()


def enter() -> Namespace:
    """Move this process, which must have one thread only, into namespaces of its own, and return its network namespace.

    Raises NamespacesUnavailable where the machine forbids it. There is no way back.
    """
    global _entered
    uid, gid = os.getuid(), os.getgid()
    try:
        _call("unshare", CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWNS)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        mount("none", "/", flags=MS_REC | MS_PRIVATE)
        run("ip", "link", "set", "lo", "up")
    except OSError as e:
        raise NamespacesUnavailable(_reason(e)) from None
    _entered = True
    return current()


def entered() -> bool:
    """Whether this process is in namespaces of its own; in others it has no business to change anything."""
    return _entered


def unavailable() -> str:
    """Why namespaces cannot be had here, with what to install or set; empty where they can. Changes nothing."""
    if sys.platform != "linux":
        return "network namespaces exist on Linux only"
    missing = [name for name in ("ip", "nft") if program(name) is None]
    if missing:
        packages = {"ip": "iproute2", "nft": "nftables"}
        return f"{' and '.join(missing)} not found: install {' '.join(packages[m] for m in missing)}"
    child = os.fork()
    if child == 0:
        try:
            enter()
        except NamespacesUnavailable:
            os._exit(1)
        except BaseException:
            os._exit(2)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return "" if status == 0 else _reason(PermissionError(errno.EPERM, "not permitted"))


def program(name: str) -> str | None:
    """A system tool's path; on many systems an ordinary user's PATH lacks the folders of `ip` and `nft`."""
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(_SBIN))


def run(name: str, *arguments: str, text: str | None = None) -> None:
    """Run a system tool in the thread's current namespace. Raises OSError with the tool's own words when it fails."""
    path = program(name)
    if path is None:
        raise FileNotFoundError(errno.ENOENT, f"{name} not found")
    done = subprocess.run([path, *arguments], input=text, text=True, capture_output=True, check=False)
    if done.returncode:
        raise OSError(errno.EINVAL, f"{name}: {done.stderr.strip() or done.stdout.strip() or f'exit status {done.returncode}'}")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2), in this process's own mount namespace."""
    _call("mount", source.encode(), target.encode(), kind.encode() or None, flags, data.encode() or None)


def unshare_mounts() -> None:
    """Give this process a mount namespace of its own, from which nothing spreads."""
    _call("unshare", CLONE_NEWNS)
    mount("none", "/", flags=MS_REC | MS_PRIVATE)


def end_with_parent() -> None:
    """Let the kernel kill this process when its parent ends, however that ends; kept across exec (prctl(2), PR_SET_PDEATHSIG)."""
    _call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL)


_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
if _libc is not None:
    _libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)


def _call(name: str, *arguments: object) -> None:
    if _libc is None:
        raise NamespacesUnavailable("network namespaces exist on Linux only")
    if getattr(_libc, name)(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


def _reason(error: OSError) -> str:
    """The most useful thing to say about a refusal: the setting that caused it, where one can be seen."""
    for path, forbids, remedy in _SETTINGS:
        try:
            value = Path(path).read_text().strip()
        except OSError:
            continue
        if value == forbids:
            return remedy
    return f"user namespaces are not available here ({error.strerror or error}); inside a container they need its permission"


_SETTINGS = (
    ("/proc/sys/user/max_user_namespaces", "0", "user namespaces are switched off: sysctl -w user.max_user_namespaces=15000"),
    (
        "/proc/sys/kernel/unprivileged_userns_clone",
        "0",
        "user namespaces are for root only here: sysctl -w kernel.unprivileged_userns_clone=1",
    ),
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "AppArmor restricts user namespaces: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
    ),
)
