"""Run every command of the README, in order, from the root of the checkout, and stop at the first that fails.

Commands are the lines of ```sh blocks. A block after the comment `<!-- ci: skip, REASON -->` is shown and not run; the environment that
the first block makes is the one CI already has, so `python3 -m venv` and `pip install` lines are run as they stand.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

BLOCK = re.compile(r"(?P<skip><!-- ci: skip, (?P<why>[^>]*) -->\n)?```sh\n(?P<body>.*?)```", re.DOTALL)
LIMIT = 600  # seconds for one command


def commands(text: str) -> list[tuple[str, str]]:
    """Each command with the reason not to run it, or ""."""
    found = []
    for block in BLOCK.finditer(text):
        for line in block["body"].replace("\\\n", " ").splitlines():
            if line.strip() and not line.startswith("#"):
                found.append((line, block["why"] or ""))
    return found


def main(file: str) -> int:
    for line, skipped in commands(Path(file).read_text()):
        if skipped:
            print(f"--  {line}\n    not run: {skipped}")
            continue
        started = time.monotonic()
        done = subprocess.run(["bash", "-c", line], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LIMIT, check=False)
        print(f"{'ok' if done.returncode == 0 else 'FAILED':6}{time.monotonic() - started:6.1f} s  {line}")
        if done.returncode:
            print(done.stdout[-4000:])
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
