"""Pictures of a ring as SVG, for notebooks, without a plotting library."""

from collections import defaultdict
from html import escape
from math import ceil, cos, pi, sin
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dkv.ring import Ring

_BASE = (
    *("4e79a7", "f28e2b", "59a14f", "e15759", "76b7b2"),
    *("edc948", "b07aa1", "9c755f", "ff9da7", "bab0ac"),
)
_SHADES = (0.0, -0.35, 0.5, -0.6, 0.25)  # towards black, or towards white

_SLICES = 720  # what a screen can show of the circle; it has up to 256,000 tokens and more
_SIZE = 300  # of the picture of the circle, in pixels
_ROWS = 16  # of the legend, before it takes another column
_COLUMNS = 4  # of the legend, at most
_LAP = 0.0003  # by this part of a turn an arc runs under the next, so that no seam shines through
_ROW = 18
_SHOWN = 100  # nodes in the legend, at most


def colours(n: int) -> list[str]:
    """`n` colours, different for up to 50."""
    return [_shaded(_BASE[i % 10], _SHADES[i // 10 % len(_SHADES)]) for i in range(n)]


def _shaded(colour: str, shade: float) -> str:
    parts = [int(colour[at : at + 2], 16) for at in (0, 2, 4)]
    target = 255 if shade > 0 else 0
    return "#" + "".join(f"{round(part + (target - part) * abs(shade)):02x}" for part in parts)


def ring_svg(ring: "Ring") -> str:
    """The circle: outside who owns which part, inside the sums; and a legend with the shares."""
    shares = ring.shares()
    colour = dict(zip(ring.nodes, colours(len(ring.nodes)), strict=True))
    rows, legend, width = _legend(shares, colour)
    height = max(_SIZE, rows * _ROW + 50)
    middle = _SIZE / 2
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_SIZE + width}" height="{height}" '
        f'viewBox="0 0 {_SIZE + width} {height}" font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<g transform="translate({middle:g} {height / 2:g})" fill="none">',
        *_band(_owned_slices(ring), colour, radius=122, width=34),
        *_band(_sums(shares), colour, radius=92, width=14),
        "</g>",
        *_caption(ring, middle, height / 2),
        f'<g transform="translate({_SIZE} {(height - rows * _ROW) / 2:g})">',
        *legend,
        "</g></svg>",
    ]
    return "\n".join(parts)


def _owned_slices(ring: "Ring") -> list[tuple[str, float, float]]:
    """(node, begin, end) in turns: at the resolution of the picture, who owns which part."""
    slices: list[tuple[str, float, float]] = []
    for i in range(_SLICES):
        node = ring.list_at((2 * i + 1) * 2**63 // _SLICES)[0]
        begin = i / _SLICES
        if slices and slices[-1][0] == node:
            begin = slices.pop()[1]
        slices.append((node, begin, (i + 1) / _SLICES))
    return slices


def _sums(shares: dict[str, float]) -> list[tuple[str, float, float]]:
    sums, begin = [], 0.0
    for node, share in shares.items():
        sums.append((node, begin, begin + share))
        begin += share
    return sums


def _band(
    slices: list[tuple[str, float, float]], colour: dict[str, str], radius: float, width: float
) -> list[str]:
    """One path for each node, of arcs clockwise from the top."""
    arcs: dict[str, list[str]] = defaultdict(list)
    for node, begin, end in slices:
        if end - begin > 0.5:  # an arc cannot end where it begins
            half = (begin + end) / 2
            arcs[node] += [_arc(begin, half + _LAP, radius), _arc(half, end, radius)]
        else:
            arcs[node].append(_arc(begin, end + _LAP, radius))
    return [
        f'<path stroke="{colour[node]}" stroke-width="{width:g}" d="{"".join(paths)}"/>'
        for node, paths in arcs.items()
    ]


def _arc(begin: float, end: float, radius: float) -> str:
    (x1, y1), (x2, y2) = [
        (radius * sin(2 * pi * turn), -radius * cos(2 * pi * turn)) for turn in (begin, end)
    ]
    return f"M{x1:.1f} {y1:.1f}A{radius:g} {radius:g} 0 0 1 {x2:.1f} {y2:.1f}"


def _caption(ring: "Ring", x: float, y: float) -> list[str]:
    n = len(ring.nodes)
    lines = [
        (f"{n} node" + "s" * (n > 1), 18, -8, "#222"),
        (f"replication {ring.replication}", 12, 14, "#555"),
        (f"{ring.intervals:,} intervals", 12, 31, "#555"),
    ]
    return [
        f'<text x="{x:g}" y="{y + down:g}" font-size="{size}" fill="{fill}" '
        f'text-anchor="middle">{text}</text>'
        for text, size, down, fill in lines
    ]


def _legend(shares: dict[str, float], colour: dict[str, str]) -> tuple[int, list[str], int]:
    """How many rows it has, its SVG, and its width. The longest bar is the largest share."""
    nodes = list(shares)[:_SHOWN]
    lines = len(nodes) + (len(shares) > _SHOWN)
    columns = min(ceil(lines / _ROWS), _COLUMNS)
    rows = ceil(lines / columns)
    name_width = 30 + 7.2 * max(map(len, nodes))
    column = name_width + 118
    largest = max(shares.values())
    decimals = 1 if largest >= 0.01 else 2
    parts = []
    for i, node in enumerate(nodes):
        x, y = i // rows * column, i % rows * _ROW
        bar = 50 * shares[node] / largest
        parts.append(
            f'<g transform="translate({x:g} {y})"><rect x="4" y="3" width="11" height="11" rx="2" '
            f'fill="{colour[node]}"/><text x="21" y="13">{escape(node)}</text>'
            f'<rect x="{name_width:g}" y="5" width="{bar:.1f}" height="7" '
            f'fill="{colour[node]}"/><text x="{name_width + 98:g}" y="13" fill="#555" '
            f'text-anchor="end">{100 * shares[node]:.{decimals}f} %</text></g>'
        )
    if len(shares) > _SHOWN:
        x, y = (lines - 1) // rows * column, (lines - 1) % rows * _ROW
        more = len(shares) - _SHOWN
        parts.append(f'<text x="{x + 4:g}" y="{y + 13}" fill="#555">and {more} more</text>')
    return rows, parts, ceil(columns * column)
