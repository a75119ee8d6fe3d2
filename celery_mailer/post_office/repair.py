"""What django-post_office's format breaks, mended as far as what it stored allows. Nothing here does I/O.

Only waiting emails are mended; history stays what was sent.
"""

import binascii
import re
from base64 import b64decode
from collections.abc import Iterator, Mapping
from quopri import decodestring
from typing import Any

from celery_mailer.addresses import named

# A comma, or what may hold one: a quoted string (RFC 5322, section 3.2.4), angle brackets.
_COMMA = re.compile(r'"(?:\\.|[^"\\])*"|<[^>]*>|,')
# A name that nobody quoted, and its address.
_LOOSE = re.compile(r'^([^"<>]*,[^"<>]*)<([^<>]+)>$')

# What ``django.utils.html.escape`` makes of a character. "&amp;" is last: one level is undone, not two.
_ENTITIES = {"&lt;": "<", "&gt;": ">", "&quot;": '"', "&#x27;": "'", "&#39;": "'", "&amp;": "&"}
_ENTITY = re.compile("|".join(_ENTITIES))

# What a part says of its own encoding; ours is encoded anew.
ENCODING_HEADERS = {"content-type", "content-transfer-encoding", "mime-version"}


class Damaged(Exception):
    """The file of an attachment cannot be read; the words are what is said of it."""


def addresses(joined: str | None) -> list[str]:
    """The addresses in a column that joins them by commas, and that splits names with a comma in two.

    A piece without an "@" is no address, but the beginning of the name that the next one goes on with.
    """
    found: list[str] = []
    pending = ""
    for piece in _pieces(joined or ""):
        pending += piece
        if "@" in piece:
            found.append(quoted(pending.strip(" ,")))
            pending = ""
    rest = pending.strip(" ,")
    return [*found, rest] if rest else found


def _pieces(joined: str) -> Iterator[str]:
    """``joined`` in pieces, each with the comma that it ends in."""
    start = 0
    for found in _COMMA.finditer(joined):
        if found[0] == ",":
            yield joined[start : found.end()]
            start = found.end()
    yield joined[start:]


def quoted(address: str) -> str:
    """``address`` with its display name in quotes, if it has a comma in it and needs them."""
    loose = _LOOSE.match(address)
    return named(loose[1].strip(), loose[2].strip()) if loose else address


def unescaped(text: str) -> str:
    """``text`` as it was before a template for HTML escaped it."""
    return _ENTITY.sub(lambda found: _ENTITIES[found[0]], text) if "&" in text else text


def one_line(subject: str) -> str:
    """``subject`` without the line breaks that a template has left, which no header may have."""
    return subject if subject.splitlines() in ([], [subject]) else " ".join(subject.split())


def part(data: bytes, headers: Any) -> tuple[bytes, dict[str, str]]:
    """The bytes of an attachment, and the headers that say more than how they are encoded.

    Of a MIME part, Django's backend had the encoded form stored as the file. Raises ``Damaged``.
    """
    if headers and not isinstance(headers, Mapping):
        raise Damaged("has headers that are no JSON object")
    given = {str(name): str(value) for name, value in (headers or {}).items()}
    encoding = next((v.lower() for n, v in given.items() if n.lower() == "content-transfer-encoding"), "")
    kept = {name: value for name, value in given.items() if name.lower() not in ENCODING_HEADERS}
    if encoding == "base64":
        try:
            return b64decode(data), kept
        except binascii.Error as error:
            raise Damaged(f"is no base64: {error}") from None
    return (decodestring(data) if encoding == "quoted-printable" else data), kept
