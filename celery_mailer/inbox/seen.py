"""One captured message taken apart for people: links, files, languages."""

import re
from dataclasses import dataclass
from email.message import EmailMessage
from html.parser import HTMLParser
from typing import Any

from celery_mailer import conf
from celery_mailer.admin.preview import Hidden, Seen, readable, see
from celery_mailer.models import CapturedMessage, EmailTemplate
from celery_mailer.models.attachment import enclosures_of


@dataclass(frozen=True)
class Link:
    """``safe`` to follow: it leads to the web, or to a mail program."""

    url: str
    text: str = ""

    @property
    def safe(self) -> bool:
        return re.match(r"(https?|mailto|tel):", self.url, re.IGNORECASE) is not None


@dataclass(frozen=True)
class File:
    """A part that is not the body. ``number`` counts all parts of the message."""

    number: int
    name: str
    mimetype: str
    data: bytes
    inline: bool


def seen(captured: CapturedMessage, language: str = "") -> Seen:
    """The message as it was kept, or rendered anew in ``language``. Raises ``Hidden``."""
    if not language or captured.email is None:
        return Seen(bytes(captured.raw))
    return see(captured.email, enclosures_of([captured.email.pk]).get(captured.email.pk, []), language)


def languages(captured: CapturedMessage) -> list[str]:
    """The languages that the message can be rendered in anew; none without a template, or its context."""
    if captured.email is None:
        return []
    try:
        content = readable(captured.email)
    except Hidden:
        return []
    if not content.template:
        return []
    rows = EmailTemplate.objects.filter(name=content.template).values_list("language", flat=True)
    known = {*conf.languages_chosen(), *rows, content.language} - {""}
    return sorted(known) if len(known) > 1 else []


class _Anchors(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[list[str]] = []
        self._open = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        target = dict(attrs).get("href")
        if tag in ("a", "area") and target:
            self.found.append([target.strip(), ""])
            self._open = tag == "a"

    def handle_endtag(self, tag: str) -> None:
        self._open = self._open and tag != "a"

    def handle_data(self, data: str) -> None:
        if self._open:
            self.found[-1][1] += data


def links(message: Seen) -> list[Link]:
    """Where the message leads to, in order: the links of the HTML, or the addresses in a plain text."""
    if message.html is None:
        return [Link(url) for url in re.findall(r"https?://[^\s<>\"]+", message.text or "")]
    parser = _Anchors()
    parser.feed(message.html)
    parser.close()
    return [Link(url, " ".join(text.split())) for url, text in parser.found]


def files(message: EmailMessage) -> list[File]:
    """Attachments and inline images."""
    return [_file(number, part) for number, part in enumerate(message.walk()) if _is_file(part)]


def _is_file(part: Any) -> bool:
    if part.get_content_type() == "message/rfc822":
        return True
    named = part.get_filename() or part["Content-ID"] or part.get_content_disposition() == "attachment"
    return not part.is_multipart() and bool(named)


def _file(number: int, part: Any) -> File:
    payload = part.get_payload(decode=True)
    if payload is None:  # a message in the message
        payload = part.get_payload(0).as_bytes()
    name = part.get_filename() or ""
    return File(number, name, part.get_content_type(), payload, bool(part["Content-ID"]))
