"""An email as its recipient sees it, behind glass: nothing in it runs, nothing is fetched from elsewhere."""

import copy
import re
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from functools import cached_property
from html.parser import HTMLParser
from typing import Any, TypeVar
from urllib.parse import unquote

from django.http.response import HttpResponseBase
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from celery_mailer.attaching import Image
from celery_mailer.deliver.message import build, wire_bytes
from celery_mailer.exceptions import InvalidEmail, RenderError
from celery_mailer.models import Content, Email, Enclosure, Message
from celery_mailer.models.attachment import Form, storage
from celery_mailer.models.context import Loader
from celery_mailer.render.templates import render
from celery_mailer.sources import Finder, Source, of_version

LOADS = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"  # nothing from anywhere
CSP = f"sandbox; {LOADS}; frame-ancestors 'self'"
Response = TypeVar("Response", bound=HttpResponseBase)

OF_THE_PARTS = {"content-type", "content-transfer-encoding", "mime-version"}


class Hidden(Exception):
    """What an email says is not to be seen; the message, a translated string, says why."""

    def __init__(self, why: str | Promise) -> None:
        super().__init__(why)
        self.why = why


@dataclass(frozen=True)
class Seen:
    """A message as it goes over the wire. ``anew`` if it was rendered for this look only."""

    raw: bytes
    anew: bool = False
    images: Mapping[str, str] = field(default_factory=dict)  # of what was rendered anew, by Content-ID

    @cached_property
    def message(self) -> EmailMessage:
        return message_from_bytes(self.raw, policy=default)

    @property
    def headers(self) -> list[tuple[str, str]]:
        """Those of the message itself, not those that say how its parts are put together."""
        return [(n, str(v)) for n, v in self.message.items() if n.lower() not in OF_THE_PARTS]

    @cached_property
    def text(self) -> str | None:
        return _body(self.message, "plain")

    @cached_property
    def html(self) -> str | None:
        """The HTML with its inline images put into it; ``None`` if there is none."""
        html = _body(self.message, "html")
        return None if html is None else with_images(html, {**self.images, **_images(self.message)})


def see(email: Email, enclosures: Sequence[Enclosure], language: str = "") -> Seen:
    """The message of ``email`` with (some of) its enclosures. Raises ``Hidden``.

    What waits to be rendered is rendered for the occasion, and not kept; so is what has a template and is
    wanted in another ``language``.
    """
    content = readable(email)
    images: Sequence[Image] = ()
    anew = content.needs_rendering and not hasattr(email, "rendered")
    if language and content.template:
        # A version is in one language: the template as it is now.
        content.language, content.template_version, anew = language, None, True
    try:
        if anew:
            email = copy.copy(email)
            email.rendered, images = _render(content)
        raw = wire_bytes(build(email, content, enclosures))
    except (RenderError, InvalidEmail) as error:
        raise Hidden(_("It cannot be rendered: %(fault)s") % {"fault": error}) from error
    except OSError as error:
        raise Hidden(_("A file that belongs to it cannot be read.")) from error
    except Exception as error:
        raise Hidden(_("It cannot be built: %(fault)s") % {"fault": type(error).__name__}) from error
    return Seen(raw, anew, data_urls(images))


def readable(email: Email) -> Content:
    """The content of ``email``. Raises ``Hidden`` if nobody may see it, or nobody can."""
    content = Content.objects.select_related("template_version").filter(email=email).first()
    if content is None or content.dropped:
        raise Hidden(_("What it said is no longer stored."))
    if content.sensitive:
        raise Hidden(_("It is sensitive: what it says is never shown here."))
    return content


def _render(content: Content) -> tuple[Message, Sequence[Image]]:
    source: Source | None = None
    if content.template_version is not None:
        source = of_version(content.template_version, content.language)
    elif content.template:
        source = Finder().find(content.template, content.language, asked=False)
    loader = Loader()
    loader.expect(content.context)
    message, images = render(content, source, loader.decode("context", content.context))
    return message, images.images


def _body(message: EmailMessage, subtype: str) -> str | None:
    part: Any = message.get_body((subtype,))
    if part is None:
        return None
    try:
        return str(part.get_content())
    except LookupError:  # a charset that nobody knows
        return bytes(part.get_payload(decode=True)).decode(errors="replace")


def _images(message: EmailMessage) -> dict[str, str]:
    """The images among the parts, by Content-ID, as ``data:`` URLs (RFC 2397)."""
    found = {}
    for part in message.walk():
        if part["Content-ID"] and part.get_content_maintype() == "image":
            data = part.get_payload(decode=True)
            found[str(part["Content-ID"]).strip().strip("<>")] = _data_url(part.get_content_type(), data)
    return found


def data_urls(images: Iterable[Image]) -> dict[str, str]:
    return {image.cid: _data_url(image.mimetype, image.data) for image in images}


def _data_url(mimetype: str, data: Any) -> str:
    return f"data:{mimetype};base64,{b64encode(data or b'').decode()}"


def with_images(html: str, images: Mapping[str, str]) -> str:
    """``html`` whose ``cid:`` URLs (RFC 2392) are those in ``images``."""
    return re.sub(
        r"""cid:([^"'\s()<>]+)""", lambda m: images.get(unquote(m[1]), m[0]), html, flags=re.IGNORECASE
    )


class _Remote(HTMLParser):
    """Gathers the addresses of images that a mail program would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "background", "poster"):
                self._note(value or "")
            elif name == "srcset":
                for candidate in (value or "").split(","):
                    self._note(candidate)
            elif name == "style":
                self.handle_data(value or "")

    def handle_data(self, data: str) -> None:
        for address in re.findall(r"""url\(\s*["']?([^"')]+)""", data, re.IGNORECASE):
            self._note(address)

    def _note(self, address: str) -> None:
        if re.match(r"\s*(https?:)?//", address, re.IGNORECASE):
            self.found.add(address.strip())


def remote_images(html: str) -> int:
    """How many images ``html`` would have fetched from elsewhere."""
    parser = _Remote()
    parser.feed(html)
    parser.close()
    return len(parser.found)


def guarded(response: Response, csp: str = CSP) -> Response:
    """``response``, which somebody else wrote, with what keeps a browser from believing in it."""
    response["Content-Security-Policy"] = csp
    response["X-Frame-Options"] = "SAMEORIGIN"
    response["X-Content-Type-Options"] = "nosniff"
    response["X-DNS-Prefetch-Control"] = "off"
    response["Referrer-Policy"] = "no-referrer"
    response["Cache-Control"] = "private, no-store"
    return response


def may_be_shown(enclosure: Enclosure) -> bool:
    """Whether it may be an image in the HTML: what is none need not be read to show that."""
    return enclosure.content_id is not None or enclosure.form in (Form.PART, Form.BASE)


def file_of(enclosure: Enclosure) -> Any:
    """What a recipient saves as the file: open, or bytes. Raises ``OSError``."""
    file = storage().open(enclosure.attachment.path)
    if enclosure.form not in (Form.PART, Form.BASE):
        return file
    with file:
        data = file.read()
    payload = message_from_bytes(data, policy=default).get_payload(decode=True)
    return data if payload is None else payload
