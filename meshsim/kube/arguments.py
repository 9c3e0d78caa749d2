"""The words of each command, read as kubectl reads them."""

from __future__ import annotations

import argparse
from typing import NoReturn

from meshsim.errors import MeshsimError


class WrongWords(MeshsimError):
    """The command line cannot be understood."""


class HelpAsked(MeshsimError):
    """The text of `-h`."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise WrongWords(f"error: {message}\n{self.format_usage().rstrip()}")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        raise HelpAsked(self.format_help())

    def print_help(self, file: object = None) -> None:
        """Raised by `exit` instead, which follows."""


def parse(command: str, words: list[str]) -> argparse.Namespace:
    """The options and operands of one command; `after` is what follows `--`. Raises WrongWords, HelpAsked."""
    parser = _PARSERS[command]()
    before, after = (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, [])
    found = parser.parse_intermixed_args(before)
    found.after = after
    return found


def _parser(command: str, text: str) -> _Parser:
    parser = _Parser(prog=f"meshsim {command}", description=text)
    parser.add_argument("-n", "--namespace")
    parser.add_argument("--mesh", help="which running mesh, where there are several (meshsim ls)")
    return parser


def _files(parser: _Parser) -> None:
    parser.add_argument("-f", "--filename", action="append", default=[], metavar="FILE|DIR|-")


def _apply() -> _Parser:
    parser = _parser("apply", "Put resources into the running mesh.")
    _files(parser)
    return parser


def _delete() -> _Parser:
    parser = _parser("delete", "Take resources out of the running mesh.")
    _files(parser)
    parser.add_argument("--ignore-not-found", action="store_true")
    parser.add_argument("words", nargs="*", metavar="KIND NAME... | KIND/NAME...")
    return parser


def _create() -> _Parser:
    parser = _parser("create", "Make a namespace.")
    parser.add_argument("kind", choices=["namespace", "ns"])
    parser.add_argument("name")
    return parser


def _install() -> _Parser:
    parser = _parser("install", "Make the running mesh have the egress gateways that an IstioOperator asks for.")
    _files(parser)
    parser.add_argument("--set", dest="sets", action="append", default=[], metavar="PATH=VALUE")
    parser.add_argument("-y", "--skip-confirmation", action="store_true", help="nothing is ever asked")
    return parser


def _describe() -> _Parser:
    parser = _parser("describe", "Show resources of the running mesh at length.")
    parser.add_argument("-A", "--all-namespaces", action="store_true")
    parser.add_argument("-l", "--selector", default="")
    parser.add_argument("words", nargs="+", metavar="KIND [NAME...]")
    return parser


def _get() -> _Parser:
    parser = _parser("get", "Show resources of the running mesh.")
    parser.add_argument("-A", "--all-namespaces", action="store_true")
    parser.add_argument("-l", "--selector", default="")
    parser.add_argument("-o", "--output", default="", metavar="wide|yaml|json|name|jsonpath=TEMPLATE")
    parser.add_argument("--no-headers", action="store_true")
    parser.add_argument("--show-labels", action="store_true")
    parser.add_argument("words", nargs="+", metavar="KIND [NAME...]")
    return parser


def _label() -> _Parser:
    parser = _parser("label", "Set a resource's labels (KEY=VALUE), or take them away (KEY-).")
    parser.add_argument("--overwrite", action="store_true")
    parser.add_argument("words", nargs="+", metavar="KIND NAME KEY=VALUE...")
    return parser


def _logs() -> _Parser:
    parser = _parser("logs", "Show a proxy's access log.")
    parser.add_argument("-l", "--selector", default="")
    parser.add_argument("-c", "--container", default="")
    parser.add_argument("-f", "--follow", action="store_true")
    parser.add_argument("--tail", type=int, default=None)
    parser.add_argument("pod", nargs="?")
    return parser


def _exec() -> _Parser:
    parser = _parser("exec", "Run a command in a pod: meshsim exec sleep -- curl https://edition.cnn.com/")
    parser.add_argument("-c", "--container", default="")
    parser.add_argument("-i", "--stdin", action="store_true")
    parser.add_argument("-t", "--tty", action="store_true")
    parser.add_argument("pod")
    return parser


def _capture() -> _Parser:
    parser = _parser("capture", "Write a pod's packets to a pcap file until Ctrl-C: meshsim capture sleep -w sleep.pcap")
    parser.add_argument("-w", "--write", required=True, metavar="FILE")
    parser.add_argument("-c", "--count", type=int, default=0, help="end after so many packets")
    parser.add_argument("pod")
    return parser


_PARSERS = {
    "apply": _apply, "delete": _delete, "create": _create, "get": _get, "label": _label, "logs": _logs, "exec": _exec,
    "install": _install, "describe": _describe, "capture": _capture,
}  # fmt: skip
