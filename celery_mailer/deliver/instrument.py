"""Marks HTML so that it is known when it is opened, and which of its links are followed.

Nothing else in the HTML changes: it is not parsed and written anew. A scan finds where the values of ``href``
attributes stand, and only these are replaced, between the quotes that are there; comments are skipped, and
with them what is for Outlook alone. Which tags there are follows the HTML standard's tokenizer:
https://html.spec.whatwg.org/multipage/parsing.html#tokenization

It is done when the message is composed, and not when it is rendered. So what is stored stays as its author
wrote it, for the preview and for a resend; mail that is sent as it was given, without rendering, is marked
too; and the recipient is asked for consent as late as can be.
"""

import re
from collections.abc import Callable, Iterator
from html import unescape
from html.entities import html5

from celery_mailer import tokens
from celery_mailer.addresses import bare
from celery_mailer.consent import Mode, ceiling, consented, mode_of
from celery_mailer.models import Content, Email
from celery_mailer.tokens import Mark, Purpose

NOT_MARKED = "data-no-track"
# Out of the flow, so that nothing moves; important, for styles that are for the images of the mail.
PIXEL_STYLE = ";".join(
    f"{rule}!important"
    for rule in (
        *("display:block", "position:absolute", "width:1px", "height:1px", "min-width:0", "min-height:0"),
        *("margin:-1px 0 0 0", "padding:0", "border:0", "opacity:0"),
    )
)

# Possessive throughout, so that every step is linear.
_SOURCE = r"""(?:[^>=]++|=\s*+(?:"[^"]*+(?:"|\Z)|'[^']*+(?:'|\Z))?+)*+"""
_TOKEN = re.compile(
    rf"""<(?:
      !--(?:-?>|.*?(?:--!?>|\Z))
    | [!?][^>]*+>?
    | /(?![a-z])[^>]*+>?
    | (?P<raw>iframe|noembed|noframes|plaintext|script|style|textarea|title|xmp)(?=[\s/>]){_SOURCE}>
      .*?(?:</(?P=raw)(?=[\s/>])[^>]*+>?|\Z)
    | (?P<tag>/?[a-z][^\s/>]*+)(?P<source>{_SOURCE})(?:(?P<closed>>)|\Z)
    )""",
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)
_ATTRIBUTE = re.compile(
    r"""(?P<name>[^\s/>][^\s/>=]*+)(?:\s*+=\s*+(?:"(?P<a>[^"]*+)"?|'(?P<b>[^']*+)'?|(?P<c>[^\s>]*+)))?+"""
)
# In an attribute, a name without a semicolon is no reference before a "=", a letter or a digit.
_REFERENCE = re.compile(r"&(?:#(?:x[0-9a-f]{1,7}|\d{1,8})(?!\d);?|[a-z][a-z0-9]*+(?:;|(?!=)))", re.IGNORECASE)
# Two slashes and a host. What browsers would mend (backslashes, control characters) is left to them.
_WEB = re.compile(r"https?://[^\s/?#\\\x00-\x1f\x7f][^\\\x00-\x1f\x7f]*", re.IGNORECASE)


def marked(email: Email, content: Content, html: str) -> str:
    """``html`` with the marks that all who have a say allow; as it is, if they allow none."""
    opens, clicks = _mode(email, content, "opens"), _mode(email, content, "clicks")
    if clicks and (prefix := tokens.prefix(Purpose.CLICK)) is not None:
        html = rewrite_links(html, _tracked(prefix, _mark(email, clicks), _own(content)))
    if opens and (prefix := tokens.prefix(Purpose.OPEN)) is not None:
        token = tokens.sign(Purpose.OPEN, tokens.pack_mark(_mark(email, opens)))
        html = with_pixel(html, prefix + token)
    return html


