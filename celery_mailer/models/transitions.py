"""Every way an email's status can change. Nothing else writes ``status``.

A move is a compare-and-set: an UPDATE whose WHERE names the statuses it may start from (and, where the
mover holds a claim, that claim). Of any number of processes that try, one wins each row; the others
learn that they did not, and do nothing. This holds on every database at its default isolation level,
needs no row lock, and costs one statement for a slice.

The move also names the signal that tells the project, and ``move`` sends it once the move is committed.
"""

import uuid
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from django.db import models, router, transaction
from django.db.models import F
from django.dispatch import Signal
from django.utils import timezone

from celery_mailer import logs, signals
from celery_mailer.models.attachment import Enclosure
from celery_mailer.models.content import Content, Message
from celery_mailer.models.decision import Decision
from celery_mailer.models.email import Email
from celery_mailer.values import FINAL, WAITING, Status

Q, S, D, U = Status.QUEUED, Status.SENDING, Status.DEFERRED, Status.UNCERTAIN


@dataclass(frozen=True, slots=True)
class Move:
    """An arrow of the life of an email: from where, to where, made by whom.

    ``plain`` moves leave no decision row: the email and its attempts already say all about them.
    """

    name: str
    sources: frozenset[Status]
    target: Status
    by: str
    plain: bool = False
    counts: bool = False  # whether the attempt behind it counts against MAX_ATTEMPTS
    signal: Signal | None = None  # sent on commit, with the emails that made the move


CLAIM = Move("claim", frozenset({Q}), S, "deliver", plain=True)
RELEASE = Move("release", frozenset({S}), Q, "deliver, what a slice had no time for", plain=True)
POSTPONE = Move(
    "postpone", frozenset({Q}), D, "deliver, when no provider can be used", signal=signals.email_deferred
)
SENT = Move("sent", frozenset({S}), Status.SENT, "log", plain=True, counts=True, signal=signals.email_sent)
DEFER = Move("defer", frozenset({S}), D, "log", counts=True, signal=signals.email_deferred)
DEFER_FREE = Move(
    "defer_free", frozenset({S}), D, "log, when the fault is the provider's", signal=signals.email_deferred
)
REJECT = Move("reject", frozenset({S}), Status.FAILED, "log", counts=True, signal=signals.email_failed)
DOUBT = Move("doubt", frozenset({S}), U, "log", counts=True, signal=signals.email_uncertain)
RESEND = Move(
    "resend", frozenset({U}), D, "log, by the stream's policy; a person", signal=signals.email_deferred
)
BROKEN = Move("broken", frozenset({Q}), Status.FAILED, "render, or the gate", signal=signals.email_failed)
EXPIRE = Move("expire", frozenset({Q, D}), Status.EXPIRED, "the gate")
SUPPRESS = Move(
    "suppress", frozenset({Q}), Status.SUPPRESSED, "deliver, when nobody is left who may be written to"
)
THROTTLE = Move(
    "throttle", frozenset({Q}), D, "deliver, when a limit is reached", signal=signals.email_deferred
)
HOLD = Move(
    "hold", frozenset({Q}), D, "the gate, while paused, or in quiet hours", signal=signals.email_deferred
)
WAKE = Move("wake", frozenset({Q, D}), Q, "the dispatcher", plain=True)
REQUEUE = Move("requeue", frozenset({S}), Q, "the rescuer, what a lost worker had not begun")
RETRY = Move("retry", frozenset({Q, D}), Q, "a person, who will not wait for its time")
CONFIRM = Move(
    "confirm", frozenset({U}), Status.SENT, "a person; a provider's event", signal=signals.email_sent
)
TAKEN = Move(
    "taken", frozenset({Q, D}), Status.SENT, "a provider's event, after a doubt", signal=signals.email_sent
)
GIVE_UP = Move(
    "give_up", frozenset({U}), Status.FAILED, "a person; a provider's event", signal=signals.email_failed
)
CANCEL = Move("cancel", frozenset({Q, D, U}), Status.CANCELLED, "a person")

