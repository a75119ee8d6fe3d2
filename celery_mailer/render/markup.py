"""What a reader sees of an HTML document, as balanced events.

The tags are found by a pattern and not by ``html.parser``. In Python 3.11.7 and 3.12.1 that one reads
``?a=1&copy=2`` in an address as ``?a=1©=2``, raises for ``<![x]>`` and for a character reference of 5,000
digits, and takes 31 s for 48 KB of ``<a <a <a``. Here every step is linear in the document's size and
without recursion. Which tag ends which element follows the HTML standard, as far as text needs it:
https://html.spec.whatwg.org/multipage/parsing.html#parsing-main-inbody
"""

import re
from dataclasses import dataclass
from html import unescape
from typing import Any, NamedTuple

LISTS = ("ul", "ol", "menu", "dir")
HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
PARAGRAPHS = ("p", "pre", "blockquote", "dl", "table", "figure", "fieldset", "hr", *HEADINGS)
BLOCKS = (
    *("address", "article", "aside", "body", "center", "dd", "details", "dialog", "div", "dt", "figcaption"),
    *("footer", "form", "header", "hgroup", "html", "legend", "main", "nav", "option", "section", "summary"),
)
CELLS = ("td", "th", "caption")
_PARTS = ("thead", "tbody", "tfoot", "tr", *CELLS)
_FENCES = ("table", *CELLS)  # what an end tag does not reach across
_INLINE_FREE = frozenset({*LISTS, *PARAGRAPHS, *BLOCKS, *_PARTS, "li"})
# Not found in data.
_STRUCTURE = frozenset({*HEADINGS, *LISTS, "li", "table", "dl", "blockquote", "pre", "hr"})
VOID = frozenset(
    {
        *("area", "base", "br", "col", "embed", "hr", "img", "input", "link"),
        *("meta", "param", "source", "track", "wbr"),
    }
)
_METADATA = frozenset({"base", "link", "meta", "noscript", "script", "style", "template", "title"})

# Which open elements a start tag ends, and the elements that it does not reach across.
_ENDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    **dict.fromkeys((*BLOCKS, *PARAGRAPHS, *LISTS), (("p",), _FENCES)),
    **dict.fromkeys(("dt", "dd"), (("dt", "dd", "p"), (*_FENCES, "dl"))),
    **dict.fromkeys(CELLS, (CELLS, ("table",))),
    **dict.fromkeys(("thead", "tbody", "tfoot"), (_PARTS, ("table",))),
    "a": (("a",), _FENCES),
    "li": (("li", "p"), (*_FENCES, *LISTS)),
    "tr": (("tr", *CELLS), ("table",)),
}
_END_FENCES = {"li": (*_FENCES, *LISTS), **dict.fromkeys(("table", *_PARTS), ("table",))}

# Possessive throughout: what has no end ends with the document, and nothing is tried twice.
_SOURCE = r"""(?:[^>=]++|=\s*+(?:"[^"]*+(?:"|\Z)|'[^']*+(?:'|\Z))?+)*+"""
_TOKEN = re.compile(
    rf"""<(?:
      !--(?:-?>|.*?(?:--!?>|\Z))
    | [!?][^>]*+>?
    | (?P<raw>iframe|noembed|noframes|script|style|title|xmp)(?=[\s/>]){_SOURCE}(?<!/)>
      .*?(?:</(?P=raw)(?=[\s/>])[^>]*+>?|\Z)
    | (?P<end>/?)(?P<tag>[a-z][^\s/>]*+)(?P<source>{_SOURCE})(?:>|\Z)
    )""",
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)
_ATTRIBUTE = re.compile(r"""([^\s/=]++)(?:\s*+=\s*+(?:"([^"]*+)"?|'([^']*+)'?|([^\s]*+)))?+""")
_SELF_CLOSED = re.compile(r"""(?:\A|[\s"']|\s[^\s=]+)/\s*\Z""")  # not: href=https://example.com/
_REFERENCE = re.compile(r"&(?:#\d{1,8}|#x[0-9a-f]{1,8}|[a-z][a-z0-9]*);", re.IGNORECASE)
_HUGE_REFERENCE = re.compile(r"&#\d{9,};?")  # int() raises for more than 4,300 digits

