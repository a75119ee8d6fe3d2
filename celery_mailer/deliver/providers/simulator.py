"""A provider that answers by address, so that a project can test how it handles an answer without a server.

``bounce@simulator.test``, ``defer@…`` and so on, each by the first word of the local part, which may go on
after "+" or "-": ``bounce+42@…`` is another address with the same fate. Every other address is delivered to,
in appearance: nothing ever leaves. Its domain never exists (RFC 2606, section 2).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded
from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend

from celery_mailer import options
from celery_mailer.addresses import bare
from celery_mailer.deliver.message import wire_bytes
from celery_mailer.deliver.providers.outcomes import error_words
from celery_mailer.values import Kind, Outcome, Phase, Reply, Result, everyone, summarise

DOMAIN = "simulator.test"

DELIVERED = Reply(Outcome.ACCEPTED, code=250, text="2.0.0 taken")
SILENT = Reply(Outcome.UNCERTAIN, Kind.NO_ANSWER, Phase.DOT, text="no answer to the final dot")

# The enhanced status codes are RFC 3463's.
ANSWERS = {
    "bounce": Reply(Outcome.REJECTED, Kind.RECIPIENT, Phase.RCPT, 550, "5.1.1 no such mailbox"),
    "defer": Reply(Outcome.DEFERRED, Kind.TEMPORARY, Phase.RCPT, 450, "4.2.0 try again later"),
    "provider-down": Reply(Outcome.DEFERRED, Kind.CONNECTION, Phase.CONNECT, text="connection refused"),
    "refuse-content": Reply(Outcome.REJECTED, Kind.CONTENT, Phase.DOT, 554, "5.6.0 content refused"),
    "slow": DELIVERED,
    "throttle": Reply(
        Outcome.DEFERRED, Kind.THROTTLED, None, 429, "4.7.0 too fast", retry_after=timedelta(minutes=1)
    ),
    "uncertain": SILENT,
}


def behaviour(address: str) -> str:
    """The word in ``ANSWERS`` that decides what becomes of mail to ``address``; empty for plain delivery."""
    local, _, domain = address.lower().rpartition("@")
    if domain != DOMAIN:
        return ""
    return next((word for word in ANSWERS if local == word or local.startswith((f"{word}+", f"{word}-"))), "")


class SimulatorProvider:
    """Each recipient's answer by its address; ``sleep`` is what ``slow@`` takes its time with."""

    def __init__(
        self, alias: str, backend: Any, rules: options.Provider, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.alias = alias
        self._slow = float(backend.slow)
        self._sleep = sleep

    def open(self, timeout: float) -> Reply | None:
        return None

    def send(self, message: EmailMessage, recipients: list[str], timeout: float) -> Result:
        try:
            wire_bytes(message)
        except SoftTimeLimitExceeded:
            raise
        except Exception as error:
            return everyone(recipients, Reply(Outcome.REJECTED, Kind.MESSAGE, text=error_words(error)))
        words = {recipient: behaviour(recipient) for recipient in recipients}
        answers = {**ANSWERS, "": DELIVERED}
        if "slow" in words.values():
            self._sleep(min(self._slow, timeout))
            answers["slow"] = DELIVERED if self._slow <= timeout else SILENT
        result = summarise({recipient: answers[word] for recipient, word in words.items()})
        return replace(result, usable=not set(words.values()) <= {"provider-down", "throttle"})

    def close(self) -> None:
        """Nothing is open."""

    def abandon(self) -> None:
        """Nothing is open."""


class EmailBackend(BaseEmailBackend):
    """The simulator as a Django email backend; ``slow`` is the seconds that mail to ``slow@`` takes.

    Used by Django itself it can only count: the messages that somebody gets.
    """

    provider_class = SimulatorProvider

    def __init__(self, *, slow: float = 5.0, fail_silently: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.slow = slow

    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        provider = SimulatorProvider("", self, options.Provider())
        sent = 0
        for message in email_messages:
            recipients = [bare(address) for address in message.recipients()]
            result = provider.send(message, recipients, self.slow) if recipients else None
            sent += result is not None and result.summary.outcome == Outcome.ACCEPTED
        return sent
