"""The rows of an email as Django's ``EmailMessage``, and that as bytes."""

from base64 import b64decode
from collections.abc import Collection, Sequence
from email import message_from_bytes, policy
from email.charset import Charset
from email.message import Message as LegacyPart
from email.message import MIMEPart
from email.mime.base import MIMEBase
from email.policy import Policy, compat32
from functools import lru_cache, partial
from typing import Any

import django
from django.core.mail import EmailAttachment, EmailMessage, EmailMultiAlternatives

from celery_mailer import conf
from celery_mailer.attaching import CID_DOMAIN, mime_part
from celery_mailer.deliver.instrument import marked
from celery_mailer.deliver.list_headers import list_headers, unfold
from celery_mailer.models import Content, Email, Enclosure, Message
from celery_mailer.models.attachment import Form, storage
from celery_mailer.models.context import Loader


def addressed(email: Email) -> tuple[list[str], list[str], list[str]]:
    """To, cc and bcc of what goes out: the email's own, or OVERRIDE_RECIPIENTS; the row keeps its own."""
    override = conf.get().override_recipients
    return (list(override), [], []) if override else (email.to, email.cc, email.bcc)


def extra_headers(email: Email, content: Content) -> dict[str, Any]:
    """The headers that are not the message's own fields: the caller's, and the Message-ID."""
    given: dict[str, Any] = content.headers
    if any(name.lower() == "message-id" for name in given):
        return given
    return {"Message-ID": email.message_id, **given}


def build(email: Email, content: Content, enclosures: Sequence[Enclosure] = ()) -> EmailMessage:
    """The message that goes out for ``email``.

    Raises ``ObjectDoesNotExist`` if it was not rendered yet: a template's source must never go out.
    """
    words: Content | Message = email.rendered if content.needs_rendering else content
    headers, own_headers = list_headers(email, extra_headers(email, content))
    html = marked(email, content, words.html) if words.html else ""
    to, cc, bcc = addressed(email)
    attachments = [_attachment(e) for e in enclosures if _wanted(e, words.html)]
    images = [part for part in attachments if _is_shown(part, words.html)]
    plain = _Message if own_headers else EmailMultiAlternatives
    make = partial(_Illustrated, images) if images else plain
    message = make(
        subject=words.subject,
        body=words.text or html,
        from_email=content.from_email,
        to=to,
        cc=cc,
        bcc=bcc,
        reply_to=content.reply_to,
        headers={**headers, **own_headers},
    )
    if html and words.text:
        message.attach_alternative(html, "text/html")
    elif html:
        message.content_subtype = "html"
    vars(message)["unfolded"] = tuple(own_headers)
    # For providers that can recognise a repetition: by which name, and if it is one.
    vars(message).update(email_id=email.pk, tried_before=email.attempt_count > 0)
    _shape(message, content.shape)
    message.attachments = attachments
    # Anymail's names (its documentation, "Anymail additions"); other backends do not look at them.
    given = {name: value for name in ("tags", "metadata") if (value := getattr(content, name))}
    for name, value in (given | content.shape.get("extras", {})).items():
        setattr(message, name, Loader().decode(name, value))
    return message


class _Message(EmailMultiAlternatives):
    """As Django makes it, but for headers that must not be folded."""

    unfolded: Collection[str] = ()

    def message(self, **options: Any) -> Any:
        message: Any = super().message(**options)
        unfold(message, self.unfolded)
        return message


class _Illustrated(_Message):
    """HTML with the images that it shows, in one ``multipart/related`` that stands for the HTML (RFC 2387).

    The images are attachments too: what does not send the MIME message (Anymail) looks for them there.
    """

    def __init__(self, images: Sequence[LegacyPart], **arguments: Any) -> None:
        super().__init__(**arguments)
        self.images = images

    def message(self, **options: Any) -> Any:
        attachments = self.attachments
        self.attachments = [a for a in attachments if not any(a is image for image in self.images)]
        try:
            message = super().message(**options)
        finally:
            self.attachments = attachments
        if django.VERSION >= (6, 0):
            html = message.get_body(("html",))
            html.make_related()
            _complete(html, self.images)
        return message

    def _create_alternatives(self, body: Any) -> Any:
        """What Django 5.2 makes of the bodies; in a finished message, no part can be wrapped any more."""
        message = super()._create_alternatives(body)  # type: ignore[misc]
        if message is body:
            return self._related(body)
        message.set_payload([self._related(p) if _is_html(p) else p for p in message.get_payload()])
        return message

    def _related(self, html: Any) -> Any:
        from django.core.mail import SafeMIMEMultipart

        related = SafeMIMEMultipart("related", encoding=html.encoding)
        related.attach(html)
        _complete(related, self.images)
        return related


