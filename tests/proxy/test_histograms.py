"""Quantiles and buckets of what was recorded."""

from __future__ import annotations

from meshsim.proxy.histograms import Histogram


def test_text_and_buckets() -> None:
    histogram = Histogram()
    assert histogram.text() == "No recorded values"
    for value in (*range(1, 100), 1234.5):
        histogram.record(value)
    assert histogram.text() == (
        "P0(nan,1) P25(nan,25) P50(nan,50) P75(nan,75) P90(nan,90) P95(nan,95) P99(nan,99) P99.5(nan,1200) P99.9(nan,1200) P100(nan,1200)"
    )
    buckets = dict(histogram.buckets())
    assert [buckets[b] for b in ("0.5", "25", "100", "2500", "3600000", "+Inf")] == [0, 25, 99, 100, 100, 100]
    assert (histogram.count, histogram.total) == (100, 99 * 50 + 1234.5)
