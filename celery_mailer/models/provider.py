"""Providers as the rows know them: the circuit breaker of each, its log, and what an email may go by."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from celery_mailer import conf, options
from celery_mailer.addresses import bare
from celery_mailer.models.attempt import Attempt
from celery_mailer.models.email import Email
from celery_mailer.values import Kind, Outcome, uuid7

# An attempt that was deferred for one of these was certainly not taken, and another provider may do better.
NOT_TAKEN = frozenset({Kind.CONNECTION, Kind.TEMPORARY, Kind.PROVIDER, Kind.THROTTLED})

HELD = "provider_open"  # the reason of mail that waits for a breaker


class State(models.TextChoices):
    CLOSED = "closed", "closed"  # mail flows
    OPEN = "open", "open"  # no mail before ``retry_at``
    HALF_OPEN = "half_open", "half-open"  # one mail is on trial; its worker holds ``trial``


class ProviderState(models.Model):
    """A provider's circuit breaker. No row: nothing bad was ever heard of it.

    Only ``deliver.breaker`` writes it, by compare-and-set on ``version``; and ``models.pause.resume``.
    """

    alias = models.CharField(max_length=64, primary_key=True)
    version = models.PositiveBigIntegerField(default=0, editable=False)
    state = models.CharField(max_length=10, choices=State, default=State.CLOSED, editable=False)
    since = models.DateTimeField(default=timezone.now, editable=False)
    ok = models.FloatField(default=0, editable=False, help_text="good answers lately, fading away")
    faults = models.FloatField(default=0, editable=False, help_text="the provider's faults, likewise")
    counted_at = models.DateTimeField(default=timezone.now, editable=False)
    openings = models.PositiveIntegerField(default=0, editable=False, help_text="without a calm in between")
    retry_at = models.DateTimeField(null=True, editable=False)
    trial = models.UUIDField(null=True, editable=False)
    trial_until = models.DateTimeField(null=True, editable=False, help_text="then another may try")
    let_in = models.PositiveIntegerField(default=0, editable=False, help_text="hand-overs since it closed")
    kind = models.CharField(max_length=20, blank=True, editable=False, help_text="of the last fault")
    text = models.TextField(blank=True, editable=False, help_text="the server's words with it")
    fault_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        verbose_name = _("provider")
        verbose_name_plural = _("providers")
        default_permissions = ("view",)  # nobody adds or edits one by hand
        permissions = [("switch_provider", _("Can pause and switch providers, lanes and streams"))]
        constraints = [
            models.CheckConstraint(
                name="mailer_provider_state",
                condition=Q(state=State.CLOSED, retry_at=None, trial=None, trial_until=None)
                | Q(state=State.OPEN, retry_at__isnull=False, trial=None, trial_until=None)
                | Q(state=State.HALF_OPEN, retry_at=None, trial__isnull=False, trial_until__isnull=False),
            )
        ]

    def __str__(self) -> str:
        return self.alias


class ProviderChange(models.Model):
    """The log of the breakers: a row for each change of a state, and for each trial.

    ``reason`` is the kind of the fault that opened it, or ``trial``, ``trial_lost`` (the worker of the
    one before vanished), ``trial_ok``, ``trial_unused``.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    alias = models.CharField(max_length=64)
    at = models.DateTimeField()
    from_state = models.CharField(max_length=10, choices=State)
    to_state = models.CharField(max_length=10, choices=State)
    reason = models.CharField(max_length=20)
    detail = models.TextField(blank=True, help_text="the server's words")

    class Meta:
        indexes = [models.Index(fields=["alias", "id"], name="mailer_provider_change_idx")]

    def __str__(self) -> str:
        return f"{self.alias}: {self.from_state} to {self.to_state} ({self.reason})"


def routes_of(email: Email) -> options.Routes:
    """The providers that may take ``email``, in order or with weights: the one it names, or as configured.

    A domain has its routes only for emails whose recipients are all there: an email is handed over whole.
    """
    if email.provider:
        return [email.provider]
    settings = conf.get()
    return settings.routes_for(email.stream, _domain(email) if settings.domain_routes else None)


def _domain(email: Email) -> str | None:
    try:
        domains = {bare(address).rpartition("@")[2].lower() for address in email.recipients}
    except ValueError:
        return None
    return domains.pop() if len(domains) == 1 else None


@dataclass(frozen=True, slots=True)
class Past:
    """What came of an email so far: failures by provider, and the provider that may have it already."""

    failures: Mapping[str, int] = field(default_factory=dict)
    doubt: str = ""


def past_of(email_ids: Collection[UUID]) -> dict[UUID, Past]:
    """By email, what its attempts say about who may try next; one query."""
    failures: dict[UUID, Counter[str]] = {pk: Counter() for pk in email_ids}
    doubts: dict[UUID, str] = {}
    rows = (
        Attempt.objects.filter(email_id__in=email_ids).order_by("pk") if email_ids else Attempt.objects.none()
    )
    for pk, alias, outcome, kind in rows.values_list("email_id", "provider", "outcome", "kind"):
        if outcome == Outcome.UNCERTAIN or kind == Kind.NO_ANSWER:
            doubts[pk] = alias
        elif outcome == Outcome.DEFERRED and kind in NOT_TAKEN:
            failures[pk][alias] += 1
    return {pk: Past(failures[pk], doubts.get(pk, "")) for pk in email_ids}


def not_closed() -> set[str]:
    """The providers whose breaker is open or half-open."""
    rows = ProviderState.objects.exclude(state=State.CLOSED)
    return set(rows.values_list("alias", flat=True))