# No-break spaces become plain ones; control characters, soft hyphens, grapheme joiners, zero-width
# spaces and word joiners are seen nowhere.
_UNSEEN = (*range(9), *range(14, 28), 0x7F, 0xAD, 0x34F, 0x200B, 0x2060, 0xFEFF)
_CLEANED: dict[int, str | None] = {0xA0: " ", **dict.fromkeys(_UNSEEN)}

_ZERO = re.compile(r"\.?0[.0]*[a-z%]*")
_BLOCK_DISPLAYS = ("block", "flex", "grid", "list-item", "table")


class Event(NamedTuple):
    """``open`` and ``close`` of an element, or ``text``, or the ``alt`` text of an image."""

    action: str
    value: str  # the tag in small letters, or the text
    detail: Any = None  # of ``open``: the attributes, a dict; the ``Table`` of a table


@dataclass(slots=True)
class Table:
    """What the content of a table says of its purpose: data, or the layout that emails are made of."""

    layout: bool
    columns: int = 0  # with content, in the row that has most of them
    cells: int = 0  # with content, in the row that is open
    content: bool = False  # in the cell that is open
    paragraphs: int = 0

    @property
    def data(self) -> bool:
        """Whether the cells of a row belong on one line."""
        return self.columns > 1 and not self.layout

    def opened(self, tag: str) -> None:
        if tag in ("td", "th"):
            self.content, self.paragraphs = False, 0
        self.paragraphs += tag == "p"
        self.layout |= tag in _STRUCTURE or self.paragraphs > 1

    def closed(self, tag: str) -> None:
        if tag in ("td", "th"):
            self.cells += self.content
        elif tag == "tr":
            self.columns, self.cells = max(self.columns, self.cells), 0


def read(html: str) -> list[Event]:
    """The events of ``html``, whose lines end in ``\\n``; all that open close, but ``br`` and ``hr``.

    Left out is what a reader does not see: head, comments, and elements hidden by ``hidden``,
    ``aria-hidden`` or their ``style``, to their end or their parent's. ``mso-hide`` hides from Outlook
    alone, and a ``font-size`` of 0 ends where a descendant has another: MJML sets it around everything.
    Raises for no string.
    """
    html, reader, position = html.translate(_CLEANED), _Reader(), 0
    for token in _TOKEN.finditer(html):
        reader.text(_decoded(html[position : token.start()]))
        position = token.end()
        if token["end"]:
            reader.end(token["tag"].lower())
        elif token["tag"]:
            reader.start(token["tag"].lower(), token["source"])
            if token["tag"].lower() == "pre" and html.startswith("\n", position):
                position += 1  # the one after the tag is not part of the text
    reader.text(_decoded(html[position:]))
    reader.close_from(1)
    return reader.events


class _Element(NamedTuple):
    tag: str = ""
    small: bool = False  # its font size is 0
    block: bool = False  # an inline element that its style makes a block
    outer: int = -1  # the place of the next element outwards with this tag
    fence: int = -1  # the place of the innermost fence, itself included


