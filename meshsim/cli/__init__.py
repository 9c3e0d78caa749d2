"""The `meshsim` command: arguments in, text out.

How this works: each command is a module of its own that is imported when it is called, so that `trace` and `validate` start without the
libraries of the live mesh. A mistake of the user's is a line on standard error and exit status 2, never a traceback.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import click

COMMANDS = {
    "demo": "play a walk-through on a running mesh, step by step",
    "run": "run a command as if it were in a pod of a running mesh",
    "trace": "say where a request goes, hop by hop, and why",
    "config": "show what a proxy is told",
    "validate": "check files as Istio would, every mistake at once",
    "analyze": "find mistakes that no single file shows, with a call that fails",
    "bench": "measure what hops cost, beside a real Envoy",
    "audit": "try every way out of a pod, and say what stops it",
    "certs": "show a pod's certificate",
    "schema": "print the JSON Schema of a kind",
    "up": "start a mesh that stays, and is spoken to as with kubectl",
    "ls": "list the running meshes",
    "down": "end a running mesh",
    "apply": "put resources into the running mesh",
    "get": "show resources of the running mesh",
    "delete": "take resources out of the running mesh",
    "create": "make a namespace in the running mesh",
    "label": "set or remove labels in the running mesh",
    "describe": "show resources of the running mesh at length",
    "install": "add or remove an egress gateway in the running mesh",
    "kube-inject": "print YAML with a sidecar in each pod",
    "logs": "show access logs of the running mesh",
    "exec": "run a command in a pod of the running mesh",
    "capture": "write the packets of a pod of the running mesh to a pcap file",
}
MESHES = ("up", "ls", "down")
"""The commands of one module: meshes that stay."""
LIKE_KUBECTL = ("apply", "get", "describe", "delete", "create", "label", "logs", "exec", "install", "capture")
"""What a running mesh answers by itself; these start without click and without the mesh's own modules."""
USER_MISTAKE = 2
INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its status."""
    from meshsim.errors import MeshsimError

    words = sys.argv[1:] if arguments is None else arguments
    try:
        status = _kubectl(words) if words and words[0] in LIKE_KUBECTL else _command(words)
    except KeyboardInterrupt:
        status = INTERRUPTED
    except MeshsimError as e:
        print(_worded(e), file=sys.stderr)
        status = USER_MISTAKE
    except BrokenPipeError:  # somebody piped us into `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    sys.exit(status)


def _kubectl(words: list[str]) -> int:
    from meshsim.cli import kubectl

    return kubectl.run(words[0], words[1:])


def _command(words: list[str]) -> int:
    import click

    try:
        status = _group().main(args=words, prog_name="meshsim", standalone_mode=False)
    except click.ClickException as e:
        e.show()
        return e.exit_code
    except click.Abort:
        return INTERRUPTED
    return status if isinstance(status, int) else 0


def _worded(error: Exception) -> str:
    from meshsim.errors import ConfigError

    text = str(error)
    said_as_kubectl = text.startswith(("error: ", "Error: "))
    return text if isinstance(error, ConfigError) or said_as_kubectl else f"meshsim: {text}"


def _group() -> click.Group:
    import click

    import meshsim

    class Lazy(click.Group):
        """Commands by name, imported when one is asked for."""

        def list_commands(self, ctx: click.Context) -> list[str]:
            return list(COMMANDS)

        def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
            if cmd_name not in COMMANDS:
                return None
            if cmd_name in MESHES:
                found: click.Command = importlib.import_module("meshsim.cli.kube").commands[cmd_name]
                return found
            command: click.Command = importlib.import_module(f"meshsim.cli.{cmd_name.replace('-', '_')}").command
            return command

        def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
            with formatter.section("Commands"):
                formatter.write_dl(list(COMMANDS.items()))

    text = "Istio's way out of the mesh, on a laptop: the YAML you apply to Istio, and what it does."
    settings = {"help_option_names": ["-h", "--help"]}
    return click.version_option(meshsim.__version__, prog_name="meshsim")(Lazy("meshsim", help=text, context_settings=settings))