def _complete(related: Any, images: Sequence[LegacyPart]) -> None:
    related.set_param("type", "text/html")  # of the part that shows the others: RFC 2387, section 3.1
    for image in images:
        related.attach(image)


def _is_html(part: Any) -> bool:
    return bool(part.get_content_type() == "text/html")


def _wanted(enclosure: Enclosure, html: str) -> bool:
    """Whether it is an ordinary attachment, or an image that ``html`` shows.

    Two tasks that render one email at a time, from data that changes in between, may leave an image that it
    does not.
    """
    return enclosure.content_id is None or f"cid:{enclosure.content_id}" in html


def _is_shown(part: Any, html: str) -> bool:
    """Whether ``part`` is an image that a template has put into ``html``, even if it came as a MIME part."""
    if not isinstance(part, LegacyPart) or part.get_content_disposition() != "inline":
        return False
    cid = str(part["Content-ID"] or "").strip().strip("<>")
    return cid.endswith(f"@{CID_DOMAIN}") and f"cid:{cid}" in html


def _shape(message: EmailMultiAlternatives, shape: dict[str, Any]) -> None:
    """What a message had that text and HTML do not say."""
    if "subtype" in shape:
        message.content_subtype = shape["subtype"]
    if "charset" in shape:
        message.encoding = Charset(shape["charset"])
        message.encoding.body_encoding = shape["body_encoding"]
    elif "encoding" in shape:
        message.encoding = shape["encoding"]
    if not isinstance(message, _Illustrated):  # where related is what has to be
        for name, subtype in shape.get("multiparts", {}).items():
            setattr(message, name, subtype)
    for mimetype, form, value in shape.get("alternatives", ()):
        message.attach_alternative(b64decode(value) if form == Form.BYTES else value, mimetype)


def _attachment(enclosure: Enclosure) -> Any:
    data = _cached(storage(), enclosure.attachment.path)
    if enclosure.form == Form.PART:
        return message_from_bytes(data, _class=MIMEPart, policy=policy.default)  # type: ignore[arg-type]
    if enclosure.form == Form.BASE:
        return message_from_bytes(data, _class=_Base)
    if enclosure.headers or enclosure.content_id:
        return mime_part(data, enclosure.mimetype, enclosure.name, enclosure.headers, enclosure.content_id)
    return ordinary_attachment(data, enclosure.name, enclosure.mimetype, Form(enclosure.form))


def ordinary_attachment(data: bytes, name: str, mimetype: str, form: Form) -> EmailAttachment:
    """A file, or a text, with nothing but a name and a type."""
    if form == Form.BYTES and not mimetype.startswith("text/"):
        return EmailAttachment(name or None, data, mimetype)
    try:
        return EmailAttachment(name or None, data.decode(), mimetype)
    except UnicodeDecodeError:
        # What ``EmailMessage.attach`` makes of bytes that are said to be text, and are not UTF-8.
        return EmailAttachment(name or None, data, "application/octet-stream")


def read(where: Any, path: str) -> bytes:
    """A stored file's bytes. Raises ``OSError``."""
    with where.open(path) as file:
        return bytes(file.read())


# A slice of a bulk call has the same files on each email; a path is the hash of what it holds.
_cached = lru_cache(maxsize=8)(read)


class _Base(MIMEBase):
    """What the parser makes of a legacy part: ``MIMEBase`` itself wants to be told its type."""

    def __init__(self, policy: "Policy[Any]" = compat32) -> None:
        LegacyPart.__init__(self, policy=policy)


def wire_bytes(message: Any) -> bytes:
    """An ``EmailMessage`` as it goes over the wire (RFC 5322), exactly as Django's SMTP backend sends it."""
    if django.VERSION >= (6, 0):
        return bytes(message.message(policy=policy.SMTP).as_bytes())
    return bytes(message.message().as_bytes(linesep="\r\n"))
