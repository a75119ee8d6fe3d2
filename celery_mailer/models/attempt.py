"""One hand-over of one email to one provider, and what came of it. A fact: written once, never changed."""

from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

from django.db import IntegrityError, models, router

from celery_mailer.models.email import Email
from celery_mailer.models.fields import QuickJSON
from celery_mailer.models.insertion import insert
from celery_mailer.models.quick import QuickRow
from celery_mailer.values import Kind, Outcome, uuid7

LONGEST_ID = 255  # characters that are kept of a provider's id: no ESP of Anymail's comes near


class Attempt(QuickRow):
    """``claim`` is the email's claim under which it was made, so that log judges each fact once."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    email = models.ForeignKey(Email, models.CASCADE, related_name="attempts", db_index=False)
    claim = models.UUIDField()
    provider = models.CharField(max_length=64)
    started_at = models.DateTimeField()
    finished_at = models.DateTimeField()
    outcome = models.CharField(max_length=10, choices=Outcome)
    kind = models.CharField(max_length=20, blank=True, help_text="kind of failure")
    phase = models.CharField(max_length=10, blank=True, help_text="step of the session in which it ended")
    code = models.PositiveSmallIntegerField(null=True, help_text="the server's status code")
    text = models.TextField(blank=True, help_text="the server's words")
    retry_after = models.DurationField(null=True, help_text="for how long the server asked us to wait")
    recipients = QuickJSON(default=dict, help_text="address: [outcome, code, text]")

    # The provider's ids of what it took: no column, but on their way into ``ProviderMessage``.
    message_ids: Collection[str] = ()

    class Meta:
        constraints = [
            models.CheckConstraint(
                name="mailer_attempt_outcome", condition=models.Q(outcome__in=Outcome.values)
            )
        ]
        indexes = [models.Index(fields=["email", "id"], name="mailer_attempt_email_idx")]

    def __str__(self) -> str:
        return f"{self.outcome} by {self.provider}"


class ProviderMessage(models.Model):
    """The id by which a provider's events name what it took of an email; they name the recipient, too.

    A table of its own, because JSON is not indexed alike on every database, because providers without
    such ids (SMTP) then pay nothing, and because events come long after ``LOG_LEVEL`` let the attempt go.
    An email has one row for each id: most ESPs give one for all recipients of a call, some one for each.
    """

    email = models.ForeignKey(Email, models.CASCADE, related_name="provider_messages", db_index=False)
    provider = models.CharField(max_length=64)
    message_id = models.CharField(max_length=LONGEST_ID, help_text="the provider's own, not the Message-ID")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["email", "provider", "message_id"], name="mailer_provider_message_once"
            )
        ]
        indexes = [models.Index(fields=["message_id"], name="mailer_provider_message_idx")]

    def __str__(self) -> str:
        return f"{self.message_id} at {self.provider}"


def record(facts: Sequence[Attempt]) -> None:
    """Write ``facts`` with the ids that came with them; to repeat it after a lost answer is harmless."""
    try:
        _insert(facts)
    except IntegrityError:
        # Somebody deleted an email while it was sent: its fact has nowhere to go, the others have.
        there = set(Email.objects.filter(pk__in=[f.email_id for f in facts]).values_list("pk", flat=True))
        _insert([f for f in facts if f.email_id in there])


def _insert(facts: Sequence[Attempt]) -> None:
    insert(facts, router.db_for_write(Attempt), new_only=True)
    messages = [
        ProviderMessage(email_id=fact.email_id, provider=fact.provider, message_id=message_id[:LONGEST_ID])
        for fact in facts
        for message_id in fact.message_ids
    ]
    if messages:
        ProviderMessage.objects.bulk_create(messages, ignore_conflicts=True)


def by_provider_message_id(provider: str, message_id: str) -> UUID | None:
    """The email that ``provider`` (an alias) calls ``message_id``, or ``None``; one look into an index."""
    rows = ProviderMessage.objects.filter(message_id=message_id[:LONGEST_ID], provider=provider)
    return rows.order_by("-pk").values_list("email_id", flat=True).first()


def final_recipients(email_ids: Collection[UUID]) -> dict[UUID, dict[str, Outcome]]:
    """By email and bare address: who has it by an earlier attempt, or was refused for good.

    Neither is ever to be asked again. Attempts that went the same way for all leave nothing here.
    """
    found: dict[UUID, dict[str, Outcome]] = {}
    if email_ids:
        rows = Attempt.objects.filter(email_id__in=email_ids).exclude(recipients={})
        for email_id, recipients in rows.values_list("email_id", "recipients"):
            found.setdefault(email_id, {}).update(final_in(recipients))
    return found


def doubtful(email_ids: Collection[UUID]) -> set[UUID]:
    """Of ``email_ids``, those that a provider may have taken, for all that an attempt of theirs says."""
    if not email_ids:
        return set()
    unknown = models.Q(outcome=Outcome.UNCERTAIN) | models.Q(kind=Kind.NO_ANSWER)
    rows = Attempt.objects.filter(unknown, email_id__in=email_ids)
    return set(rows.values_list("email_id", flat=True))


def final_in(recipients: dict[str, list[Any]]) -> dict[str, Outcome]:
    """Of one attempt's ``recipients``, those with an answer that stands."""
    outcomes = {address: Outcome(outcome) for address, (outcome, *_) in recipients.items()}
    return {a: o for a, o in outcomes.items() if o in (Outcome.ACCEPTED, Outcome.REJECTED)}
