"""The text part of an email, from its HTML: what a person would have typed."""

import re
from collections.abc import Iterable
from urllib.parse import unquote

from celery_mailer.render.markup import BLOCKS, CELLS, PARAGRAPHS, Event, Table, read

_RULE = "-" * 40
_DEEPEST = (
    16  # further in, lists and quotes are not indented further: with 100,000 of them output were a square
)

# How far below the line before a block starts, at least: 2 is one blank line between.
_GAPS = dict.fromkeys((*BLOCKS, *CELLS, "li", "tbody"), 1) | dict.fromkeys(PARAGRAPHS, 2)

# Joiners and direction marks belong to words and to emoji; by themselves they are what fills up a preheader.
_FILLER = re.compile(r"(?<!\S)[\u200c-\u200f]++(?!\S)|(?<=[!-~])[\u200c\u200d]++(?!\S)")
_SPACES = re.compile(r"[^\S\u3000]+")  # an ideographic space is a character that people type
_INTEGER = re.compile(r"\s*(-?\d{1,9})(?!\d)", re.ASCII)

_NOWHERE = re.compile(r"#|(?:about|cid|data|javascript|vbscript):", re.IGNORECASE)
_SCHEME = re.compile(r"(?:https?://|mailto:)?(?:www\.)?", re.IGNORECASE)


def plaintext(html: str) -> str:
    """``html`` as readable text, for mail clients and people that show no HTML. Raises for no string.

    Blocks stand apart by a blank line, links are written ``text (address)``, images by their ``alt``;
    what is hidden is left out (see ``markup.read``). A table is data, with `` | `` between its cells, if
    some row has content in two of them and none holds a table, list, heading or several paragraphs; all
    others are layout, and their cells blocks. Lines are not wrapped.
    """
    return _Writer().write(read(html.replace("\r\n", "\n").replace("\r", "\n")))


