"""Header fields as lines. Plain ones are written as they are, all others folded by the library.

A plain one is short ASCII in which no rule changes anything: no encoded words (RFC 2047), no quoting, no
folding (RFC 5322, section 2.2.3).
"""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.headerregistry import HeaderRegistry
from email.message import EmailMessage
from email.policy import SMTP, compat32
from email.utils import format_datetime, formatdate
from functools import lru_cache
from typing import Any

import django
from celery.exceptions import SoftTimeLimitExceeded
from django.core.mail import message as django_message
from django.utils.timezone import get_current_timezone

from celery_mailer import conf
from celery_mailer.deliver.list_headers import LONGEST_LINE
from celery_mailer.deliver.wire.unusual import Unusual

MODERN = django.VERSION >= (6, 0)  # Django makes messages by Python's newer API (email.policy)
LINE = 78  # characters, from which on both of Python's APIs fold a line

# Fields that Django or the MIME frame write, and of which a second one is ignored, refused, or worse.
NOT_EXTRA = frozenset({"subject", "from", "to", "cc", "bcc", "reply-to", "mime-version"})

_NAME = re.compile(r"[A-Za-z0-9]+(?:-[A-Za-z0-9]+)*")
_WORDS = re.compile(r"[!-~]+(?: [!-~]+)*")
_SPEC = r"[A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*"
_MAILBOX = rf"(?:{_SPEC}|[A-Za-z0-9]+(?: [A-Za-z0-9]+)* <{_SPEC}>)"
_MAILBOXES = re.compile(rf"{_MAILBOX}(?:, {_MAILBOX})*")
_NEVER = re.compile(r"(?!)")

# What is plain in a field that has a syntax of its own; the rest are words to every reader and writer.
_PLAIN = {name: _NEVER for name in HeaderRegistry().registry if name != "subject"} | {
    "from": _MAILBOXES,
    "to": _MAILBOXES,
    "cc": _MAILBOXES,
    "reply-to": _MAILBOXES,
    "message-id": re.compile(rf"<{_SPEC}>"),
}

# A line break behind which no folded line begins: newer Pythons refuse to write one.
_BROKEN = re.compile(r"(?:\r\n|\r(?!\n)|\n)(?![ \t])")
_LEGACY = compat32.clone(linesep="\r\n")


def head(
    subject: str, from_email: str, addresses: Iterable[tuple[str, list[str]]], extra: Mapping[str, Any]
) -> bytes:
    """The fields in Django's order, from Subject to the last of ``extra``. Raises ``Unusual``."""
    names = {name.lower() for name in extra}
    if len(names) < len(extra) or not names.isdisjoint(NOT_EXTRA):
        raise Unusual
    lines = [_field("Subject", subject), _field("From", from_email)]
    lines += [_field(name, ", ".join(several)) for name, several in addresses if several]
    if "date" not in names:
        lines.append(f"Date: {_now()}\r\n")
    lines += [_extra_field(name, value) for name, value in extra.items()]
    return "".join(lines).encode("ascii")


def unfolded(fields: Mapping[str, str]) -> bytes:
    """``fields`` on one line each. Raises ``Unusual`` where ``list_headers.unfold`` leaves a line folded."""
    lines = [f"{name}: {value}" for name, value in fields.items()]
    if not all(line.isascii() and line.isprintable() and len(line) <= LONGEST_LINE for line in lines):
        raise Unusual
    return "".join(f"{line}\r\n" for line in lines).encode("ascii")


def _now() -> str:
    local = conf.email_use_localtime()
    if MODERN:
        return format_datetime(datetime.now(get_current_timezone() if local else UTC))
    return formatdate(localtime=local)


def _extra_field(name: str, value: Any) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(name) or name.lower().startswith("content-"):
        raise Unusual
    return _field(name, value)


def _field(name: str, value: str) -> str:
    """One field, with the line break that ends it. Raises ``Unusual`` if the library would raise."""
    short = len(name) + len(": ") + len(value) <= LINE
    if short and "=?" not in value and _PLAIN.get(name.lower(), _WORDS).fullmatch(value):
        return f"{name}: {value}\r\n"
    return _folded(name, value)


@lru_cache(maxsize=512)
def _folded(name: str, value: str) -> str:
    try:
        folded = (_modern(name, value) if MODERN else _legacy(name, value)).decode("ascii")
    except SoftTimeLimitExceeded:
        raise
    except Exception as error:  # whatever it is: Django comes upon it too, and says so
        raise Unusual from error
    if not folded.endswith("\r\n") or _BROKEN.search(folded.removesuffix("\r\n")):
        raise Unusual
    return folded


def _legacy(name: str, value: str) -> bytes:
    return _LEGACY.fold_binary(*django_message.forbid_multi_line_headers(name, value, "utf-8"))


def _modern(name: str, value: str) -> bytes:
    message = EmailMessage(policy=SMTP)
    message[name] = value
    if any(not address.domain.isascii() for address in getattr(message[name], "addresses", ())):
        raise Unusual  # Django writes the domain in ASCII
    return SMTP.fold_binary(name, message[name])
