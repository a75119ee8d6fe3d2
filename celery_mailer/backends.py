"""The door for everything that Django itself sends: an email backend that queues."""

from base64 import b64encode
from collections.abc import Sequence
from email.charset import Charset
from typing import Any

from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend
from django.utils.functional import Promise

from celery_mailer import conf, logs
from celery_mailer.enqueue import enqueue
from celery_mailer.exceptions import InvalidEmail, UnknownProvider
from celery_mailer.models.attachment import Form
from celery_mailer.models.context import encode
from celery_mailer.values import EmailRequest

# Anymail's attributes on a message; tags and metadata are every door's arguments.
EXTRAS = (
    "envelope_sender", "esp_extra", "merge_data", "merge_global_data", "merge_headers", "merge_metadata",
    "send_at", "template_id", "track_clicks", "track_opens",
)  # fmt: skip

MULTIPARTS = {"mixed_subtype": "mixed", "alternative_subtype": "alternative"}

# What a message can ask of the queue, by its attribute ``celery_mailer`` or by headers, which are taken off.
OPTIONS = ("priority", "stream", "provider", "scheduled_at", "expires_at", "track_opens", "track_clicks")
HEADERS = {f"x-mailer-{option.replace('_', '-')}": option for option in OPTIONS}


class EmailBackend(BaseEmailBackend):
    """Queues each message as one email and returns how many it queued; bodies are taken verbatim.

    ``using`` names the provider that sends, ``priority`` and ``stream`` apply to all its messages.
    Under Django 6.1's ``MAILERS``, ``using`` is required (Django's DEP 18 for backends that wrap another).
    """

    leads_back_to_the_queue = True  # so the deliver stage, which may not import this, refuses to send by it

    def __init__(
        self,
        *,
        using: str | None = None,
        priority: str | None = None,
        stream: str | None = None,
        fail_silently: bool = False,
        **kwargs: Any,
    ) -> None:
        # Django hands these to every backend; credentials have no place in a queue.
        for name in ("username", "password"):
            kwargs.pop(name, None)
        super().__init__(**kwargs)
        alias = getattr(self, "alias", None)
        if alias is not None and using is None:
            raise UnknownProvider(
                f"MAILERS[{alias!r}]: OPTIONS must have 'using', the alias that really sends."
            )
        if alias is not None and using == alias:
            raise UnknownProvider(f"MAILERS[{alias!r}]: 'using' names this mailer itself.")
        if using is not None and using not in conf.get().providers:
            raise UnknownProvider(f"There is no provider {using!r}.")
        self.using = using
        self.priority = priority
        self.stream = stream
        self.fail_silently = fail_silently

    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        """Queue all of ``email_messages`` or, if one is refused, none; with ``fail_silently`` the others."""
        messages = [message for message in email_messages or () if message.recipients()]
        if self.fail_silently:
            return sum(self._queued(message) for message in messages)
        if messages:
            enqueue([self._request(message) for message in messages])
        return len(messages)

    def _queued(self, message: EmailMessage) -> bool:
        try:
            enqueue([self._request(message)])
        except InvalidEmail as error:
            logs.refused_in_silence(error)
            return False
        return True

    def _request(self, message: EmailMessage) -> EmailRequest:
        text, html, shape = _bodies(message)
        headers, options = _options(message)
        return EmailRequest(
            to=[address for address in message.to if address],
            cc=[address for address in message.cc if address],
            bcc=[address for address in message.bcc if address],
            reply_to=[address for address in message.reply_to if address],
            from_email=message.from_email,
            subject=message.subject,
            message=text,
            html_message=html,
            headers=headers,
            attachments=list(message.attachments),
            shape=shape,
            tags=_extra(message, "tags"),
            metadata=_extra(message, "metadata"),
            **{"priority": self.priority, "stream": self.stream, "provider": self.using} | options,
        )


def _options(message: EmailMessage) -> tuple[dict[str, Any], dict[str, Any]]:
    """The headers that are sent, and what the message asks of the queue."""
    given = dict(getattr(message, "celery_mailer", None) or {})
    for name in given:
        if name not in OPTIONS:
            raise InvalidEmail(f"celery_mailer[{name!r}]", f"is unknown; known: {', '.join(OPTIONS)}")
    headers = {}
    for name, value in message.extra_headers.items():
        if str(name).lower() in HEADERS:
            given.setdefault(HEADERS[str(name).lower()], value)
        else:
            headers[name] = value
    return headers, given


def _extra(message: EmailMessage, name: str) -> Any:
    """An attribute by which Anymail extends messages; its marker for "not given" is a class."""
    value = getattr(message, name, None)
    return None if isinstance(value, type) else value


def _bodies(message: EmailMessage) -> tuple[str, str, dict[str, Any]]:
    """The text and the HTML of ``message``, and what these two do not say of it."""
    shape = _encoding(message.encoding)
    extras = {name: encode(name, value) for name in EXTRAS if (value := _extra(message, name)) is not None}
    if extras:
        shape["extras"] = extras
    # Undocumented, gone in Django 6, and the usual way to inline images before it.
    multiparts = {
        n: value for n, default in MULTIPARTS.items() if (value := getattr(message, n, default)) != default
    }
    if multiparts:
        shape["multiparts"] = multiparts
    body = str(message.body)
    alternatives = [(a[0], str(a[1])) for a in getattr(message, "alternatives", ())]
    if message.content_subtype == "html" and not alternatives and body:
        return "", body, shape
    if message.content_subtype == "plain" and len(alternatives) == 1 and body:
        ((content, mimetype),) = alternatives
        if mimetype == "text/html" and isinstance(content, str | Promise) and content:
            return body, str(content), shape
    shape["subtype"] = message.content_subtype
    shape["alternatives"] = [_alternative(*alternative) for alternative in alternatives]
    return body, "", shape


def _alternative(content: Any, mimetype: str) -> list[str]:
    if isinstance(content, bytes):
        return [mimetype, Form.BYTES, b64encode(content).decode()]
    if isinstance(content, str | Promise):
        return [mimetype, Form.TEXT, str(content)]
    raise InvalidEmail(f"alternatives[{mimetype!r}]", f"is a {type(content).__name__}, not a string or bytes")


def _encoding(encoding: Any) -> dict[str, Any]:
    if encoding is None:
        return {}
    if isinstance(encoding, Charset):
        return {"charset": encoding.input_charset, "body_encoding": encoding.body_encoding}
    return {"encoding": str(encoding)}
