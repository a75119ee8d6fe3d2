"""Addresses by which the recipient of an email leaves its stream: for its headers and for its template."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from celery_mailer import conf, tokens
from celery_mailer.exceptions import InvalidEmail
from celery_mailer.models import Content, Email
from celery_mailer.models.suppression import digest_of
from celery_mailer.tokens import Purpose, Subscription

NO_WAY_OUT = (
    "{!r} needs a way to unsubscribe: set CELERY_MAILER['TRACKING']['BASE_URL'], the public address of your "
    "site, and include celery_mailer.urls there"
)
NOT_THEIR_OWN = (
    "names several recipients (with cc and bcc), and in {!r} each needs a link of their own to unsubscribe: "
    "send each an email of their own"
)


def can_be_left(email: Email) -> bool:
    """Whether ``email`` is in a stream that one leaves, and for one person: a link is for nobody else."""
    stream = conf.get().streams.get(email.stream)
    return stream is not None and stream.unsubscribe and len(email.recipients) == 1


def token_for(purpose: Purpose, email: Email) -> str:
    """That of the only recipient of ``email``, or of the first to whom OVERRIDE_RECIPIENTS sends it.

    So who reads the mail of others, on a staging site, does not leave in their name.
    """
    reader = (conf.get().override_recipients or email.recipients)[0]
    subscription = Subscription(email.pk, digest_of(reader), email.stream)
    return tokens.sign(purpose, tokens.pack_subscription(subscription))


def url_for(purpose: Purpose, email: Email) -> str:
    """Where the recipient unsubscribes, or chooses streams; empty where this cannot be."""
    if not can_be_left(email) or (prefix := tokens.prefix(purpose)) is None:
        return ""
    return prefix + token_for(purpose, email)


def has_own_way_out(headers: Mapping[str, object]) -> bool:
    """Whether the caller's ``headers`` have a List-Unsubscribe that says anything."""
    return any(name.lower() == "list-unsubscribe" and str(value).strip() for name, value in headers.items())


def check(email: Email, headers: Mapping[str, str]) -> None:
    """Raise ``InvalidEmail`` if its recipient would have no way to leave a stream that one leaves."""
    if not conf.get().streams[email.stream].unsubscribe:
        return
    if has_own_way_out(headers):
        return
    if tokens.prefix(Purpose.UNSUBSCRIBE) is None:
        raise InvalidEmail("stream", NO_WAY_OUT.format(email.stream))
    if len(email.recipients) != 1:
        raise InvalidEmail("to", NOT_THEIR_OWN.format(email.stream))


# Who reads the template that is rendered at the moment: its tags ask for it.
_current: ContextVar[Content | None] = ContextVar("celery_mailer_content", default=None)


@contextmanager
def rendering_for(content: Content) -> Iterator[None]:
    """Let the template tags know, in this thread or asyncio task, whose mail is rendered."""
    token = _current.set(content)
    try:
        yield
    finally:
        _current.reset(token)


def current_url(purpose: Purpose) -> str:
    """``url_for`` the email that is rendered at the moment; of a sample, an address that leads nowhere."""
    content = _current.get()
    if content is None:
        return ""
    if content.pk is None:
        return f"{tokens.prefix(purpose) or ''}sample"
    return url_for(purpose, content.email)
