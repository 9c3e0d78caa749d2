"""Consistent hashing as Envoy does it: xxHash64, the ring, and Maglev's table.

Ring: each host has entries at xxHash64 of "address_i"; a request goes to the first entry at or after its own hash. Maglev (Eisenbud et al.,
NSDI 2016): hosts fill a table in turn, each by its own permutation; a request goes to the entry at its hash modulo the table's size.
Where the host found is one to pass over, the nth look goes n entries further along the ring, or to Maglev's entry of another hash.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence

MAX_RING = 8_388_608

_MASK = 0xFFFFFFFFFFFFFFFF
_P1, _P2, _P3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
_P4, _P5 = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5

Lookup = Callable[[int, int], int]
"""From the hash of a request, and how many times it was looked up before, to a host's position."""


def xxh64(data: bytes, seed: int = 0) -> int:
    """xxHash64 of `data`."""
    at, size = 0, len(data)
    if size >= 32:
        lanes = [(seed + _P1 + _P2) & _MASK, (seed + _P2) & _MASK, seed & _MASK, (seed - _P1) & _MASK]
        while at + 32 <= size:
            for lane in range(4):
                lanes[lane] = _round(lanes[lane], int.from_bytes(data[at : at + 8], "little"))
                at += 8
        value = sum(_rotated(v, r) for v, r in zip(lanes, (1, 7, 12, 18), strict=True)) & _MASK
        for lane_value in lanes:
            value = ((value ^ _round(0, lane_value)) * _P1 + _P4) & _MASK
    else:
        value = (seed + _P5) & _MASK
    value = (value + size) & _MASK
    while at + 8 <= size:
        value = (_rotated(value ^ _round(0, int.from_bytes(data[at : at + 8], "little")), 27) * _P1 + _P4) & _MASK
        at += 8
    if at + 4 <= size:
        value = (_rotated(value ^ (int.from_bytes(data[at : at + 4], "little") * _P1 & _MASK), 23) * _P2 + _P3) & _MASK
        at += 4
    for byte in data[at:]:
        value = _rotated(value ^ (byte * _P5 & _MASK), 11) * _P1 & _MASK
    value = (value ^ (value >> 33)) * _P2 & _MASK
    value = (value ^ (value >> 29)) * _P3 & _MASK
    return value ^ (value >> 32)


def ring(weights: Sequence[tuple[str, int]], minimum: int = 1024) -> Lookup:
    """The ring of these hosts."""
    total = sum(weight for _, weight in weights)
    shares = [weight / total for _, weight in weights]
    scale = min(math.ceil(min(shares) * minimum) / min(shares), MAX_RING)
    entries: list[tuple[int, int]] = []
    filled, target = 0, 0.0
    for position, ((name, _), share) in enumerate(zip(weights, shares, strict=True)):
        target += scale * share
        number = 0
        while filled < target:
            entries.append((xxh64(f"{name}_{number}".encode()), position))
            number += 1
            filled += 1
    entries.sort(key=lambda entry: entry[0])
    hashes = [value for value, _ in entries]

    def lookup(key: int, before: int) -> int:
        return entries[(bisect.bisect_left(hashes, key) % len(entries) + before) % len(entries)][1]

    return lookup


def maglev(weights: Sequence[tuple[str, int]], size: int = 65537) -> Lookup:
    """The Maglev table of these hosts."""
    places = [xxh64(name.encode()) % size for name, _ in weights]
    skips = [xxh64(name.encode(), 1) % (size - 1) + 1 for name, _ in weights]
    heaviest = max(weight for _, weight in weights)
    owed = [0.0] * len(weights)
    table = [-1] * size
    filled, turn = 0, 0
    while filled < size:
        turn += 1
        for position, (_, weight) in enumerate(weights):
            if turn * weight / heaviest < owed[position]:
                continue  # a lighter host sits this turn out
            owed[position] += 1.0
            at = places[position]
            while table[at] >= 0:
                at = (at + skips[position]) % size
            table[at] = position
            places[position] = (at + skips[position]) % size
            filled += 1
            if filled == size:
                break

    def lookup(key: int, before: int) -> int:
        return table[(key ^ -before & _MASK) % size]

    return lookup


def combined(before: int | None, value: int) -> int:
    """The hash of several policies: rotated and mixed in the order they come."""
    if before is None:
        return value
    return (((before << 1) | (before >> 63)) & _MASK) ^ value


def _rotated(value: int, bits: int) -> int:
    return ((value << bits) | (value >> (64 - bits))) & _MASK


def _round(accumulator: int, lane: int) -> int:
    return _rotated((accumulator + lane * _P2) & _MASK, 31) * _P1 & _MASK
