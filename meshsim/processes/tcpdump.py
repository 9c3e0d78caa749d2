"""The machine's tcpdump inside a pod, where it would end with "Couldn't change to 'tcpdump'": there is one user in a pod, and no other.

How this works: `python -m meshsim.processes.tcpdump PROGRAM ARGUMENT...` becomes the real tcpdump, told by `-Z root` to stay who it is.
It then still asks the kernel for that user's list of groups (initgroups), which a namespace of one user forbids (user_namespaces(7),
/proc/PID/setgroups); a seccomp filter answers this one system call with success, in this process only. Nothing is gained by that: the
process keeps the groups it has.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from pathlib import Path

from meshsim.network import namespaces
from meshsim.processes import tools

NAME = "tcpdump"
_SETGROUPS = {"x86_64": (0xC000003E, 116), "aarch64": (0xC00000B7, 159)}
"""Machine -> its AUDIT_ARCH and the number of setgroups(2)."""
_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _FILTER = 22, 38, 2
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06  # of classic BPF: a word of seccomp_data, a comparison, the verdict
_NUMBER_AT, _ARCH_AT = 0, 4
_ALLOW, _SUCCESS = 0x7FFF0000, 0x00050000  # SECCOMP_RET_ALLOW; SECCOMP_RET_ERRNO with no error


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint16), ("if_true", ctypes.c_uint8), ("if_false", ctypes.c_uint8), ("k", ctypes.c_uint32))


class _Program(ctypes.Structure):
    _fields_ = (("size", ctypes.c_uint16), ("instructions", ctypes.POINTER(_Instruction)))


def install(folder: Path) -> Path:
    """Put `tcpdump` into a folder of a pod's programs, where this machine has one; the folder."""
    program = namespaces.program(NAME)
    if program is not None and platform.machine() in _SETGROUPS:
        tools.script(folder, NAME, "meshsim.processes.tcpdump", program)
    return folder


def keep_groups() -> None:
    """Let setgroups(2) succeed without effect from now on, in this process and what it becomes. Raises OSError."""
    arch, number = _SETGROUPS[platform.machine()]
    instructions = (_Instruction * 6)(
        _Instruction(_LOAD, 0, 0, _ARCH_AT),
        _Instruction(_JUMP_IF_EQUAL, 0, 3, arch),
        _Instruction(_LOAD, 0, 0, _NUMBER_AT),
        _Instruction(_JUMP_IF_EQUAL, 0, 1, number),
        _Instruction(_RETURN, 0, 0, _SUCCESS),
        _Instruction(_RETURN, 0, 0, _ALLOW),
    )
    libc = ctypes.CDLL(None, use_errno=True)
    program = _Program(len(instructions), instructions)
    for arguments in ((_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (_PR_SET_SECCOMP, _FILTER, ctypes.byref(program), 0, 0)):
        if libc.prctl(*arguments) != 0:
            code = ctypes.get_errno()
            raise OSError(code, f"prctl: {os.strerror(code)}")


if __name__ == "__main__":
    keep_groups()
    os.execv(sys.argv[1], [NAME, "-Z", "root", *sys.argv[2:]])
