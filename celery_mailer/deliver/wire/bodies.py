"""A text as it stands in a part: its content transfer encoding (RFC 2045, section 6), and its lines.

Django 5.2 leaves a text as it is, unless a line is longer than RFC 5322 allows (section 2.1.1). From 6.0 on
Python's newer API decides (``email.contentmanager``): a text with a line longer than 78 bytes is encoded, in
the shorter way, as its first ten lines foretell. Tests hold both against the library.
"""

import binascii
import re
from collections.abc import Sequence
from email import quoprimime
from typing import NamedTuple

import django

from celery_mailer.deliver.wire.unusual import Unusual

MODERN = django.VERSION >= (6, 0)
LONGEST = 998  # bytes of a line, without its end
FOLD, FOLD_LEGACY = 78, 76  # characters of a line of quoted-printable, at most
PER_LINE = 57  # bytes in a line of base64
SNIFFED = 10  # lines by which the encoding is chosen

_PRINTABLE = b"\t\n" + bytes(range(32, 127))
_UNPRINTABLE = re.compile(rb"[^\t\n -~]")
BLANK = (b" ", b"\t")


class Body(NamedTuple):
    """A text, encoded; its lines end with CRLF."""

    encoding: str
    data: bytes


def encoded(text: str) -> Body:
    """``text`` in UTF-8, as this version of Django would write it. Raises ``Unusual``."""
    try:
        data = text.encode()
    except UnicodeEncodeError as error:  # halves of surrogate pairs
        raise Unusual from error
    return _modern(data) if MODERN else _legacy(text, data)


def _legacy(text: str, data: bytes) -> Body:
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if len(data) > LONGEST and _has_too_long_a_line(text, data):
        lines = _quoted(data.split(b"\n"), FOLD_LEGACY)
        return Body("quoted-printable", b"\n".join(lines).replace(b"\n", b"\r\n"))
    return Body("7bit" if data.isascii() else "8bit", data.replace(b"\n", b"\r\n"))


def _has_too_long_a_line(text: str, data: bytes) -> bool:
    """Django goes by ``str.splitlines``, which knows more line ends than mail does."""
    if max(map(len, data.split(b"\n"))) <= LONGEST:
        return False
    return any(len(line.encode()) > LONGEST for line in text.splitlines())


def _modern(data: bytes) -> Body:
    lines = data.splitlines()
    if max(map(len, lines), default=0) <= FOLD:
        return Body("7bit" if data.isascii() else "8bit", _joined(lines))
    quoted = _sniffed(lines[:SNIFFED])
    if quoted is None:
        return Body("base64", _base64(_joined(lines)))
    quoted += _quoted(lines[SNIFFED:], FOLD)
    return Body("quoted-printable", _joined(quoted).replace(b"=\n", b"=\r\n"))


def _sniffed(lines: Sequence[bytes]) -> list[bytes] | None:
    """The first lines in quoted-printable, or ``None`` if they are shorter in base64."""
    text = _joined(lines)
    most = len(binascii.b2a_base64(text))
    escapes = len(text.translate(None, _PRINTABLE)) - len(lines)  # without the CR at the end of each
    if len(text) - len(lines) + 2 * escapes > most:  # without soft breaks, and the escapes of blanks and "="
        return None
    quoted = _quoted(lines, FOLD)
    return quoted if sum(map(len, quoted)) + len(quoted) <= most else None


def _joined(lines: Sequence[bytes]) -> bytes:
    return b"\r\n".join(lines) + b"\r\n"


def _base64(data: bytes) -> bytes:
    chunks = (data[i : i + PER_LINE] for i in range(0, len(data), PER_LINE))
    return b"".join(binascii.b2a_base64(chunk, newline=False) + b"\r\n" for chunk in chunks)


def _quoted(lines: Sequence[bytes], most: int) -> list[bytes]:
    """Each line in quoted-printable, with ``=\\n`` where it has to be broken to have ``most`` characters."""
    text = b"".join([line + b"\n" for line in lines])
    escaped = text.replace(b"=", b"=3D")
    if escaped.translate(None, _PRINTABLE):
        escaped = _UNPRINTABLE.sub(_escape, escaped)
    found = [line if len(line) <= most else _pieces(line, most) for line in escaped.split(b"\n")[:-1]]
    if b" \n" in text or b"\t\n" in text:
        return [
            _by_library(raw, most) if raw.endswith(BLANK) else line
            for raw, line in zip(lines, found, strict=True)
        ]
    return found


def _by_library(line: bytes, most: int) -> bytes:
    # It has cases for how much room is left for the blank at the end; and takes ten times as long.
    return quoprimime.body_encode(line.decode("latin-1"), most).encode("ascii")


def _escape(found: re.Match[bytes]) -> bytes:
    return b"=%02X" % ord(found[0])


def _pieces(line: bytes, most: int) -> bytes:
    """``line`` broken up, but nowhere within an escape (three characters from ``=`` on)."""
    pieces = []
    while len(line) > most:
        stop = line.rfind(b"=", most - 3, most - 1)
        stop = most - 1 if stop < 0 else stop
        pieces.append(line[:stop])
        line = line[stop:]
    return b"=\n".join([*pieces, line])
