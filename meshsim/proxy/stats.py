"""Counters, gauges and histograms under Envoy's names, and the ways the admin interface prints them.

How this works: a counter exists from the moment something counts in it; gauges are read when someone asks (`gauge` registers where
from). A name's parts that Envoy turns into Prometheus tags (cluster, listener address, connection manager, response code) are found by
pattern when that page is asked for, so that counting stays one dictionary update.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from meshsim.proxy.histograms import Histogram

_TAGS: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...] = tuple(
    (re.compile(pattern), names)
    for pattern, names in (
        (r"(cluster)\.(.+?)\.((?:upstream|membership|circuit|lb|ssl|update|external|internal|retry|outlier)\w*.*)", ("cluster_name",)),
        (r"(listener)\.(.+?)\.((?:downstream|no_filter|ssl|http)\w*.*)", ("listener_address",)),
        (r"(http)\.(.+?)\.((?:downstream|no_|rq_|rs_|rbac|fault)\w*.*)", ("http_conn_manager_prefix",)),
        (r"(tcp)\.(.+?)\.((?:downstream|upstream|idle|max)\w*.*)", ("tcp_prefix",)),
    )
)
_CODE = re.compile(r"_rq_([1-5][0-9][0-9])$")
_CLASS = re.compile(r"_rq_([1-5])xx$")
_UNSAFE = re.compile(r"[^A-Za-z0-9_]")


class Meter:
    """Counting under one prefix; each name is joined to it once."""

    __slots__ = ("_codes", "_counters", "_histograms", "_names", "_prefix")

    def __init__(self, counters: dict[str, int], histograms: dict[str, Histogram], prefix: str):
        self._counters, self._histograms, self._prefix = counters, histograms, prefix
        self._names: dict[str, str] = {}
        self._codes: dict[tuple[str, int], tuple[str, ...]] = {}

    def inc(self, name: str, by: int = 1) -> None:
        """Count."""
        full = self._names.get(name)
        if full is None:
            full = self._names[name] = self._prefix + name
        counters = self._counters
        counters[full] = counters.get(full, 0) + by

    def add(self, names: Iterable[str]) -> None:
        """Count once under each of these whole names, as `name` and `of_response` give them."""
        counters = self._counters
        for name in names:
            counters[name] = counters.get(name, 0) + 1

    def name(self, name: str) -> str:
        """The whole name."""
        return self._prefix + name

    def took(self, name: str, seconds: float) -> None:
        """Record how long something took."""
        full = self._names.get(name)
        if full is None:
            full = self._names[name] = self._prefix + name
        histogram = self._histograms.get(full)
        if histogram is None:
            histogram = self._histograms[full] = Histogram()
        histogram.record(seconds * 1000)

    def response(self, side: str, code: int) -> None:
        """Count a response by its class; side: "downstream" or "upstream", of which the latter counts codes too."""
        self.add(self.of_response(side, code))

    def of_response(self, side: str, code: int) -> tuple[str, ...]:
        """The whole names of what a response counts."""
        names = self._codes.get((side, code))
        if names is None:
            begin = f"{self._prefix}{side}_rq_"
            names = (f"{begin}completed", f"{begin}{code // 100}xx")
            if side == "upstream":  # and once more by where the request came from, which for Envoy is always outside the mesh here
                names = (*names, f"{begin}{code}")
                names += tuple(f"{self._prefix}external.{name[len(self._prefix) :]}" for name in names)
            self._codes[side, code] = names
        return names


class Stats:
    """The statistics of one proxy."""

    def __init__(self) -> None:
        self._counters: dict[str, int] = {}
        self._gauges: dict[str, Callable[[], int]] = {}
        self._expected: dict[str, Iterable[str]] = {}
        self._histograms: dict[str, Histogram] = {}
        self._meters: dict[str, Meter] = {}

    def meter(self, prefix: str) -> Meter:
        """Counting under a prefix such as `cluster.NAME.`."""
        meter = self._meters.get(prefix)
        if meter is None:
            meter = self._meters[prefix] = Meter(self._counters, self._histograms, prefix)
        return meter

    def inc(self, name: str, by: int = 1) -> None:
        """Count."""
        counters = self._counters
        counters[name] = counters.get(name, 0) + by

    def add(self, names: Iterable[str]) -> None:
        """Count once under each name."""
        counters = self._counters
        for name in names:
            counters[name] = counters.get(name, 0) + 1

    def gauge(self, name: str, read: Callable[[], int]) -> None:
        """A value that goes up and down, read when asked for."""
        self._gauges[name] = read

    def expect(self, prefix: str, names: Iterable[str]) -> None:
        """Counters that are shown as zero before something counts in them, under a prefix such as `cluster.NAME.`."""
        self._expected[prefix] = names

    def forget_gauges(self) -> None:
        """What the gauges and expected counters belong to may be gone."""
        self._gauges.clear()
        self._expected.clear()

    def forget(self, *prefixes: str) -> None:
        """The counters of what is gone; should it come back, it begins at zero, as Envoy's does."""
        for name in [n for n in self._counters if n.startswith(prefixes)]:
            del self._counters[name]
        for name in [n for n in self._histograms if n.startswith(prefixes)]:
            del self._histograms[name]

    def reset(self) -> None:
        """Counters begin again at zero."""
        self._counters.update(dict.fromkeys(self._counters, 0))

    def values(self, wanted: str = "", *, used_only: bool = False, kind: str = "") -> list[tuple[str, int]]:
        """Name and value, sorted. wanted: a pattern that a part of the name must match. kind: "Counters" or "Gauges" alone."""
        found: list[tuple[str, int]] = []
        if kind in ("", "Counters"):
            found += self._counters.items()
            if not used_only:
                names = (prefix + name for prefix, names in self._expected.items() for name in names)
                found += [(name, 0) for name in names if name not in self._counters]
        if kind in ("", "Gauges"):
            found += [(name, read()) for name, read in self._gauges.items()]
        pattern = re.compile(wanted) if wanted else None
        return sorted((n, v) for n, v in found if (v or not used_only) and (pattern is None or pattern.search(n)))

    def histograms(self, wanted: str = "", *, used_only: bool = False) -> list[tuple[str, Histogram]]:
        """Name and histogram, sorted; the rest as for `values`."""
        pattern = re.compile(wanted) if wanted else None
        found = [(n, h) for n, h in self._histograms.items() if (h.count or not used_only) and (pattern is None or pattern.search(n))]
        return sorted(found, key=lambda pair: pair[0])

    def prometheus(self, wanted: str = "", *, used_only: bool = False) -> str:
        """The same in Prometheus' text format, names and tags as Envoy makes them."""
        families: dict[str, tuple[str, list[str]]] = {}
        for name, histogram in self.histograms(wanted, used_only=used_only):
            family, tags = _tagged(name)
            label = ",".join(f'{key}="{_escaped(text)}"' for key, text in tags)
            rows = families.setdefault(family, ("histogram", []))[1]
            rows += [f'{family}_bucket{{{label},le="{bound}"}} {number}' for bound, number in histogram.buckets()]
            rows += [f"{family}_sum{{{label}}} {histogram.total:g}", f"{family}_count{{{label}}} {histogram.count}"]
        for name, value in self.values(wanted, used_only=used_only):
            family, tags = _tagged(name)
            label = ",".join(f'{key}="{_escaped(text)}"' for key, text in tags)
            kind = "gauge" if name in self._gauges else "counter"
            families.setdefault(family, (kind, []))[1].append(f"{family}{{{label}}} {value}")
        lines = [line for family, (kind, rows) in sorted(families.items()) for line in (f"# TYPE {family} {kind}", *rows)]
        return "\n".join(lines) + "\n"


def _tagged(name: str) -> tuple[str, list[tuple[str, str]]]:
    tags: list[tuple[str, str]] = []
    for pattern, names in _TAGS:
        match = pattern.fullmatch(name)
        if match:
            tags.append((f"envoy_{names[0]}", match[2]))
            name = f"{match[1]}.{match[3]}"
            break
    if code := _CODE.search(name):
        tags.insert(0, ("envoy_response_code", code[1]))
        name = name[: code.start()] + "_rq"
    elif code := _CLASS.search(name):
        tags.insert(0, ("envoy_response_code_class", code[1]))
        name = name[: code.start()] + "_rq_xx"
    return "envoy_" + _UNSAFE.sub("_", name), tags


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
