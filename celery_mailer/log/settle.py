"""Judges the facts of one slice: from attempts to each email's next status and reason."""

from collections import defaultdict
from collections.abc import Collection, Iterable
from datetime import timedelta
from typing import NamedTuple
from uuid import UUID

from django.db import router, transaction
from django.db.models import F, Q, QuerySet
from django.utils import timezone

from celery_mailer import conf
from celery_mailer.log.retry import Situation, Verdict, judge
from celery_mailer.log.suppress import suppress_refused
from celery_mailer.models import Attempt, Email
from celery_mailer.models.attempt import doubtful, final_in, final_recipients
from celery_mailer.models.connection import survives_lost_connection
from celery_mailer.models.event import known_to_be_taken
from celery_mailer.models.pause import paused_providers
from celery_mailer.models.provider import NOT_TAKEN, not_closed, past_of, routes_of
from celery_mailer.models.transitions import CONFIRM, DOUBT, RESEND, Move, move
from celery_mailer.values import FINAL, LOG_ALL, LOG_FAILURES, LOG_NOTHING, Kind, Outcome, Status


def unjudged() -> QuerySet[Attempt]:
    """Facts whose email is still held under the claim they were made under: nobody has judged them."""
    facts = Attempt.objects.filter(email__status=Status.SENDING, email__claim=F("claim"))
    # Times take long to make, and these are not asked for.
    return facts.select_related("email").defer("started_at", "finished_at", "email__lease_until")


@survives_lost_connection
def settle_emails(ids: Collection[UUID]) -> int:
    """Judge what of ``ids`` has an unjudged fact; returns how many emails were moved."""
    return settle(unjudged().filter(email_id__in=ids).order_by("email_id"))


def settle(attempts: Iterable[Attempt]) -> int:
    """Judge ``attempts`` (with their emails) and move the emails; returns how many were moved.

    What is deferred together gets one time, and so comes back together, as one slice.
    """
    attempts = list(attempts)
    elsewhere = _elsewhere(attempts)
    earlier = final_recipients([a.email_id for a in attempts if a.email.attempt_count])
    retried = [a.email_id for a in attempts if a.email.attempt_count and a.outcome == Outcome.DEFERRED]
    doubted = doubtful(retried)
    groups: dict[_Group, list[UUID]] = defaultdict(list)
    due_after: dict[_Group, timedelta] = {}
    for attempt in attempts:
        pk = attempt.email_id
        verdict = _verdict(attempt, earlier.get(pk, {}), elsewhere=pk in elsewhere, doubted=pk in doubted)
        group = _Group(
            attempt.claim,
            verdict.move,
            verdict.reason,
            verdict.resend,
            verdict.due_after == timedelta(0),
            attempt.email.stream,
            attempt.email.attempt_count,
            attempt.retry_after,
        )
        groups[group].append(attempt.email_id)
        due_after.setdefault(group, verdict.due_after or timedelta(0))
    with transaction.atomic(using=router.db_for_write(Email)):
        moved = sum(_move(group, ids, due_after[group]) for group, ids in groups.items())
        suppress_refused(attempts)
        _forget([attempt.email for attempt in attempts if attempt.email.log_level < LOG_ALL])
    return moved


def _forget(emails: Iterable[Email]) -> None:
    """Delete the attempts that the log level does not keep, once nothing depends on them any more."""
    nothing = [e.pk for e in emails if e.log_level == LOG_NOTHING]
    failures = [e.pk for e in emails if e.log_level == LOG_FAILURES]
    if nothing or failures:
        done = Attempt.objects.filter(email__status__in=FINAL)
        done.filter(Q(email__in=nothing) | Q(email__in=failures, outcome=Outcome.ACCEPTED)).delete()


class _Group(NamedTuple):
    """Emails in the same situation: one verdict, one statement, and one moment to be due again."""

    claim: UUID
    move: Move
    reason: str
    resend: bool
    at_once: bool
    stream: str
    attempt_count: int
    retry_after: timedelta | None


def _elsewhere(attempts: Iterable[Attempt]) -> set[UUID]:
    """The emails that another provider may take at once: none has it, and one was tried less often.

    All are tried once before one is tried twice, and after each such round the policy's delay comes. So the
    next must lag behind by one failure exactly, or an email that fails without a count would go in circles.
    """
    failed = [a for a in attempts if a.outcome == Outcome.DEFERRED and a.kind in NOT_TAKEN]
    failed = [a for a in failed if len(routes_of(a.email)) > 1]
    if not failed:
        return set()
    past = past_of([a.email_id for a in failed])
    shut = not_closed() | paused_providers(timezone.now())
    found = set()
    for attempt in failed:
        failures, others = past[attempt.email_id].failures, set(routes_of(attempt.email)) - shut
        lag = {failures.get(attempt.provider, 0) - failures.get(alias, 0) for alias in others}
        if 1 in lag and not past[attempt.email_id].doubt:
            found.add(attempt.email_id)
    return found


def _verdict(attempt: Attempt, earlier: dict[str, Outcome], *, elsewhere: bool, doubted: bool) -> Verdict:
    email = attempt.email
    outcomes = {*earlier.values(), *final_in(attempt.recipients).values()}
    kind = Kind(attempt.kind)
    case = Situation(
        outcome=Outcome(attempt.outcome),
        kind=kind,
        attempts=email.attempt_count + 1,
        age=timezone.now() - (email.scheduled_at or email.created_at),
        some_accepted=Outcome.ACCEPTED in outcomes,
        some_rejected=Outcome.REJECTED in outcomes,
        alternatives=elsewhere,
        retry_after=attempt.retry_after,
        doubted=doubted,
    )
    settings = conf.get()
    stream = email.stream if email.stream in settings.streams else "transactional"
    return judge(case, settings.retry_policy(stream, kind), settings.uncertain_policy(stream))


def _move(group: _Group, ids: list[UUID], due_after: timedelta) -> int:
    due_at = timezone.now() + due_after
    won = move(ids, group.move, reason=group.reason, due_at=due_at, claim=group.claim)
    if group.move is DOUBT:
        confirmed = set(move(list(known_to_be_taken(won)), CONFIRM, reason="event"))
        doubtful = [pk for pk in won if pk not in confirmed]
        if group.resend:
            move(doubtful, RESEND, reason=group.reason, due_at=due_at)
    return len(won)