MOVES = (
    CLAIM, RELEASE, POSTPONE, SENT, DEFER, DEFER_FREE, REJECT, DOUBT, RESEND,
    BROKEN, EXPIRE, SUPPRESS, THROTTLE, HOLD, WAKE, REQUEUE, RETRY, CONFIRM, TAKEN, GIVE_UP, CANCEL,
)  # fmt: skip


def move(
    ids: Collection[UUID],
    how: Move,
    *,
    reason: str = "",
    detail: str = "",
    due_at: datetime | None = None,
    lease_until: datetime | None = None,
    claim: UUID | None = None,
    token: UUID | None = None,
    **where: Any,
) -> list[UUID]:
    """Make ``how`` for ``ids`` and return those for which this call won, in the order given.

    ``due_at`` belongs to a move that ends in a waiting status, ``lease_until`` to the claim. ``claim``
    is what the mover believes to hold; ``token`` is left on the rows (a fresh one when not given).
    Call it inside a transaction if the decision rows must stand or fall with something else.
    """
    if not ids:
        return []
    token = token or uuid.uuid4()
    rows = Email.objects.filter(pk__in=ids, status__in=how.sources, **where)
    if claim is not None:
        rows = rows.filter(claim=claim)
    values: dict[str, Any] = {
        "status": how.target,
        "reason": reason,
        "claim": token,
        "lease_until": lease_until,
    }
    values["due_at"] = due_at if how.target in WAITING else None
    if how.target in FINAL:
        values["finished_at"] = timezone.now()
    if how.counts:
        values["attempt_count"] = F("attempt_count") + 1
    count = rows.update(**values)
    won = list(ids) if count == len(ids) else _marked(ids, token) if count else []
    if not how.plain:
        Decision.objects.bulk_create(
            Decision(
                email_id=pk,
                move=how.name,
                status=how.target,
                reason=reason,
                detail=detail,
                until=values["due_at"],
            )
            for pk in won
        )
    if how.target in FINAL:
        drop_content(won, models.Q(sensitive=True) | models.Q(render_on_delivery=True))
    if how.signal is not None:
        announce(how.signal, won)
    _log(how, won, reason)
    return won


def _marked(ids: Iterable[UUID], token: UUID) -> list[UUID]:
    # Somebody else won a part. The token tells which rows this call changed: no other call uses it.
    mine = set(Email.objects.filter(pk__in=ids, claim=token).values_list("pk", flat=True))
    return [pk for pk in ids if pk in mine]


def drop_content(ids: Collection[UUID], which: models.Q = models.Q()) -> int:  # noqa: B008 it is immutable
    """Forget what the emails said, of those whose content matches ``which``; they keep their history."""
    contents = Content.objects.filter(which, email_id__in=ids)
    if not contents.update(subject="", text="", html="", context=None, headers={}, dropped=True):
        return 0
    enclosed = {"email__content__dropped": True, "email__content__has_attachments": True}
    Enclosure.objects.filter(email_id__in=ids, **enclosed).delete()
    return Message.objects.filter(email_id__in=ids, email__content__dropped=True).delete()[0]


def announce(signal: Signal, ids: Collection[UUID]) -> None:
    """Send ``signal`` for ``ids`` once the transaction commits; without receivers this costs nothing."""

    def send() -> None:
        signal.send_robust(sender=Email, emails=list(Email.objects.filter(pk__in=ids).order_by("pk")))

    if ids and signal.has_listeners(Email):
        transaction.on_commit(send, using=router.db_for_write(Email), robust=True)


def _log(how: Move, won: list[UUID], reason: str) -> None:
    if won and logs.tells(how.name):
        line = partial(logs.moved, how.name, how.target, won, reason)
        transaction.on_commit(line, using=router.db_for_write(Email), robust=True)


def renew_lease(ids: Collection[UUID], claim: UUID, lease_until: datetime) -> bool:
    """Extend the lease of what is still held under ``claim``; false when any of ``ids`` was lost."""
    held = Email.objects.filter(pk__in=ids, status=Status.SENDING, claim=claim)
    return held.update(lease_until=lease_until) == len(ids)


def push_due(ids: Collection[UUID], due_at: datetime) -> None:
    """Change when the dispatcher looks at emails that wait; their status stays."""
    Email.objects.filter(pk__in=ids, status__in=WAITING).update(due_at=due_at)
