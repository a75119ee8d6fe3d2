"""Plots as SVG, made on the server: columns of stacked parts, coloured by the style sheet."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from django.utils.functional import Promise
from django.utils.html import format_html, format_html_join
from django.utils.numberformat import format as format_number
from django.utils.safestring import SafeString

WIDTH, HEIGHT, LEFT, RIGHT, BOTTOM, TOP = 480, 170, 60, 16, 20, 10


@dataclass(frozen=True)
class Part:
    """A piece of a column. ``mark`` is what it is coloured by."""

    mark: str
    word: str | Promise
    number: int


@dataclass(frozen=True)
class Column:
    """``parts`` from the bottom up; ``missing`` says why there are none to show."""

    label: str
    parts: list[Part] = field(default_factory=list)
    missing: str | Promise = ""

    @property
    def total(self) -> int:
        return sum(part.number for part in self.parts)

    @property
    def words(self) -> str:
        told = ", ".join(f"{part.number} {part.word}" for part in self.parts if part.number)
        return f"{self.label}: {self.missing or told or 0}"


def stacked(title: str | Promise, columns: Sequence[Column], every: int = 1) -> SafeString:
    """``columns`` beside each other, with a label below each ``every``-th; each tells its numbers."""
    top = ceiling(max((column.total for column in columns), default=0))
    step = (WIDTH - LEFT - RIGHT) / max(1, len(columns))
    drawn = [_column(column, LEFT + n * step, step, top) for n, column in enumerate(columns)]
    labels = [
        (round(LEFT + (n + 0.5) * step, 1), HEIGHT - 5, column.label)
        for n, column in enumerate(columns)
        if (len(columns) - 1 - n) % every == 0
    ]
    return format_html(
        '<svg class="mailer-plot" viewBox="0 0 {} {}" role="img" aria-label="{}">{}{}{}</svg>',
        WIDTH,
        HEIGHT,
        f"{title}. {'; '.join(column.words for column in columns if column.total)}",
        _lines(top),
        format_html_join("", '<text class="below" x="{}" y="{}">{}</text>', labels),
        format_html_join("", "{}", ((one,) for one in drawn)),
    )


def ceiling(number: int) -> int:
    """The end of the scale: 1, 2 or 5 with noughts, so that its half and whole are plain numbers."""
    power = 1
    while power * 10 < number:
        power *= 10
    return next(power * n for n in (2, 4, 10) if power * n >= number)


def _y(number: float, top: int) -> float:
    return round(HEIGHT - BOTTOM - number / top * (HEIGHT - BOTTOM - TOP), 1)


def _lines(top: int) -> SafeString:
    scale = [(LEFT, WIDTH, _y(n, top), LEFT - 6, _y(n, top) + 4, _short(n)) for n in (0, top // 2, top)]
    lines = ((y, left, right, at, below, text) for left, right, y, at, below, text in scale)
    return format_html_join(
        "", '<path d="M{1} {0}H{2}"/><text class="beside" x="{3}" y="{4}">{5}</text>', lines
    )


def _short(number: int) -> str:
    return format_number(number, ".", 0, grouping=3, thousand_sep=" ", force_grouping=True)


def _column(column: Column, x: float, step: float, top: int) -> SafeString:
    parts, at = [], 0
    for part in column.parts:
        if part.number:
            y = _y(at + part.number, top)
            parts.append(
                (part.mark, round(x + step * 0.1, 1), y, round(step * 0.8, 1), round(_y(at, top) - y, 1))
            )
            at += part.number
    if column.missing:
        y = _y(top, top)
        parts.append(("missing", round(x + step * 0.1, 1), y, round(step * 0.8, 1), round(_y(0, top) - y, 1)))
    rects = format_html_join("", '<rect data-mark="{}" x="{}" y="{}" width="{}" height="{}"/>', parts)
    return format_html("<g><title>{}</title>{}</g>", column.words, rects)
