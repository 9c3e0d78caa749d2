"""Run the commands of the README, in order, from the root of the checkout, and stop at the first that fails.

    python .ci/readme.py README.md [--only WORD | --but WORD]

Commands are the lines of its ```sh blocks. With --only or --but those whose text ends in WORD are chosen, or left out; a command that
was chosen prints as it runs.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path

BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)
LIMIT = 1500  # seconds for one command


def commands(text: str) -> list[str]:
    return [line for block in BLOCK.findall(text) for line in block.splitlines() if line.strip() and not line.startswith("#")]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--but", default="")
    options = parser.parse_args()
    chosen = [c for c in commands(options.file.read_text()) if c.endswith(options.only) and not (options.but and c.endswith(options.but))]
    if not chosen:
        print("no command to run")
        return 1
    for command in chosen:
        started = time.monotonic()
        output = None if options.only else subprocess.PIPE
        done = subprocess.run(["bash", "-c", command], stdout=output, stderr=subprocess.STDOUT, text=True, timeout=LIMIT, check=False)
        if output is not None or done.returncode:
            print(f"{'ok' if done.returncode == 0 else 'FAILED':8}{time.monotonic() - started:6.1f} s  {command}", flush=True)
        if done.returncode:
            print((done.stdout or "")[-4000:])
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