class _Reader:
    """Keeps the open elements and ends those that end by implication."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.stack = [_Element()]
        self.places: dict[str, int] = {}  # of the innermost element with a tag in the stack
        self.tables: list[Table] = []
        self.hidden = 0  # the place of the outermost hidden element; 0 is none

    def text(self, text: str, action: str = "text") -> None:
        if self.hidden or not text:
            return
        if action == "text" and self.stack[-1].small:
            text = " "
        if self.tables and not text.isspace():
            self.tables[-1].content = True
        self.events.append(Event(action, text))

    def start(self, tag: str, source: str) -> None:
        attributes = _attributes(source) if source else {}
        style = _style(attributes["style"]) if "style" in attributes else {}
        self._end_implied(tag)
        if tag in VOID:
            self._void(tag, attributes, style)
            return
        if tag in ("td", "th") and self._place("table") > self._place("tr"):
            self._push("tr", {}, {})
        self._push(tag, attributes, style)
        if _SELF_CLOSED.search(source):
            self.close_from(len(self.stack) - 1)

    def end(self, tag: str) -> None:
        place = self._place(tag)
        if tag in _END_FENCES:
            fence = self._place(*_END_FENCES[tag])
        else:  # hidden, a table is no fence: nothing is to stay hidden after the end of what is around it
            fence = self.stack[self.hidden - 1 if self.hidden else -1].fence
        if place > 0 and place >= fence:
            self.close_from(place)
        elif tag in ("p", "br"):  # to browsers, an empty element
            self.start(tag, "/")

    def close_from(self, place: int) -> None:
        while len(self.stack) > place:
            element = self.stack.pop()
            self.places[element.tag] = element.outer
            if not self.hidden:
                self._closed(element)
            elif self.hidden == len(self.stack):
                self.hidden = 0

    def _void(self, tag: str, attributes: dict[str, str], style: dict[str, str]) -> None:
        if self.hidden or _hides(tag, attributes, style):
            return
        if tag in ("br", "hr"):
            self._opened(tag, attributes)
        elif tag == "img" and not _is_pixel(attributes, style):
            self.text(attributes.get("alt", ""), "alt")

    def _push(self, tag: str, attributes: dict[str, str], style: dict[str, str]) -> None:
        place = len(self.stack)
        if not self.hidden and _hides(tag, attributes, style):
            self.hidden = place
        small = self._is_small(attributes, style)
        block = tag not in _INLINE_FREE and style.get("display") in _BLOCK_DISPLAYS
        fence = place if tag in _FENCES else self.stack[-1].fence
        self.stack.append(_Element(tag, small, block, self._place(tag), fence))
        self.places[tag] = place
        if not self.hidden:
            if block:
                self.events.append(Event("open", "div", {}))
            self._opened(tag, attributes)

    def _opened(self, tag: str, attributes: dict[str, str]) -> None:
        detail: Any = attributes
        if self.tables:
            self.tables[-1].opened(tag)
        if tag == "table":
            detail = Table(layout=attributes.get("role") in ("presentation", "none"))
            self.tables.append(detail)
        self.events.append(Event("open", tag, detail))

    def _closed(self, element: _Element) -> None:
        if element.tag == "table":
            self.tables.pop()
        elif self.tables:
            self.tables[-1].closed(element.tag)
        self.events.append(Event("close", element.tag))
        if element.block:
            self.events.append(Event("close", "div"))

    def _end_implied(self, tag: str) -> None:
        if tag not in _METADATA and self.places.get("head", 0) > 0:
            self.close_from(self.places["head"])
        if tag in _ENDS:
            closes, fences = _ENDS[tag]
            fence = self.stack[-1].fence if fences is _FENCES else self._place(*fences)
            places = [self.places[tag] for tag in closes if self.places.get(tag, 0) > max(fence, 0)]
            if places:
                self.close_from(min(places))

    def _is_small(self, attributes: dict[str, str], style: dict[str, str]) -> bool:
        if "font-size" in style or "font" in style:
            return _is_zero(style.get("font-size", ""))
        # A class may set a size: rather a hidden text too many than a visible one too few.
        return self.stack[-1].small and "class" not in attributes

    def _place(self, *tags: str) -> int:
        return max([self.places.get(tag, -1) for tag in tags])


def _attributes(source: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, *values in _ATTRIBUTE.findall(source):
        value = _REFERENCE.sub(lambda match: _decoded(match[0]), "".join(values))
        found.setdefault(name.lower(), value)
    return found


def _style(source: str) -> dict[str, str]:
    declarations = (part.partition(":") for part in source.lower().split(";"))
    return {name.strip(): value.partition("!")[0].strip() for name, _, value in declarations}


def _decoded(text: str) -> str:
    return unescape(_HUGE_REFERENCE.sub("\ufffd", text)).translate(_CLEANED) if "&" in text else text


def _hides(tag: str, attributes: dict[str, str], style: dict[str, str]) -> bool:
    return tag in ("head", "template") or (
        bool(attributes)
        and (
            "hidden" in attributes
            or attributes.get("aria-hidden", "").lower() == "true"
            or style.get("display") == "none"
            or style.get("visibility") in ("hidden", "collapse")
            or _is_zero(style.get("max-height", ""))
            or _is_zero(style.get("opacity", ""))
        )
    )


def _is_zero(value: str) -> bool:
    return _ZERO.fullmatch(value) is not None


def _is_pixel(attributes: dict[str, str], style: dict[str, str]) -> bool:
    sizes = (style.get(side) or attributes.get(side, "") for side in ("width", "height"))
    return all(size.strip().removesuffix("px") in ("0", "1") for size in sizes)
