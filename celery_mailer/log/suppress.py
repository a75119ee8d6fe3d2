"""Suppresses the addresses that a server refused, during the hand-over, because there is no such address."""

from collections.abc import Collection, Iterator
from typing import NamedTuple

from celery_mailer import conf
from celery_mailer.log.bounces import classify
from celery_mailer.models import Attempt
from celery_mailer.models.suppression import Entry, suppress
from celery_mailer.values import Bounce, Kind, Outcome, Phase, SuppressionReason


def suppress_refused(attempts: Collection[Attempt]) -> int:
    """Suppress whom ``attempts`` (with their emails) show not to exist; returns how many rows are new."""
    if conf.get().override_recipients:  # it was not them who were asked
        return 0
    found = [
        Entry(refusal.address, SuppressionReason.HARD_BOUNCE, email_id=attempt.email_id, note=_words(refusal))
        for attempt in attempts
        for refusal in _refusals(attempt)
        if classify(refusal.code, "", refusal.text) == Bounce.HARD
    ]
    return suppress(found) if found else 0


class _Refusal(NamedTuple):
    address: str
    code: int | None
    text: str


def _refusals(attempt: Attempt) -> Iterator[_Refusal]:
    """Each recipient's, where they differ; else that of all, if it was about them and not about the mail."""
    for address, (outcome, code, text, *_) in attempt.recipients.items():
        if outcome == Outcome.REJECTED and code:
            yield _Refusal(address, code, text)
    if attempt.recipients or attempt.outcome != Outcome.REJECTED or attempt.kind != Kind.RECIPIENT:
        return
    if attempt.phase == Phase.RCPT and len(attempt.email.recipients) == 1:
        yield _Refusal(attempt.email.recipients[0], attempt.code, attempt.text)


def _words(refusal: _Refusal) -> str:
    return f"{refusal.code or ''} {refusal.text}".strip()[:255]
