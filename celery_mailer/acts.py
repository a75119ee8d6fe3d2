"""What a person can do with emails. Everything goes by ``models.transitions.move``, and names who did it."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from uuid import UUID

from django.db import router, transaction
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from celery_mailer import chain, conf
from celery_mailer.exceptions import InvalidEmail
from celery_mailer.models import Email, Suppression
from celery_mailer.models.suppression import EVERY_STREAM, Entry, digest_of, suppress
from celery_mailer.models.transitions import CANCEL, CONFIRM, GIVE_UP, RESEND, RETRY, Move, move
from celery_mailer.resending import RESENDABLE, resend
from celery_mailer.values import Status, SuppressionReason

BY_HAND = "by_hand"
STEP = 1_000  # emails that are moved by one statement


@dataclass(frozen=True)
class Done:
    """The emails that it was done to (or that came of it), and why it was not done to others."""

    emails: list[UUID]
    faults: list[str]


@dataclass(frozen=True)
class Act:
    """``permission`` is what the admin's ``has_..._permission`` asks for: ``cancel``.

    What is done ``to_recipients`` leaves the email as it is; who they are is to be seen before.
    """

    name: str
    permission: str
    label: str | Promise
    question: str | Promise
    sources: frozenset[Status]
    do: Callable[[Sequence[UUID], str], Done]
    makes_new: bool = False
    to_recipients: bool = False


def _moved(how: Move, ids: Sequence[UUID], who: str) -> Done:
    """``how``, a slice after the other; what is waiting then is due at once."""
    won = []
    for at in range(0, len(ids), STEP):
        with transaction.atomic(using=router.db_for_write(Email)):
            slice_ = ids[at : at + STEP]
            won += move(slice_, how, reason=BY_HAND, detail=f"by {who}", due_at=timezone.now())
    return Done(won, [])


def _sent_now(ids: Sequence[UUID], who: str) -> Done:
    """Start chains for emails that wait, also for those that wait for a time of their own."""
    using, now = router.db_for_write(Email), timezone.now()
    with transaction.atomic(using=using):
        won = move(ids, RETRY, reason=BY_HAND, detail=f"by {who}", due_at=now + conf.get().lease)
        # The gate lets nothing through before its time.
        Email.objects.filter(pk__in=won, scheduled_at__gt=now).update(scheduled_at=now)
        lanes = defaultdict(list)
        for pk, priority in Email.objects.filter(pk__in=won).values_list("pk", "priority"):
            lanes[priority].append(pk)
        for priority in sorted(lanes, reverse=True):
            transaction.on_commit(partial(chain.start, lanes[priority], priority), using=using)
    return Done(won, [])


def _sent_again(ids: Sequence[UUID], who: str) -> Done:
    done = Done([], [])
    for email in Email.objects.filter(pk__in=ids).order_by("pk"):
        try:
            done.emails.append(resend(email).pk)
        except InvalidEmail as error:
            done.faults.append(f"{email.pk}: {error.fault}")
    return done


def suppressible(email: Email) -> list[str]:
    """Its recipients, without those who are suppressed by hand, and for good, for its stream or for all."""
    by_digest = {digest_of(address): address for address in email.recipients}
    lasting = Suppression.objects.filter(active=True, expires_at=None, reason=SuppressionReason.MANUAL)
    theirs = lasting.filter(digest__in=by_digest, stream__in=[EVERY_STREAM, email.stream])
    known = set(theirs.values_list("digest", flat=True))
    return [address for digest, address in by_digest.items() if digest not in known]


def _suppressed(ids: Sequence[UUID], who: str) -> Done:
    """Its recipients, for its stream."""
    entries = [
        Entry(address, SuppressionReason.MANUAL, email.stream, email_id=email.pk, note=f"by {who}")
        for email in Email.objects.filter(pk__in=ids).order_by("pk")
        for address in suppressible(email)
    ]
    suppress(entries)
    return Done(list(dict.fromkeys(entry.email_id for entry in entries if entry.email_id)), [])


ACTS = {
    act.name: act
    for act in (
        Act(
            "retry",
            "resend",
            _("Send now"),
            _("Send it now, and do not wait until it is due."),
            RETRY.sources,
            _sent_now,
        ),
        Act(
            "confirm",
            "decide",
            _("It was sent"),
            _("Note that a provider has it, and that it is done."),
            CONFIRM.sources,
            partial(_moved, CONFIRM),
        ),
        Act(
            "repeat",
            "decide",
            _("Send it again"),
            _("Send the same email again. Whoever has it already gets it twice."),
            RESEND.sources,
            partial(_moved, RESEND),
        ),
        Act(
            "give_up",
            "decide",
            _("It failed"),
            _("Note that nobody has it, and do not send it again."),
            GIVE_UP.sources,
            partial(_moved, GIVE_UP),
        ),
        Act(
            "resend",
            "resend",
            _("Resend as new"),
            _("Send a new email with the same content to the same recipients."),
            RESENDABLE,
            _sent_again,
            makes_new=True,
        ),
        Act(
            "cancel",
            "cancel",
            _("Cancel"),
            _("Do not send it. This cannot be taken back."),
            CANCEL.sources,
            partial(_moved, CANCEL),
        ),
        Act(
            "suppress",
            "suppress",
            _("Suppress"),
            _("Send nothing more of this stream to them, until somebody releases them."),
            frozenset(Status),
            _suppressed,
            to_recipients=True,
        ),
    )
}
