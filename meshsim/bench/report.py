"""Everything a run measured, as a table for people and as JSON for programs; results of two runs do not compare, ratios of one do."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from functools import partial
from typing import Any as Json

import msgspec

from meshsim.bench.costs import PARTS, Profile
from meshsim.bench.engines import ASYNCIO
from meshsim.bench.figures import Figure
from meshsim.bench.rounds import DIRECT, Measured, Sample
from meshsim.bench.soak import Soak

MILLISECOND = 1e6  # in nanoseconds
_QUANTILES = (0.5, 0.9, 0.99, 0.999)


class Report(msgspec.Struct, kw_only=True):
    """A run. machine: where, with what, from which commit."""

    machine: dict[str, Json]
    seconds: float
    measured: list[Measured] = []
    figures: list[Figure] = []
    profiles: list[Profile] = []
    soaks: list[Soak] = []

    def encode(self) -> bytes:
        """As JSON."""
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> Report:
        return msgspec.json.decode(data, type=cls)

    def text(self) -> str:
        """As tables."""
        head = ", ".join(f"{name} {value}" for name, value in self.machine.items() if value)
        parts = [head]
        if self.measured:
            parts.append(_table(_LEG_HEAD, [row for m in self.measured for row in _rows(m)]))
            pairs = [row for m in self.measured for row in _ratios(m)]
            if pairs:
                parts.append(_table(_RATIO_HEAD, pairs))
            parts.append(_table(_PROCESS_HEAD, [row for m in self.measured for row in _by_process(m)]))
            said = [line for m in self.measured for line in (*_errors(m), *_disturbances(m))]
            parts += ["\n".join(said)] if said else []
        if self.profiles:
            rows = [(p.leg, ASYNCIO, *(f"{p.parts.get(part, 0.0):.0%}" for part in PARTS)) for p in self.profiles]
            parts.append(_table(("leg", "profile", *PARTS), rows))
        if self.soaks:
            parts.append(_table(_SOAK_HEAD, [row for s in self.soaks for row in _stretches(s)]))
            parts.append("\n".join(_verdict(s) for s in self.soaks))
        if self.figures:
            parts.append(_table(("figure", "value", "unit", "note"), [(f.name, f"{f.value:.3g}", f.unit, f.note) for f in self.figures]))
        return "\n\n".join(parts)


_LEG_HEAD = ("leg", "engine", "work", "CPU", "p50 ms", "p90", "p99", "p99.9", "MiB", "proxies", "client")
_PROCESS_HEAD = ("leg", "engine", "client", "origin", "hops", "unit of CPU", "peak MiB", "between hops")
_SOAK_HEAD = ("leg", "engine", "stretch", "requests", "p50 ms", "p99", "MiB", "files", "late", "errors")
_RATIO_HEAD = ("leg", "pair", "ratio", "smallest", "largest", "CPU ratio", "rounds")


def cost(measured: Measured, sample: Sample) -> float:
    """CPU of all proxies: microseconds per request, or seconds per GiB where throughput counts."""
    return _per_work(measured, sample, sample.proxies_cpu)


def _per_work(measured: Measured, sample: Sample, seconds: float) -> float:
    if measured.bulk:
        return seconds / sample.received * 2**30 if sample.received else 0.0
    return seconds / sample.requests * 1e6 if sample.requests else 0.0


def _by_process(measured: Measured) -> Iterator[tuple[str, ...]]:
    """The CPU and the largest memory of each process: what the hops together cost is in the first table."""
    for engine in measured.engines:
        samples = measured.samples(engine)
        places = 2 if measured.bulk else 0
        medians = [statistics.median(_per_work(measured, s, s.cpu[who]) for s in samples) for who in samples[0].cpu]
        client, origin, *hops = [f"{value:.{places}f}" for value in medians]
        peaks = [max(peak) / 2**20 for peak in zip(*(s.peaks for s in samples), strict=True)]
        yield (
            measured.leg,
            engine,
            client,
            origin,
            " + ".join(hops) or "-",
            "s/GiB" if measured.bulk else "us/request",
            " + ".join(f"{peak:.0f}" for peak in peaks) or "-",
            measured.between if hops else "-",
        )


def _rows(measured: Measured) -> Iterator[tuple[str, ...]]:
    for engine in measured.engines:
        histogram = measured.latencies(engine)
        samples = measured.samples(engine)
        memory = statistics.median(sum(s.memory) / max(1, len(s.memory)) for s in samples)
        quantiles = tuple(f"{histogram.quantile(q) / MILLISECOND:.2f}" for q in _QUANTILES)
        share = measured.median(engine, lambda s: s.client_share)
        yield (
            measured.leg,
            engine,
            _work(measured, engine),
            "-" if engine == DIRECT else _spent(measured, engine),
            *quantiles,
            f"{memory / 2**20:.0f}",
            "-" if engine == DIRECT else f"{measured.median(engine, lambda s: s.proxies_share):.0%}",
            f"{share:.0%}",
        )


def _work(measured: Measured, engine: str) -> str:
    value = measured.median(engine, measured.work)
    return f"{value / 1e6:.0f} MB/s" if measured.bulk else f"{value:.0f}/s"


def _spent(measured: Measured, engine: str) -> str:
    value = measured.median(engine, partial(cost, measured))
    return f"{value:.2f} s/GiB" if measured.bulk else f"{value:.0f} us"


def _ratios(measured: Measured) -> Iterator[tuple[str, ...]]:
    """The first engine against each other one."""
    first = measured.engines[0]
    for other in measured.engines[1:]:
        if DIRECT in (first, other):
            continue
        pair = f"{first} / {other}"
        busy = [e for e in (first, other) if measured.is_client_bound(e)]
        if busy:
            yield measured.leg, pair, "-", "-", "-", "-", f"client and origin were full with {' and '.join(busy)}"
            continue
        ratios = measured.ratios(first, other)
        pairs = zip(measured.samples(first), measured.samples(other), strict=True)
        costs = [cost(measured, b) / cost(measured, a) for a, b in pairs if cost(measured, a)]
        if not ratios or not costs:
            yield measured.leg, pair, "-", "-", "-", "-", "nothing was answered"
            continue
        yield (
            measured.leg,
            pair,
            f"{statistics.median(ratios):.2f}x",
            f"{min(ratios):.2f}",
            f"{max(ratios):.2f}",
            f"{statistics.median(costs):.2f}x",
            str(len(ratios)),
        )
        added = [a / b for a, b in zip(measured.added(first), measured.added(other), strict=True) if b > 0]
        if added:
            ratio = f"{statistics.median(added):.2f}x", f"{min(added):.2f}", f"{max(added):.2f}"
            yield measured.leg, f"{pair}, added p50", *ratio, "-", str(len(added))


def _stretches(soak: Soak) -> Iterator[tuple[str, ...]]:
    for number, s in enumerate(soak.stretches):
        times = f"{s.p50 / MILLISECOND:.2f}", f"{s.p99 / MILLISECOND:.2f}"
        counts = str(s.files), str(s.late), str(s.errors)
        yield soak.leg, soak.engine, str(number + 1), str(s.requests), *times, f"{s.memory / 2**20:.1f}", *counts


def _verdict(soak: Soak) -> str:
    time = f"{soak.seconds * len(soak.stretches):.0f} s at {soak.rate:.0f} requests/s"
    return f"{soak.leg} on {soak.engine}, {time}: {'; '.join(soak.failures()) or 'no error, no growth'}"


def _errors(measured: Measured) -> Iterator[str]:
    for engine in measured.engines:
        count = sum(s.errors for s in measured.samples(engine))
        late = sum(s.late for s in measured.samples(engine))
        if count:
            first = next(s.first_error for s in measured.samples(engine) if s.first_error)
            yield f"{measured.leg} on {engine}: {count} errors, the first: {first}"
        if late:
            yield f"{measured.leg} on {engine}: {late} requests were due and never sent: the rate is more than it can do"


def _disturbances(measured: Measured) -> Iterator[str]:
    """Rates that say how busy the machine was with something else."""
    if measured.rate or measured.connections == 1:
        return
    for engine in measured.engines:
        if engine != DIRECT and measured.is_disturbed(engine):
            share = measured.median(engine, lambda s: s.proxies_share)
            yield f"{measured.leg} on {engine}: other programs had the core, the proxies {share:.0%} of it; compare CPU, not rates"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    widths = [max(len(row[n]) for row in [head, *rows]) for n in range(len(head))]
    text = len(head) - 1
    lines = []
    for row in [head, *rows]:
        cells = [f"{cell:<{w}}" if n < 2 or n == text else f"{cell:>{w}}" for n, (cell, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
