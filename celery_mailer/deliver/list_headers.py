"""The headers by which a mail client offers to leave a stream: RFC 2369, RFC 2919 and RFC 8058.

They are written when the message is composed, so that they are those of the site as it is, and that mail
has them which is sent as it was given, without rendering.
"""

import re
from collections.abc import Collection
from email.header import Header
from typing import Any
from urllib.parse import quote

import django

from celery_mailer import conf, tokens
from celery_mailer.addresses import bare
from celery_mailer.models import Email
from celery_mailer.subscriptions import token_for, url_for
from celery_mailer.tokens import Purpose

ONE_CLICK = "List-Unsubscribe=One-Click"  # RFC 8058, section 3.1
NAMES = ("List-Unsubscribe", "List-Unsubscribe-Post", "List-Id")
LONGEST_LINE = 998  # RFC 5322, section 2.1.1
_NOT_A_LABEL = re.compile(r"[^a-z0-9]+")


def list_headers(email: Email, given: Collection[str]) -> dict[str, str]:
    """Those of ``email``; none where its stream cannot be left, or the caller has ``given`` one of them."""
    url = url_for(Purpose.UNSUBSCRIBE, email)
    if not url or not {name.lower() for name in given}.isdisjoint(map(str.lower, NAMES)):
        return {}
    headers = {"List-Unsubscribe": f"<{url}>{_mailto(email)}", "List-Id": list_id(email.stream)}
    if url.startswith("https:"):  # RFC 8058, section 3.1: not without one
        headers["List-Unsubscribe-Post"] = ONE_CLICK
    return headers


def list_id(stream: str) -> str:
    """The stream as a list (RFC 2919, section 3): a label below the site's own domain."""
    label = _NOT_A_LABEL.sub("-", stream.lower()).strip("-") or stream.encode().hex()
    return f"<{label}.{tokens.host()}>"


def _mailto(email: Email) -> str:
    address = conf.get().tracking.unsubscribe_mailto
    if address is None:
        return ""
    return f", <mailto:{quote(bare(address), safe='@')}?subject={token_for(Purpose.UNSUBSCRIBE, email)}>"


def unfold(message: Any, names: Collection[str]) -> None:
    """Keep the headers ``names`` of ``message`` on one line each, for who reads them line by line.

    ``message`` is what Django makes: an ``EmailMessage`` of the standard library from Django 6.0 on, before
    that a ``Message`` that folds by ``compat32``. A line that is longer than lines may be stays folded.
    """
    for i, (name, value) in enumerate(message._headers):
        line = f"{name}: {value}"
        if name in names and line.isascii() and line.isprintable() and len(line) <= LONGEST_LINE:
            message._headers[i] = (name, _one_line(name, str(value)))


def _one_line(name: str, value: str) -> Any:
    if django.VERSION < (6, 0):
        return _LegacyLine(value)
    header = _Line(value)
    header.name = name
    return header


class _Line(str):
    """A header that the standard library's ``EmailPolicy`` does not fold."""

    name: str

    def fold(self, *, policy: Any) -> str:
        return f"{self.name}: {self}{policy.linesep}"


class _LegacyLine(Header):
    """The same for ``compat32``."""

    def encode(self, *args: Any, **kwargs: Any) -> str:
        return str(self)
