"""python -m tests.golden [--engine NAME] [--network loopback|netns] [--list FILE] [--out DIR] [--full-xds DIR] CASE_FOLDER...

Replays golden cases. Without --out it compares with what each folder recorded and prints, per theme (a case's name up to its first
"-"), how many xds files are equal and how many calls are on each of three cumulative levels: the answer, the way, the wire.
Exit status: 0 all equal but what known_differences.txt names (or all written), 1 differences, 2 a case failed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from meshsim.network.choice import LOOPBACK, NETNS, enter
from meshsim.network.namespaces import NamespacesUnavailable
from tests.golden import case as cases
from tests.golden import engines
from tests.golden.engines import COMPILE_ONLY, ENGINES, ENVOY
from tests.golden.judge import Verdict, judge, table
from tests.golden.known import surprises
from tests.golden.machines import NETWORKS
from tests.golden.replay import Answer, replay, write

EQUAL, DIFFERENT, FAILED = 0, 1, 2


def main(arguments: list[str] | None = None) -> int:
    options = _options().parse_args(arguments)
    options.network = NETNS if options.engine == ENVOY else options.network
    try:
        _enter(options.network)
    except NamespacesUnavailable as e:
        print(e, file=sys.stderr)
        return FAILED
    folders = _listed(cases.folders(options.folders), options.list)
    started = time.monotonic()
    one = partial(_one, engine=options.engine, network=options.network, base=options.base, out=options.out, full_xds=options.full_xds)
    verdicts, failed = [], 0
    for answer, verdict in _each(one, folders, options.jobs, options.network):
        if answer.failed:
            failed += 1
            print(f"{answer.name}: failed\n{answer.failed}", file=sys.stderr)
        if verdict:
            verdicts.append(verdict)
            if options.verbose:
                _explain(verdict)
    took = f"{len(folders)} cases in {time.monotonic() - started:.1f} s on {options.engine}"
    if options.out is None:
        print(table(verdicts))
    print(f"{took}{f', {failed} failed' if failed else ''}")
    if failed:
        return FAILED
    surprised = any(surprises("xds", v) or surprises(options.engine, v) for v in verdicts)
    return DIFFERENT if surprised else EQUAL


def _listed(folders: list[Path], files: list[Path]) -> list[Path]:
    """The folders that a list names; all of them without a list."""
    names = {Path(name).name for file in files for name in file.read_text().split()}
    return [folder for folder in folders if not files or folder.name in names]


def _one(
    folder: Path, engine: str, network: str, base: Path, out: Path | None, full_xds: Path | None
) -> tuple[Answer, Verdict | None]:
    answer = replay(folder, engines.engine(engine, network), base)
    write(answer, out, full_xds)
    return answer, None if out else judge(answer, folder, calls=engine != COMPILE_ONLY)


def _each(
    one: partial[tuple[Answer, Verdict | None]], folders: list[Path], jobs: int, network: str
) -> Iterator[tuple[Answer, Verdict | None]]:
    if jobs <= 1:
        yield from map(one, folders)
        return
    with multiprocessing.get_context("spawn").Pool(jobs, _enter, (network,)) as pool:
        yield from pool.imap(one, folders)


def _enter(network: str) -> None:
    """Move this process into namespaces of its own where the network is made of them. Raises NamespacesUnavailable."""
    if network == NETNS:
        enter(network)


def _explain(verdict: Verdict) -> None:
    for file, text in verdict.files.items():
        if text:
            print(f"{verdict.name} xds/{file}{text}")
    for call, (_, found) in verdict.calls.items():
        for text in found:
            print(f"{verdict.name} / {call}: {text}")


def _options() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m tests.golden", description=__doc__, formatter_class=raw)
    parser.add_argument("folders", nargs="+", type=Path, metavar="CASE_FOLDER", help="a case, or a folder of cases")
    parser.add_argument("--engine", choices=ENGINES, default="simulate", help=f'"{COMPILE_ONLY}" compiles and makes no calls')
    parser.add_argument("--network", choices=NETWORKS, default=LOOPBACK, help="what live proxies run on; default: loopback")
    parser.add_argument("--base", type=Path, default=cases.BASE, help="the GoldenBase every case starts from")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write DIR/<case>/outcomes.json and xds/ instead of comparing")
    parser.add_argument("--full-xds", type=Path, metavar="DIR", help="write DIR/<case>/xds/<proxy>.json whole")
    parser.add_argument("--list", type=Path, action="append", default=[], metavar="FILE", help="only the cases named in FILE")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes")
    parser.add_argument("-v", "--verbose", action="store_true", help="say what differs")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
