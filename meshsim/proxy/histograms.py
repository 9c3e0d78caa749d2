"""How long things took, as Envoy's statistics show it: quantiles in text, cumulative buckets for Prometheus.

How this works: a value is kept as its two first digits and its magnitude, as circllhist does, so a histogram is a small table of counts.
There are two: everything so far, and the last full interval; the text shows both.
"""

from __future__ import annotations

import math
import time

INTERVAL = 5.0  # seconds; Envoy's flush interval
BOUNDS = (
    0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000, 300_000, 600_000, 1_800_000, 3_600_000,
)  # fmt: skip
_QUANTILES = (0, 25, 50, 75, 90, 95, 99, 99.5, 99.9, 100)
Counts = dict[float, int]


class Histogram:
    """Values in milliseconds. total: their sum."""

    __slots__ = ("_all", "_last", "_now", "_since", "total")

    def __init__(self) -> None:
        self._all: Counts = {}
        self._now: Counts = {}
        self._last: Counts = {}
        self._since = time.monotonic()
        self.total = 0.0

    def record(self, value: float) -> None:
        """Take a value in."""
        key = float(int(value)) if value < 100 else _rounded(value)
        self._turn()
        self._now[key] = self._now.get(key, 0) + 1
        self._all[key] = self._all.get(key, 0) + 1
        self.total += value

    @property
    def count(self) -> int:
        return sum(self._all.values())

    def text(self) -> str:
        """`P0(interval,cumulative) P25(...) ...`, as the admin interface prints it."""
        if not self._all:
            return "No recorded values"
        self._turn()
        pairs = zip(_QUANTILES, _quantiles(self._last), _quantiles(self._all), strict=True)
        return " ".join(f"P{q:g}({_shown(last)},{_shown(ever)})" for q, last, ever in pairs)

    def buckets(self) -> list[tuple[str, int]]:
        """For each bound, how many values are not above it; the last is `+Inf`."""
        return [*((_bound(b), sum(n for v, n in self._all.items() if v <= b)) for b in BOUNDS), ("+Inf", self.count)]

    def _turn(self) -> None:
        """Begin another interval when one is over."""
        passed = time.monotonic() - self._since
        if passed >= INTERVAL:
            self._last, self._now = (self._now if passed < 2 * INTERVAL else {}), {}
            self._since += passed // INTERVAL * INTERVAL


def _rounded(value: float) -> float:
    scale = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(math.floor(value / scale) * scale)


def _quantiles(counts: Counts) -> list[float]:
    if not counts:
        return [math.nan] * len(_QUANTILES)
    values, total = sorted(counts.items()), sum(counts.values())
    found = []
    for quantile in _QUANTILES:
        left = quantile / 100 * total
        for value, number in values:
            left -= number
            if left <= 0:
                found.append(value)
                break
    return found


def _bound(value: float) -> str:
    return str(value) if value < 1 else str(int(value))


def _shown(value: float) -> str:
    return "nan" if math.isnan(value) else f"{value:g}"
