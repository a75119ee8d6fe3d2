"""What became of an email, in the order in which it happened."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.utils.functional import Promise
from django.utils.text import capfirst
from django.utils.translation import gettext as _

from celery_mailer.admin.words import (
    BOUNCES,
    DECISIONS,
    EVENTS,
    LANES,
    OUTCOMES,
    PHASES,
    REASONS,
    STATUSES,
    said,
)
from celery_mailer.models import Attempt, Decision, Email, Event
from celery_mailer.values import FINAL, WAITING, Status

SHOWN = 100  # attempts, decisions, and events, of an email that has had more


@dataclass(frozen=True)
class Entry:
    """A line of the timeline. ``mark`` is a status or an outcome, by which it is coloured."""

    at: datetime | None
    mark: str
    title: str | Promise
    notes: list[Any] = field(default_factory=list)
    until: datetime | None = None
    reply: str = ""
    recipients: list[tuple[str, Any, Any, str]] = field(default_factory=list)


def timeline(email: Email) -> list[Entry]:
    """The entries for ``email``, oldest first; costs four queries."""
    attempts = list(email.attempts.order_by("-pk")[:SHOWN])
    decisions = list(email.decisions.order_by("-pk")[:SHOWN])
    events = list(email.events.order_by("-pk")[:SHOWN])
    resends = email.resends.order_by("pk").values_list("created_at", flat=True)[:SHOWN]
    happened = [
        *map(_attempt, attempts),
        *map(_decision, decisions),
        *map(_event, events),
        *map(_resend, resends),
    ]
    if email.status in FINAL and email.status not in {decision.status for decision in decisions}:
        # The plain moves leave no decision.
        happened.append(Entry(email.finished_at, email.status, capfirst(str(said(STATUSES, email.status)))))
    happened.sort(key=lambda entry: entry.at or email.created_at)  # stable: a decision follows its attempt
    if SHOWN in (len(attempts), len(decisions), len(events)):
        happened.insert(0, Entry(None, "", _("What came before this is left out.")))
    return [*_beginning(email), *happened, *_end(email)]


def _beginning(email: Email) -> Iterator[Entry]:
    lane = _("lane: %(name)s") % {"name": said(LANES, email.priority)}
    stream = _("stream: %(name)s") % {"name": email.stream}
    yield Entry(email.created_at, "queued", _("Queued"), [lane, stream])
    if hasattr(email, "rendered"):
        yield Entry(None, "rendered", _("Rendered"), [name for name in [email.content.template] if name])


def _attempt(attempt: Attempt) -> Entry:
    took = (attempt.finished_at - attempt.started_at).total_seconds()
    notes = [said(REASONS, attempt.kind), said(PHASES, attempt.phase), _("took %(n).1f s") % {"n": took}]
    names = {"provider": attempt.provider, "outcome": said(OUTCOMES, attempt.outcome)}
    return Entry(
        attempt.finished_at,
        attempt.outcome,
        _("Attempt by %(provider)s: %(outcome)s") % names,
        [note for note in notes if note],
        reply=" ".join(str(part) for part in (attempt.code, attempt.text) if part),
        recipients=[
            (address, said(OUTCOMES, outcome), code, text)
            for address, (outcome, code, text, *more) in attempt.recipients.items()
        ],
    )


def _decision(decision: Decision) -> Entry:
    return Entry(
        decision.at,
        decision.status,
        said(DECISIONS, decision.move),
        [said(REASONS, decision.reason)] if decision.reason else [],
        decision.until,
        decision.detail,
    )


def _event(event: Event) -> Entry:
    notes = [
        event.recipient,
        event.provider,
        said(BOUNCES, event.bounce) if event.bounce else "",
        _("by a machine") if event.machine else "",
    ]
    return Entry(
        event.at,
        event.kind,
        capfirst(str(said(EVENTS, event.kind))),
        [note for note in notes if note],
        reply=" ".join(str(part) for part in (event.code, event.text, event.url) if part),
    )


def _resend(created_at: datetime) -> Entry:
    return Entry(created_at, "resent", _("Sent again, as a new email"))


def _end(email: Email) -> Iterator[Entry]:
    """What is to come."""
    if email.status in WAITING:
        yield Entry(email.due_at, "next", _("Due"))
    elif email.status == Status.SENDING:
        yield Entry(email.lease_until, "next", _("A worker has it, until this time at the latest"))
    elif email.status == Status.UNCERTAIN:
        yield Entry(None, "next", _("Held, until a person or the provider says what became of it"))
