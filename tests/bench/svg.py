"""Bar charts as SVG, readable on light and dark pages."""

from collections.abc import Sequence
from html import escape

WIDTH, BAR, GAP, LABEL, TOP = 760, 22, 8, 270, 44
OURS, THEIRS, LIMIT, INK = "#2f6f4f", "#8aa0b4", "#c9ced4", "#6a737d"


def bars(title: str, unit: str, rows: Sequence[tuple[str, float, str]]) -> str:
    """A horizontal bar for each of ``rows``: label, value, colour."""
    longest = max((value for _, value, _ in rows), default=0) or 1
    height = TOP + len(rows) * (BAR + GAP) + GAP
    room = WIDTH - LABEL - 90
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" role="img">',
        f'<g font-family="sans-serif" font-size="13" fill="{INK}">',
        f"<title>{escape(title)}</title>",
        f'<text x="0" y="18" font-size="15" font-weight="bold">{escape(title)}, {escape(unit)}</text>',
    ]
    for n, (label, value, colour) in enumerate(rows):
        y = TOP + n * (BAR + GAP)
        width = max(value / longest * room, 1)
        parts += [
            f'<text x="{LABEL - 8}" y="{y + 15}" text-anchor="end">{escape(label)}</text>',
            f'<rect x="{LABEL}" y="{y}" width="{width:.1f}" height="{BAR}" fill="{colour}"/>',
            f'<text x="{LABEL + width + 6:.1f}" y="{y + 15}">{number(value)}</text>',
        ]
    return "\n".join([*parts, "</g>", "</svg>\n"])


def number(value: float) -> str:
    """Three digits that count, and no more."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
