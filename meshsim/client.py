"""A stand-in for curl on machines without it: the options that the walk-throughs use, over HTTP/1.1, from inside a pod."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urljoin

from meshsim.errors import MeshsimError
from meshsim.pod import LivePod, NameDoesNotResolve, Reply

MOST_REDIRECTS = 50  # curl's own limit
COULD_NOT_RESOLVE, COULD_NOT_CONNECT, TIMED_OUT, TLS_FAILED, EMPTY_REPLY, TOO_MANY_REDIRECTS, BAD_CERTIFICATE = 6, 7, 28, 35, 52, 47, 60
_FLAGS = "sSLkvi"
_VALUES = "oDwHXm"


@dataclass
class _Wanted:
    url: str
    follow: bool = False
    heads: bool = False
    body: bool = True
    write_out: str = ""
    method: str = "GET"
    headers: dict[str, str] | None = None


async def curl(arguments: Sequence[str], pod: LivePod) -> tuple[int, str]:
    """The exit status and the output that curl would give. Raises MeshsimError for an option it does not know."""
    wanted = _parse(arguments)
    url, output = wanted.url, ""
    for _ in range(MOST_REDIRECTS + 1):
        try:
            reply = await pod.request(wanted.method, url, wanted.headers)
        except Exception as e:
            return _status(e), f"{output}curl: ({_status(e)}) {e}\n"
        output += _head(reply) if wanted.heads else ""
        location = reply.header("location")
        if not (wanted.follow and location and reply.status in (301, 302, 303, 307, 308)):
            output += reply.text if wanted.body else ""
            return 0, output + wanted.write_out.replace("%{http_code}", str(reply.status)).replace("\\n", "\n")
        url = urljoin(url, location)
    return TOO_MANY_REDIRECTS, f"{output}curl: ({TOO_MANY_REDIRECTS}) Maximum ({MOST_REDIRECTS}) redirects followed\n"


def _head(reply: Reply) -> str:
    lines = [f"{reply.http_version} {reply.status} {reply.reason}".rstrip(), *(f"{name}: {value}" for name, value in reply.headers)]
    return "\n".join([*lines, "", ""])


def _status(error: Exception) -> int:
    table: tuple[tuple[type[Exception], int], ...] = (
        (NameDoesNotResolve, COULD_NOT_RESOLVE),
        (TimeoutError, TIMED_OUT),
        (ssl.SSLCertVerificationError, BAD_CERTIFICATE),
        (ssl.SSLError, TLS_FAILED),
        (ConnectionRefusedError, COULD_NOT_CONNECT),
    )
    return next((status for kind, status in table if isinstance(error, kind)), EMPTY_REPLY)


def _parse(arguments: Sequence[str]) -> _Wanted:
    wanted = _Wanted("")
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            wanted.url = word if "://" in word else f"http://{word}"
            continue
        letters = word[1:]
        unknown = set(letters) - set(_FLAGS + _VALUES)
        if word.startswith("--") or unknown or not letters:
            raise MeshsimError(f"curl is not installed, and meshsim's own client does not know {word}")
        wanted.follow |= "L" in letters
        wanted.heads |= "i" in letters
        for letter in (x for x in letters if x in _VALUES):
            _value(wanted, letter, rest.pop(0) if rest else "")
    if not wanted.url:
        raise MeshsimError("curl: no URL given")
    return wanted


def _value(wanted: _Wanted, letter: str, value: str) -> None:
    if letter == "o":
        wanted.body = value != "/dev/null"
    elif letter == "D":
        wanted.heads = value == "-"
    elif letter == "w":
        wanted.write_out = value
    elif letter == "X":
        wanted.method = value
    elif letter == "H":
        name, _, text = value.partition(":")
        wanted.headers = {**(wanted.headers or {}), name.strip(): text.strip()}
