"""Signed addresses in mail: what a pixel, a tracked link and an unsubscribe link know.

A token is the URL-safe base64 of a few bytes and Django's signature of them: with SECRET_KEY, read also with
SECRET_KEY_FALLBACKS, and with a salt for each purpose, so that none passes for another. None holds an
address; what an address leads to (the target of a link) is inside the signature. They have no time limit: a
newsletter is read, and unsubscribed from, long after it was sent.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple
from urllib.parse import urlsplit
from uuid import UUID

from django.core.signing import BadSignature, Signer
from django.urls import NoReverseMatch, reverse

from celery_mailer import conf

LONGEST = 8_000  # characters that are read; servers take lines of about 8 kB (RFC 9112, section 3)
# Characters of a tracked link. gunicorn takes a request line of 4,094 bytes; uWSGI 4,096, with all headers.
LONGEST_LINK = 2_000
_NOBODY = UUID(int=0)
_ANONYMOUS, _IDENTIFIED = b"\x00", b"\x01"


class Purpose(StrEnum):
    """What a token is for; also the name of its view."""

    OPEN = "open"
    CLICK = "click"
    UNSUBSCRIBE = "unsubscribe"
    PREFERENCES = "preferences"


class Mark(NamedTuple):
    """Whose opens and clicks are recorded: those of ``email_id``, or those of all in a stream or a batch."""

    email_id: UUID | None
    stream: str = ""
    batch_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Subscription:
    """Who wants to leave which stream.

    ``digest`` is that of the address in the list of suppressions (SHA-256): the link works also when the row
    of the email is deleted.
    """

    email_id: UUID
    digest: str
    stream: str


def sign(purpose: Purpose, payload: bytes) -> str:
    return _signer(purpose).sign(urlsafe_b64encode(payload).rstrip(b"=").decode())


def read(purpose: Purpose, token: str) -> bytes | None:
    """What was signed for ``purpose``, or ``None``; raises for no string."""
    if len(token) > LONGEST or not token.isascii():
        return None
    try:
        text = _signer(purpose).unsign(token)
    except BadSignature:
        return None
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _signer(purpose: Purpose) -> Signer:
    return Signer(salt=f"celery_mailer.{purpose}", sep=".")


def pack_mark(mark: Mark, target: str = "") -> bytes:
    if mark.email_id is not None:
        return _IDENTIFIED + mark.email_id.bytes + target.encode()
    return _ANONYMOUS + (mark.batch_id or _NOBODY).bytes + mark.stream.encode() + b"\x00" + target.encode()


def read_mark(purpose: Purpose, token: str) -> tuple[Mark, str] | None:
    """The mark and the target of a token that ``pack_mark`` was signed into, or ``None``."""
    payload = read(purpose, token)
    if payload is None:
        return None
    some_id, rest = UUID(bytes=payload[1:17]), payload[17:]
    if payload[:1] == _IDENTIFIED:
        return Mark(some_id), rest.decode()
    stream, _, target = rest.partition(b"\x00")
    return Mark(None, stream.decode(), some_id if some_id != _NOBODY else None), target.decode()


def pack_subscription(subscription: Subscription) -> bytes:
    return subscription.email_id.bytes + bytes.fromhex(subscription.digest) + subscription.stream.encode()


def read_subscription(purpose: Purpose, token: str) -> Subscription | None:
    payload = read(purpose, token)
    if payload is None:
        return None
    return Subscription(UUID(bytes=payload[:16]), payload[16:48].hex(), payload[48:].decode())


def prefix(purpose: Purpose) -> str | None:
    """What a token is appended to; ``None`` without BASE_URL, or where ``celery_mailer.urls`` is nowhere."""
    base_url = conf.get().tracking.base_url
    if base_url is None:
        return None
    try:
        path = reverse(f"celery_mailer:{purpose}", args=["token"])
    except NoReverseMatch:
        return None
    return base_url.rstrip("/") + path.removesuffix("token")


def host() -> str:
    """That of BASE_URL, without a port."""
    return urlsplit(conf.get().tracking.base_url or "").hostname or "localhost"
