"""What a provider is to the deliver stage."""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol, cast
from uuid import UUID

from django.core.mail import EmailMessage

from celery_mailer.values import Reply, Result


class Wire(NamedTuple):
    """An email's bare sender, and its bytes (RFC 5322), in which every line break is CRLF; and its id."""

    sender: str
    data: bytes
    email_id: UUID | None = None


Outgoing = EmailMessage | Wire


@dataclass(frozen=True, slots=True)
class Parcel:
    """One email for a provider's stream: ``recipients`` are bare addresses, at least one.

    Only to a provider that says that it ``takes_wire`` it comes as a ``Wire``, and not even there always.

    The provider calls ``begin`` right before the first byte by which the email may be taken. True: from now
    on its fate is the provider's to tell. False: it must not be handed over any more, and the stream ends.
    """

    message: Outgoing
    recipients: list[str]
    begin: Callable[[], bool]

    @property
    def built(self) -> EmailMessage:
        """The message, for a provider that takes nothing else."""
        return cast(EmailMessage, self.message)


class Provider(Protocol):
    """A named way out. One instance belongs to one thread, and stays open across tasks.

    No method raises for what the outside world does: an answer, also a bad one, is a value. What ends
    the task (Celery's ``SoftTimeLimitExceeded``, an interrupt) passes through, and leaves no line open on
    which an answer may still come.
    """

    alias: str

    def open(self, timeout: float) -> Reply | None:
        """Make sure that mail can be handed over now, within ``timeout`` seconds for all that a server says.

        Returns ``None``, or the reply that says why the provider cannot be used.
        """

    def send(self, message: EmailMessage, recipients: list[str], timeout: float) -> Result:
        """Hand ``message`` over for ``recipients`` (bare addresses, at least one) within ``timeout`` seconds.

        Call ``open`` first. The result has a reply for each recipient.
        """

    def close(self) -> None:
        """Let the connection go, without waiting; safe to call at any time."""

    def abandon(self) -> None:
        """Forget a connection inherited over ``fork`` without a word on the line: it is the parent's."""


class Streaming(Provider, Protocol):
    """A provider that works on the next email while it waits for the answer to this one.

    With ``takes_wire = True`` it is given bytes where they could be had without building a message.
    """

    def send_many(self, parcels: Iterator[Parcel], timeout: float) -> Generator[Result]:
        """Hand over what ``parcels`` yields, each within ``timeout`` seconds; results come in their order.

        Call ``open`` first. Parcels are drawn as late as the provider can use them. The stream may end
        before ``parcels`` does: after a result that is not ``usable``, or because the connection is worn,
        was closed, or is to be used in another way. What has no result then did not begin, or was certainly
        not taken, and is for another stream after another ``open``; sooner or later one has a result.
        """


def takes_wire(provider: Provider) -> bool:
    return getattr(provider, "takes_wire", False)


def stream(provider: Provider, parcels: Iterator[Parcel], timeout: float) -> Generator[Result]:
    """``provider.send_many``; of a provider that takes one email after another, a stream of one."""
    send_many = getattr(provider, "send_many", None)
    return send_many(parcels, timeout) if send_many else _stream_of_one(provider, parcels, timeout)


def _stream_of_one(provider: Provider, parcels: Iterator[Parcel], timeout: float) -> Generator[Result]:
    parcel = next(parcels, None)
    if parcel is not None and parcel.begin():
        yield provider.send(parcel.built, parcel.recipients, timeout)
