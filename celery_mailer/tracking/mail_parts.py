"""The parts of a mail that came back, whatever its faults are; and what is found in them."""

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from email.errors import MessageError
from email.header import decode_header, make_header
from email.message import Message
from typing import NamedTuple

from celery_mailer.values import EventKind

LONGEST = 100_000  # bytes of a text that are read
LONGEST_HEADER = 40_000  # characters: MOST_RECIPIENTS of the longest addresses
MOST_RECIPIENTS = 100  # of a mail: each is an event, and anybody can send one that names thousands
DEEPEST = 20  # levels of nesting that are looked into
# Python's own, in which no mail is written; to decode punycode takes the square of its length.
NO_MAIL = {"punycode", "idna", "unicode-escape", "raw-unicode-escape"}


@dataclass(frozen=True, slots=True)
class Said:
    """What a mail says of one recipient; ``by`` whom."""

    kind: EventKind
    recipient: str
    by: str = ""
    bounce: str = ""
    code: int | None = None
    enhanced_code: str = ""
    text: str = ""


class _Level(NamedTuple):
    part: Message
    depth: int


def parts(mail: Message) -> Iterator[Message]:
    """``mail`` and the parts below it, in their order."""
    waiting = [_Level(mail, 0)]
    while waiting:
        part, depth = waiting.pop()
        yield part
        payload = part.get_payload()
        if isinstance(payload, list) and depth < DEEPEST:
            waiting.extend(_Level(p, depth + 1) for p in reversed(payload) if isinstance(p, Message))


def enclosed(part: Message) -> Message:
    """The mail, or the fields, in a part of the type ``message``; the part itself, if there is none."""
    payload = part.get_payload()
    inner = payload[0] if isinstance(payload, list) and payload else part
    return inner if isinstance(inner, Message) else part


def first(mail: Message, *content_types: str) -> Message | None:
    return next((part for part in parts(mail) if part.get_content_type() in content_types), None)


def header(part: Message, name: str) -> str:
    """A header's text on one line; empty if it is not there or cannot be read."""
    value = part.get(name)
    if value is None:
        return ""
    if isinstance(value, str):  # else there are no encoded words in it
        value = value[:LONGEST_HEADER]
    try:
        text = str(make_header(decode_header(value)))
    except (MessageError, ValueError, LookupError, AssertionError):
        text = str(value)
    return " ".join(storable_text(text).split())


def storable_text(text: str) -> str:
    """``text`` without what no database stores: NULs, and halves of surrogate pairs.

    By these the parser marks what it cannot decode; some charsets let the sender write them.
    """
    return text.encode("utf-8", "replace").decode().replace("\x00", "")


def text_of(part: Message) -> str:
    """The text of a part, decoded as well as can be."""
    try:
        raw = part.get_payload(decode=True)
        charset = part.get_content_charset("utf-8")
    except (ValueError, LookupError, AssertionError):
        return ""
    if not isinstance(raw, bytes):
        return ""
    raw = raw[:LONGEST]
    try:
        no_mail = codecs.lookup(charset).name in NO_MAIL
        text = raw.decode("latin-1" if no_mail else charset, "replace")
    except (LookupError, ValueError):
        text = raw.decode("latin-1")
    return storable_text(text).replace("\r\n", "\n")
