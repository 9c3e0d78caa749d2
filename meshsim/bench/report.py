"""Everything a run measured, as a table for people and as JSON for programs; results of two runs do not compare, ratios of one do."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from functools import partial
from typing import Any as Json

import msgspec

from meshsim.bench.figures import Figure
from meshsim.bench.rounds import DIRECT, Measured, Sample

MILLISECOND = 1e6  # in nanoseconds
_QUANTILES = (0.5, 0.9, 0.99, 0.999)


class Report(msgspec.Struct, kw_only=True):
    """A run. machine: where, with what, from which commit."""

    machine: dict[str, Json]
    seconds: float
    measured: list[Measured] = []
    figures: list[Figure] = []

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
            said = [line for m in self.measured for line in (*_errors(m), *_disturbances(m))]
            parts += ["\n".join(said)] if said else []
        if self.figures:
            parts.append(_table(("figure", "value", "unit", "note"), [(f.name, f"{f.value:.3g}", f.unit, f.note) for f in self.figures]))
        return "\n\n".join(parts)


_LEG_HEAD = ("leg", "engine", "work", "CPU", "p50 ms", "p90", "p99", "p99.9", "MiB", "proxies", "client")
_RATIO_HEAD = ("leg", "pair", "ratio", "smallest", "largest", "CPU ratio", "rounds")


def cost(measured: Measured, sample: Sample) -> float:
    """CPU of all proxies: microseconds per request, or seconds per GiB where throughput counts."""
    if measured.bulk:
        return sample.proxies_cpu / sample.received * 2**30 if sample.received else 0.0
    return sample.proxies_cpu / sample.requests * 1e6 if sample.requests else 0.0


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
    for other in measured.engines[1:]:
        first = measured.engines[0]
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
