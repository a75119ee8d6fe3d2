"""Who of a slice must not be written to: asked once for the slice, right before its claim."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from uuid import UUID

from celery_mailer.addresses import bare
from celery_mailer.deliver.message import addressed
from celery_mailer.models import Decision, Email
from celery_mailer.models.suppression import suppressed, why_stopped
from celery_mailer.models.transitions import SUPPRESS, move
from celery_mailer.values import Outcome, Status

LEAVE_OUT = "leave_out"  # the decision for an email of which some recipients are left
Settled = dict[UUID, dict[str, Outcome]]  # by email, the recipients that are not to be asked (again)


def pass_over(emails: Sequence[Email], settled: Settled) -> list[Email]:
    """The emails that may go; their suppressed recipients count as ``settled``, and a decision says so.

    An email of whose recipients nobody is left, and nobody has it by an earlier attempt, is suppressed.
    """
    known = suppressed({address for email in emails for address in _addresses(email)})
    if not known:
        return list(emails)
    stopped = {email.pk: _stopped(email, known) for email in emails}
    over = {email.pk: email for email in emails if _nobody_is_left(email, stopped, settled)}
    reasons: dict[str, list[UUID]] = defaultdict(list)
    for pk in over:
        reasons[next(iter(stopped[pk].values()))].append(pk)  # that of the first, if they have several
    for reason, ids in reasons.items():
        move(ids, SUPPRESS, reason=reason)
    passed = [email for email in emails if email.pk not in over]
    for email in passed:
        if stopped[email.pk]:
            settled.setdefault(email.pk, {}).update(dict.fromkeys(stopped[email.pk], Outcome.REJECTED))
    _note({email.pk: _words(email, stopped[email.pk]) for email in passed if stopped[email.pk]})
    return passed


def _addresses(email: Email) -> Iterable[str]:
    return chain(*addressed(email))


def _bare(address: str) -> str:
    """As the envelope has it; what cannot be written there stands for itself, and is refused later."""
    try:
        return bare(address)
    except ValueError:
        return address


def _stopped(email: Email, known: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Why mail in the stream of ``email`` must not go to some of its recipients, by envelope address."""
    found = {}
    for address in _addresses(email):
        reason = why_stopped(known.get(address, {}), email.stream)
        if reason:
            found[_bare(address)] = reason
    return found


def _nobody_is_left(email: Email, stopped: Mapping[UUID, Mapping[str, str]], settled: Settled) -> bool:
    earlier = settled.get(email.pk, {})
    if not stopped[email.pk] or Outcome.ACCEPTED in earlier.values():
        return False
    return all(
        (spec := _bare(address)) in stopped[email.pk] or spec in earlier for address in _addresses(email)
    )


def _words(email: Email, stopped: Mapping[str, str]) -> str:
    """Without addresses: a decision outlives their erasure."""
    number = len({_bare(address) for address in _addresses(email)})
    why = ", ".join(f"{reason}: {count}" for reason, count in sorted(Counter(stopped.values()).items()))
    return f"{len(stopped)} of {number} ({why})"


def _note(details: Mapping[UUID, str]) -> None:
    """Write the decisions that were not made already, when the same email came by before."""
    if not details:
        return
    rows = Decision.objects.filter(email_id__in=details, move=LEAVE_OUT)
    there = set(rows.values_list("email_id", "detail"))
    Decision.objects.bulk_create(
        Decision(email_id=pk, move=LEAVE_OUT, status=Status.QUEUED, reason="suppressed", detail=detail)
        for pk, detail in details.items()
        if (pk, detail) not in there
    )