def _mode(email: Email, content: Content, what: str) -> Mode:
    """The strictest of all; what several recipients open is nobody's in particular."""
    wanted = getattr(content, f"track_{what}")
    mode = min(ceiling(email.stream, what), mode_of(wanted) if wanted else Mode.IDENTIFIED)
    if mode == Mode.OFF or content.sensitive:
        return Mode.OFF
    recipients = email.recipients
    mode = min(mode, Mode.IDENTIFIED if len(recipients) == 1 else Mode.ANONYMOUS)
    return min([mode, *(consented(bare(address), email.stream) for address in recipients)])


def _mark(email: Email, mode: Mode) -> Mark:
    return Mark(email.pk) if mode == Mode.IDENTIFIED else Mark(None, email.stream, email.batch_id)


def _tracked(prefix: str, mark: Mark, own: tuple[str, ...]) -> Callable[[str], str | None]:
    """From where a link leads to where it leads when it is tracked; ``None`` for those of ``own``."""

    def address(target: str) -> str | None:
        if target.startswith(own):
            return None
        tracked = prefix + tokens.sign(Purpose.CLICK, tokens.pack_mark(mark, target))
        return tracked if len(tracked) <= tokens.LONGEST_LINK else None

    return address


def _own(content: Content) -> tuple[str, ...]:
    """What the links begin with that are left alone: ours, and those by which the caller lets one leave."""
    given = (value for name, value in content.headers.items() if name.lower() == "list-unsubscribe")
    links = [link for value in given for link in re.findall(r"<\s*(https?:[^>\s]+)", value)]
    return (*links, *(prefix for purpose in Purpose if (prefix := tokens.prefix(purpose)) is not None))


def rewrite_links(html: str, replacement: Callable[[str], str | None]) -> str:
    """``html`` with each web address that a link leads to replaced, but where ``replacement`` has none."""
    parts, position = [], 0
    for start, end in _places(html):
        target = target_of(html[start:end])
        address = replacement(target) if target else None
        if address is not None:
            parts += [html[position:start], address]
            position = end
    return "".join([*parts, html[position:]])


def _places(html: str) -> Iterator[tuple[int, int]]:
    """Where the values of the links' ``href`` stand."""
    for tag in _TOKEN.finditer(html):
        if tag["closed"] is None or tag["tag"].lower() not in ("a", "area"):
            continue
        place, names = None, set()
        for attribute in _ATTRIBUTE.finditer(html, *tag.span("source")):
            name = attribute["name"].lower()
            value = attribute.lastgroup
            if name == "href" and name not in names and value in ("a", "b", "c"):
                place = attribute.span(value)
            names.add(name)  # of two with the same name, the first counts
        if place is not None and NOT_MARKED not in names:
            yield place


def target_of(value: str) -> str | None:
    """The web address in an attribute's ``value``, as a browser reads it; ``None`` for any other."""
    address = _REFERENCE.sub(lambda found: _decoded(found[0]), value) if "&" in value else value
    # https://url.spec.whatwg.org/#url-parsing: what is stripped, and what is left out everywhere.
    address = re.sub(r"[\t\n\r]", "", address.strip("".join(map(chr, range(33)))))
    try:
        address.encode()
    except UnicodeEncodeError:
        return None
    return address if _WEB.fullmatch(address) else None


def _decoded(reference: str) -> str:
    name = reference[1:]
    return unescape(reference) if name.startswith("#") or name in html5 else reference


def with_pixel(html: str, address: str) -> str:
    """``html`` with an image of one transparent pixel at the end of its body, if it can be told where."""
    found = list(_TOKEN.finditer(f"{html}<b>"))
    if found[-1].start() != len(html):  # it ends in the middle of a tag, a comment, a script
        return html
    ends = {(tag["tag"] or "").lower(): tag.start() for tag in found}
    at = ends.get("/body", ends.get("/html", len(html)))
    pixel = f'<img src="{address}" alt="" width="1" height="1" style="{PIXEL_STYLE}">'
    return html[:at] + pixel + html[at:]
