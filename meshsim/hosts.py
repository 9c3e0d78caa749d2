"""Host patterns: the only place that knows what `*` means in a name.

Three rule sets meet here and differ on purpose:

- Istio's control plane (istio.md 1.6): a leading `*` stands for any prefix, also inside a label (`*foo.com`), and the
  match between two patterns is symmetric.
- Envoy's virtual hosts (envoy.md 3.1): `*suffix` and `prefix*`, at least one character for the star, case-insensitive.
- Envoy's server names (envoy.md 1.1): exact or `*.suffix` only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


def is_wildcard(name: str) -> bool:
    return name.startswith("*")


def matches(a: str, b: str) -> bool:
    """Whether the two patterns have a name in common; symmetric (Istio's `host.Name.Matches`)."""
    if is_wildcard(a):
        if is_wildcard(b):
            short, long = sorted((a[1:], b[1:]), key=len)
            return long.endswith(short)
        return b.endswith(a[1:])
    if is_wildcard(b):
        return a.endswith(b[1:])
    return a == b


class Table(Generic[T]):
    """Items by the patterns they are for, so that asking about one name does not look at every pattern."""

    def __init__(self, entries: Iterable[tuple[T, Iterable[str]]]):
        self._items: list[T] = []
        self._exact: dict[str, dict[int, None]] = {}
        self._wild: list[tuple[str, int]] = []
        for number, (item, patterns) in enumerate(entries):
            self._items.append(item)
            for pattern in patterns:
                if is_wildcard(pattern):
                    self._wild.append((pattern, number))
                else:
                    self._exact.setdefault(pattern, {})[number] = None

    def matching(self, name: str) -> list[T]:
        """Every item with a pattern that `matches` the name, in the order given."""
        exact = self._exact.get(name, {})
        if not self._wild and not is_wildcard(name):
            return [self._items[number] for number in exact]
        found = set(exact)
        if is_wildcard(name):
            found.update(number for each, numbers in self._exact.items() if matches(each, name) for number in numbers)
        found.update(number for pattern, number in self._wild if matches(pattern, name))
        return [self._items[number] for number in sorted(found)]


def subset_of(a: str, b: str) -> bool:
    """Whether every name that `a` stands for is one of `b`'s (Istio's `host.Name.SubsetOf`)."""
    if is_wildcard(b):
        return (a[1:] if is_wildcard(a) else a).endswith(b[1:])
    return a == b


def specificity(name: str) -> tuple[bool, int, str]:
    """Sort key, most specific first: exact before wildcard, longer before shorter, then alphabetical."""
    return (is_wildcard(name), -len(name), name)


def most_specific(name: str, patterns: Iterable[str]) -> str | None:
    """The pattern that fits `name` best, or None."""
    found = [p for p in patterns if subset_of(name, p)]
    return min(found, key=specificity) if found else None


def intersection(left: Iterable[str], right: Iterable[str]) -> list[str]:
    """For every overlapping pair the narrower name, each once, in the order found (istio.md 6.3)."""
    out: dict[str, None] = {}
    rights = list(right)
    for a in left:
        for b in rights:
            if subset_of(a, b):
                out[a] = None
            elif subset_of(b, a):
                out[b] = None
    return list(out)


def expand_short(name: str, namespace: str, domain: str = "cluster.local") -> str:
    """A name without a dot means a Service of the resource's own namespace (istio.md 1.5)."""
    if "." in name or name.startswith("*") or not name:
        return name
    return f"{name}.{namespace}.svc.{domain}"


def strip_port(authority: str) -> str:
    """The host part of `host:port`; an IPv6 literal keeps its brackets."""
    head, colon, tail = authority.rpartition(":")
    if colon and tail.isdigit() and (":" not in head or head.endswith("]")):
        return head
    return authority


def suffixes(name: str) -> Iterator[str]:
    """`a.b.c` -> `*.b.c`, `*.c`: the server-name wildcards that could match, longest first (envoy.md 1.1)."""
    dot = name.find(".")
    while dot != -1:
        yield "*" + name[dot:]
        dot = name.find(".", dot + 1)
