"""A provider that keeps what it is given in the database (``CapturedMessage``), for a developer's inbox."""

from collections.abc import Sequence
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded
from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend
from django.db import DatabaseError, router, transaction

from celery_mailer import options
from celery_mailer.addresses import bare
from celery_mailer.deliver.message import wire_bytes
from celery_mailer.deliver.providers.outcomes import error_words, storable
from celery_mailer.models.captured import CapturedMessage
from celery_mailer.values import Kind, Outcome, Reply, Result, everyone


def capture(message: EmailMessage, recipients: list[str], provider: str = "") -> CapturedMessage:
    """Keep ``message`` as it would go out to ``recipients``. Raises what making it into bytes raises."""
    kept = CapturedMessage(
        email_id=getattr(message, "email_id", None),
        provider=provider,
        recipients=recipients,
        subject=storable(str(message.subject))[:255],
        raw=wire_bytes(message),
    )
    # A savepoint: a refused row must not break the transaction of a caller who sends at once.
    with transaction.atomic(using=router.db_for_write(CapturedMessage)):
        kept.save(force_insert=True)
    return kept


class CaptureProvider:
    """Accepts everything that is a message, as long as the database does."""

    def __init__(self, alias: str, backend: Any, rules: options.Provider) -> None:
        self.alias = alias

    def open(self, timeout: float) -> Reply | None:
        return None

    def send(self, message: EmailMessage, recipients: list[str], timeout: float) -> Result:
        try:
            capture(message, recipients, self.alias)
        except SoftTimeLimitExceeded:
            raise
        except DatabaseError as error:
            return everyone(recipients, Reply(Outcome.DEFERRED, Kind.TEMPORARY, text=error_words(error)))
        except Exception as error:
            return everyone(recipients, Reply(Outcome.REJECTED, Kind.MESSAGE, text=error_words(error)))
        return everyone(recipients, Reply(Outcome.ACCEPTED, text="captured"))

    def close(self) -> None:
        """Nothing is open."""

    def abandon(self) -> None:
        """Nothing is open."""


class EmailBackend(BaseEmailBackend):
    """Keeps messages in the database; also for ``EMAIL_BACKEND`` or a ``MAILERS`` alias itself."""

    provider_class = CaptureProvider

    def __init__(self, *, fail_silently: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.fail_silently = fail_silently

    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        return sum(self._keep(message) for message in email_messages if message.recipients())

    def _keep(self, message: EmailMessage) -> bool:
        try:
            capture(message, [bare(address) for address in message.recipients()])
        except Exception:
            if not self.fail_silently:
                raise
            return False
        return True
