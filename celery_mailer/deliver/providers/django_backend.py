"""Any Django email backend as a provider: what it says is less, so more is uncertain."""

from contextlib import suppress

from celery.exceptions import SoftTimeLimitExceeded
from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend

from celery_mailer import options
from celery_mailer.deliver.providers.outcomes import backend_exception, opening_exception
from celery_mailer.deliver.providers.recipients import keep_only
from celery_mailer.deliver.providers.wear import Wear
from celery_mailer.values import Kind, Outcome, Reply, Result, everyone


class DjangoBackendProvider:
    """A provider over a backend whose only word is the count that ``send_messages`` returns."""

    def __init__(self, alias: str, backend: BaseEmailBackend, rules: options.Provider) -> None:
        self.alias = alias
        self._backend = backend
        self._wear = Wear(rules)

    def open(self, timeout: float) -> Reply | None:
        if not self._wear.fit:
            self.close()
            self._wear.renewed()
        try:
            self._backend.open()
        except SoftTimeLimitExceeded:
            raise
        except Exception as error:
            self.close()
            return opening_exception(error)
        return None

    def send(self, message: EmailMessage, recipients: list[str], timeout: float) -> Result:
        try:
            keep_only(set(recipients), message)
            count = self._backend.send_messages([message])
        except SoftTimeLimitExceeded:
            self.close()
            raise
        except Exception as error:
            reply = backend_exception(error)
            self.close()
            return everyone(recipients, reply, usable=reply.kind not in (Kind.CONNECTION, Kind.PROVIDER))
        self._wear.used()
        return everyone(recipients, _counted(count))

    def close(self) -> None:
        with suppress(Exception):
            self._backend.close()

    def abandon(self) -> None:
        """Nothing: a backend that is closed may take its leave of the server, in the parent's session."""


def _counted(count: object) -> Reply:
    if count is None:
        # Many backends forget to count, and some say so after a failure that they kept silent about.
        return Reply(Outcome.UNCERTAIN, Kind.NO_ANSWER, text="the backend did not say how many it sent")
    if not count:
        # What a backend with ``fail_silently`` says after a failure.
        return Reply(Outcome.DEFERRED, Kind.TEMPORARY, text=f"the backend reported {count!r} messages sent")
    return Reply(Outcome.ACCEPTED)
