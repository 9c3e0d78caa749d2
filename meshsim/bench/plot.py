"""A report as one SVG picture: the CPU a request costs on each leg and engine, what parts of a hop it goes to, and latency by quantile."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from html import escape

from meshsim.bench.costs import PARTS
from meshsim.bench.engines import ASYNCIO
from meshsim.bench.report import MILLISECOND, Report, cost
from meshsim.bench.rounds import DIRECT, Measured

_COLOURS = ("#466bb0", "#ac6199", "#4f9d69", "#c98a2b")
_PARTS = ("#c98a2b", "#ac6199", "#8fb0d9", "#4f9d69", "#a8c686", "#d9c27a", "#b9a0c9", "#d98f7a", "#bbbbbb")
_WIDTH, _LEFT, _BAR, _GAP = 860, 250, 16, 14
_POINTS = (0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999)
_PLOT_HEIGHT = 260


def svg(report: Report) -> str:
    """The picture's text."""
    legs = [m for m in report.measured if m.engines != [DIRECT]]
    engines = list(dict.fromkeys(e for m in legs for e in m.engines))
    colours = {engine: _COLOURS[n % len(_COLOURS)] for n, engine in enumerate(engines)}
    body = [*_legend(colours)]
    top = 50
    bars, top = _bars([m for m in legs if not m.bulk], colours, top)
    body += bars
    if report.profiles:
        where, top = _where(report, top)
        body += where
    for measured in (m for m in legs if not m.bulk):
        body += _latency(measured, colours, top)
        top += _PLOT_HEIGHT + 70
    style = '<style>text{font:12px sans-serif;fill:#333}</style><rect width="100%" height="100%" fill="white"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{top}">{style}{"".join(body)}</svg>\n'


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _legend(colours: dict[str, str]) -> Iterator[str]:
    for n, (engine, colour) in enumerate(colours.items()):
        yield f'<rect x="{20 + n * 200}" y="14" width="12" height="12" fill="{colour}"/>' + _text(38 + n * 200, 25, engine)


def _bars(legs: list[Measured], colours: dict[str, str], top: int) -> tuple[list[str], int]:
    out = [_text(20, top, "CPU of all proxies per request, microseconds")]
    top += 16
    costs = {(m.leg, e): m.median(e, partial(cost, m)) for m in legs for e in m.engines}
    scale = (_WIDTH - _LEFT - 80) / max(costs.values(), default=1.0)
    for measured in legs:
        out.append(_text(_LEFT - 10, top + _BAR * len(measured.engines) / 2 + 4, measured.title[:38], "end"))
        for engine in measured.engines:
            width = costs[measured.leg, engine] * scale
            out.append(f'<rect x="{_LEFT}" y="{top}" width="{width:.1f}" height="{_BAR - 2}" fill="{colours[engine]}"/>')
            out.append(_text(_LEFT + width + 6, top + 12, f"{costs[measured.leg, engine]:.0f}"))
            top += _BAR
        top += _GAP
    return out, top + 20


def _where(report: Report, top: int) -> tuple[list[str], int]:
    """Where the microseconds go: a bar for each profiled leg, as long as what the leg costs without a profiler."""
    x: float
    out = [_text(20, top, "Where the CPU of the asyncio proxies goes, microseconds per request by the shares of a profile")]
    for n, (colour, part) in enumerate(zip(_PARTS, PARTS, strict=True)):
        x = 20 + n * 86
        out.append(f'<rect x="{x}" y="{top + 10}" width="12" height="12" fill="{colour}"/>' + _text(x + 16, top + 20, part))
    top += 34
    legs = {m.leg: m for m in report.measured if ASYNCIO in m.engines}
    spent = {p.leg: legs[p.leg].median(ASYNCIO, partial(cost, legs[p.leg])) for p in report.profiles if p.leg in legs}
    scale = (_WIDTH - _LEFT - 80) / max(spent.values(), default=1.0)
    for profile in (p for p in report.profiles if p.leg in spent and not legs[p.leg].bulk):
        out.append(_text(_LEFT - 10, top + 12, legs[profile.leg].title[:38], "end"))
        x = _LEFT
        for colour, part in zip(_PARTS, PARTS, strict=True):
            width = profile.parts.get(part, 0.0) * spent[profile.leg] * scale
            out.append(f'<rect x="{x:.1f}" y="{top}" width="{width:.1f}" height="{_BAR - 2}" fill="{colour}"/>')
            if width > 22:
                out.append(_text(x + width / 2, top + 11, f"{profile.parts[part] * spent[profile.leg]:.0f}", "middle"))
            x += width
        top += _BAR + 6
    return out, top + 26


def _latency(measured: Measured, colours: dict[str, str], top: int) -> Iterator[str]:
    """Quantiles to the right on a scale of nines, milliseconds upwards on a logarithmic one."""
    curves = {e: [measured.latencies(e).quantile(q) / MILLISECOND for q in _POINTS] for e in measured.engines}
    every = [v for values in curves.values() for v in values if v > 0] or [1.0]
    low, high = math.log10(min(every)) - 0.1, math.log10(max(every)) + 0.1
    across = (_WIDTH - 140) / math.log10((1 - _POINTS[0]) / (1 - _POINTS[-1]))
    bottom = top + _PLOT_HEIGHT

    def x(q: float) -> float:
        return 80 + across * math.log10((1 - _POINTS[0]) / (1 - q))

    def y(value: float) -> float:
        return bottom - _PLOT_HEIGHT * (math.log10(max(value, 10**low)) - low) / (high - low)

    yield _text(20, top - 8, f"Latency: {measured.title}")
    for q in _POINTS:
        yield _text(x(q), bottom + 16, f"p{q * 100:g}", "middle")
    for step in range(math.ceil(low), math.floor(high) + 1):
        yield f'<line x1="80" x2="{_WIDTH - 40}" y1="{y(10**step):.1f}" y2="{y(10**step):.1f}" stroke="#ddd"/>' + _text(
            74, y(10**step) + 4, f"{10**step:g} ms", "end"
        )
    for engine, values in curves.items():
        points = " ".join(f"{x(q):.1f},{y(v):.1f}" for q, v in zip(_POINTS, values, strict=True))
        yield f'<polyline points="{points}" fill="none" stroke="{colours[engine]}" stroke-width="2"/>'