class _Writer:
    """Writes lines. One waits in ``pieces`` until it ends; ``gap`` is how far below the last it stands."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.pieces: list[str] = []
        self.gap = 0
        self.prefix = ""  # of the lines in the lists and quotes that are open
        self.lead = ""  # of the next line: the prefix, or the mark of a list item
        self.bare = ""  # of the blank lines before it: the shortest prefix since the line before
        self.boxes: list[tuple[str, str, int]] = []  # prefix, lead and number of lines before each
        self.numbers: list[int | None] = []  # of the next item in each open list
        self.tables: list[Table] = []
        self.row: list[str] | None = None  # the cells of a data table's row
        self.link: tuple[str, list[str]] = "", []  # its address and its text
        self.pre = 0
        self.apart = False  # a word that follows needs a space

    def write(self, events: Iterable[Event]) -> str:
        for action, value, detail in events:
            if action in ("text", "alt"):
                getattr(self, f"_{action}")(value)
                continue
            self._break(_GAPS.get(value, 0))
            handler = getattr(self, f"_{action}_{value}", None)
            if handler:
                handler(detail)
        self._end_line()
        return "\n".join(self.lines)

    # Lines.

    def _text(self, text: str) -> None:
        if self.apart and text[0].isalnum():
            self.pieces.append(" ")
        self.apart = False
        if self.link[0]:
            self.link[1].append(text)
        if not self.pre:
            self.pieces.append(text)
            return
        first, *others = text.split("\n")
        self.pieces.append(first)
        for line in others:
            self._new_line(self.gap + 1)
            self.pieces.append(line)

    def _alt(self, text: str) -> None:
        self.apart = bool(self.pieces) and self.pieces[-1][-1:].isalnum()
        self._text(_collapsed(text) or " ")
        self.apart = True

    def _break(self, gap: int) -> None:
        if gap and self.row is not None:
            self.pieces.append(" ")
        elif gap:
            self._end_line()
            self.gap = max(self.gap, gap)

    def _new_line(self, blank: int) -> None:
        """End the line; where it is empty, the next one stands ``blank`` below the last."""
        if self.row is not None:
            self.pieces.append(" ")
        else:
            self.gap = 1 if self._end_line() else max(self.gap, blank)

    def _end_line(self) -> bool:
        line = self._take()
        if not line:
            return False
        if self.lines:
            self.lines.extend([self.bare.rstrip()] * (self.gap - 1))
        self.lines.append(self.lead + line)
        self.lead = self.bare = self.prefix
        self.gap = 0
        return True

    def _take(self) -> str:
        text = "".join(self.pieces)
        self.pieces.clear()
        if not text.isascii():
            text = _FILLER.sub("", text)
        return text.rstrip() if self.pre and self.row is None else _collapsed(text)

    def _open_br(self, _: object) -> None:
        self._new_line(min(2, self.gap + 1))

    def _open_hr(self, _: object) -> None:
        self.pieces.append(_RULE)
        self._break(2)

    def _open_pre(self, _: object) -> None:
        self.pre += 1

    def _close_pre(self, _: object) -> None:
        self.pre -= 1

    # Links.

    def _open_a(self, attributes: dict[str, str]) -> None:
        self.link = _address(attributes.get("href", "")), []

    def _close_a(self, _: object) -> None:
        address, text = self.link[0], _collapsed("".join(self.link[1]))
        self.link = "", []
        if not address or not text or _is_same(text, address):
            return
        if any(piece.strip() for piece in reversed(self.pieces)) or not self.lines:
            self.pieces.append(f" ({address})")
        else:  # the text was a block
            self.lines[-1] += f" ({address})"
        self.apart = True

    # Lists and quotes.

    def _open_ul(self, _: object) -> None:
        self._open_list(None)

    def _open_ol(self, attributes: dict[str, str]) -> None:
        start = _integer(attributes.get("start", ""))
        self._open_list(1 if start is None else start)

    def _open_list(self, number: int | None) -> None:
        self._break(1 if self.numbers else 2)
        self.numbers.append(number)

    def _close_list(self, _: object) -> None:
        self.numbers.pop()
        self._break(1 if self.numbers else 2)

    _open_menu = _open_dir = _open_ul
    _close_ul = _close_ol = _close_menu = _close_dir = _close_list

    def _open_li(self, attributes: dict[str, str]) -> None:
        number = self.numbers[-1] if self.numbers else None
        if number is None:
            self._open_box("- ", "  ")
            return
        value = _integer(attributes.get("value", ""))
        number = number if value is None else value
        self.numbers[-1] = number + 1
        mark = f"{number}. "
        self._open_box(mark, " " * len(mark))

    def _open_blockquote(self, _: object) -> None:
        self._open_box("> ", "> ")

    def _open_box(self, mark: str, prefix: str) -> None:
        self.boxes.append((self.prefix, self.lead, len(self.lines)))
        if len(self.boxes) <= _DEEPEST:
            self.prefix, self.lead = self.prefix + prefix, self.lead + mark

    def _close_box(self, _: object) -> None:
        self.prefix, lead, lines = self.boxes.pop()
        self.lead = lead if lines == len(self.lines) else self.prefix
        self.bare = min(self.bare, self.prefix, key=len)

    _close_li = _close_blockquote = _close_box

    # Tables.

    def _open_table(self, table: Table) -> None:
        self.tables.append(table)

    def _close_table(self, _: object) -> None:
        self.tables.pop()

    def _open_tr(self, _: object) -> None:
        data = bool(self.tables) and self.tables[-1].data
        self._break(1 if data else 2)
        self.row = [] if data else None

    def _close_cell(self, _: object) -> None:
        if self.row is not None:
            self.row.append(self._take())

    _close_td = _close_th = _close_cell

    def _close_tr(self, _: object) -> None:
        if self.row is None:
            self._break(2)
            return
        row, self.row = [*self.row, self._take()], None  # the last: what stands outside of cells
        filled = [place for place, cell in enumerate(row) if cell] or [0]
        first = 0 if len(filled) > 1 else filled[0]  # an empty first cell only matters in a row of several
        self.pieces.append(" | ".join(row[first : filled[-1] + 1]))
        self._break(1)


def _collapsed(text: str) -> str:
    return _SPACES.sub(" ", text).strip(" ").rstrip()


def _integer(value: str) -> int | None:
    match = _INTEGER.match(value)
    return int(match[1]) if match else None


def _address(href: str) -> str:
    """What to write of ``href``: nothing if it leads nowhere, an email address or number alone."""
    address = href.translate({9: None, 10: None}).strip().replace(" ", "%20")
    if _NOWHERE.match(address):
        return ""
    scheme, _, rest = address.partition(":")
    return rest if scheme.lower() in ("mailto", "tel") and "?" not in rest else address


def _is_same(text: str, address: str) -> bool:
    if address.lower().startswith("mailto:"):  # with a subject or the like
        address = address.partition("?")[0]
    return _bare(text) == _bare(address)


def _bare(address: str) -> str:
    return unquote(_SCHEME.sub("", address, count=1)).rstrip("/").casefold()
