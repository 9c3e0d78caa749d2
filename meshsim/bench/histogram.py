"""Latencies counted in buckets whose width grows with the value: every quantile is right to a part in a thousand, in little memory.

This is the layout of HdrHistogram: a value keeps its `_BITS` leading bits. Two histograms add up to what one would have counted.
"""

from __future__ import annotations

from collections.abc import Iterable

_BITS = 11  # leading bits kept: 2**-10 is finer than a part in a thousand


class Histogram:
    """Counts of whole numbers >= 0; here always nanoseconds."""

    def __init__(self, counts: dict[int, int] | None = None):
        self._counts: dict[int, int] = dict(counts or {})

    def record(self, value: int) -> None:
        shift = value.bit_length() - _BITS
        key = (value >> shift) << shift if shift > 0 else value
        self._counts[key] = self._counts.get(key, 0) + 1

    def extend(self, values: Iterable[int]) -> None:
        for value in values:
            self.record(value)

    def add(self, other: Histogram) -> None:
        for value, count in other._counts.items():
            self._counts[value] = self._counts.get(value, 0) + count

    @property
    def count(self) -> int:
        return sum(self._counts.values())

    @property
    def counts(self) -> dict[int, int]:
        """The smallest value of each bucket that is not empty, and how many there are in it."""
        return dict(self._counts)

    def quantile(self, part: float) -> int:
        """The value that `part` (0 to 1) of all are not above; 0 when nothing was counted."""
        left = max(1, round(part * self.count))
        for value, count in sorted(self._counts.items()):
            left -= count
            if left <= 0:
                return value
        return 0

    def mean(self) -> float:
        return sum(v * n for v, n in self._counts.items()) / self.count if self._counts else 0.0
