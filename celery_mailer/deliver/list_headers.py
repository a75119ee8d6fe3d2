"""The headers by which a mail client offers to leave a stream: RFC 2369, RFC 2919 and RFC 8058.

They are written when the message is composed, so that they are those of the site as it is, and that mail
has them which is sent as it was given, without rendering.
"""

import re
from collections.abc import Collection, Mapping
from email.header import Header
from typing import Any
from urllib.parse import quote

import django

from celery_mailer import conf, tokens
from celery_mailer.addresses import bare
from celery_mailer.models import Email
from celery_mailer.subscriptions import has_own_way_out, token_for, url_for
from celery_mailer.tokens import Purpose

ONE_CLICK = "List-Unsubscribe=One-Click"  # RFC 8058, section 3.1
WAY_OUT = ("list-unsubscribe", "list-unsubscribe-post")
LONGEST_LINE = 998  # RFC 5322, section 2.1.1
_NOT_A_LABEL = re.compile(r"[^a-z0-9]+")


def list_headers(email: Email, given: Mapping[str, Any]) -> tuple[Mapping[str, Any], dict[str, str]]:
    """The headers that the caller has ``given`` to ``email``, as far as they stay, and those that are ours.

    A List-Unsubscribe of the caller's stands in the place of ours, and so does a List-Id. None are ours where
    the stream cannot be left.
    """
    url = url_for(Purpose.UNSUBSCRIBE, email)
    if not url:
        return given, {}
    own = {}
    if not has_own_way_out(given):
        # What the caller says of a one click is not about our link.
        given = {name: value for name, value in given.items() if name.lower() not in WAY_OUT}
        own["List-Unsubscribe"] = f"<{url}>{_mailto(email)}"
        if url.startswith("https:"):  # RFC 8058, section 3.1: not without one
            own["List-Unsubscribe-Post"] = ONE_CLICK
    if not any(name.lower() == "list-id" for name in given):
        own["List-Id"] = list_id(email.stream)
    return given, own


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
