"""How the providers are: their breakers, pauses, limits in use, and what came of their last attempts."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import datetime

from django.utils import timezone
from django.utils.functional import Promise
from django.utils.safestring import SafeString

from celery_mailer import conf
from celery_mailer.admin.facts import mark
from celery_mailer.admin.words import BREAKERS, LANES, LIMITS, OUTCOMES, REASONS, said
from celery_mailer.deliver.limits import Usage, usage
from celery_mailer.models import Attempt, Pause, ProviderState
from celery_mailer.models.provider import State
from celery_mailer.values import Priority

LAST = 1_000  # attempts, of all providers together, whose outcomes are counted


@dataclass(frozen=True)
class Health:
    """One provider. ``usages`` is ``None`` while nobody can say how much of its limits is in use."""

    alias: str
    backend: str = ""
    breaker: ProviderState | None = None
    pause: Pause | None = None
    usages: list[tuple[str | Promise, Usage]] | None = None
    outcomes: list[tuple[str | Promise, int]] = field(default_factory=list)

    @property
    def state(self) -> str:
        """The breaker's state: closed, where nothing bad was ever heard."""
        return self.breaker.state if self.breaker is not None else State.CLOSED

    @property
    def mark(self) -> SafeString:
        return mark("paused" if self.pause is not None else self.state, BREAKERS)

    @property
    def fault(self) -> str | Promise:
        """The kind of the last fault, in words."""
        return said(REASONS, self.breaker.kind) if self.breaker is not None else ""


@dataclass(frozen=True)
class Subject:
    """A lane or a stream, which can be paused like a provider."""

    kind: str
    label: str | Promise
    name: str
    word: str | Promise  # the name as people read it
    pause: Pause | None


def healths() -> list[Health]:
    """All providers of the settings; four queries, and one call of the store of limits."""
    providers = conf.get().providers
    rows = {row.alias: row for row in ProviderState.objects.filter(alias__in=providers)}
    pauses = held(timezone.now())
    used = usage(providers)
    outcomes = last_outcomes()
    return [
        Health(
            alias,
            conf.backend_path(provider),
            rows.get(alias),
            pauses.get((Pause.Subject.PROVIDER, alias)),
            None if used is None else [(said(LIMITS, u.limit), u) for u in used[alias]],
            outcomes.get(alias, []),
        )
        for alias, provider in providers.items()
    ]


def subjects() -> list[Subject]:
    """The lanes, the most urgent first, and the streams."""
    pauses = held(timezone.now())
    lane, stream = Pause.Subject.LANE, Pause.Subject.STREAM
    names = [(lane, str(priority.label), said(LANES, priority)) for priority in reversed(Priority)]
    names += [(stream, name, name) for name in conf.get().streams]
    return [
        Subject(str(kind), kind.label, name, word, pauses.get((kind, name))) for kind, name, word in names
    ]


def held(now: datetime) -> dict[tuple[str, str], Pause]:
    """The pauses that hold, by kind and name."""
    return {(row.kind, row.name): row for row in Pause.objects.all() if row.holds(now)}


def last_outcomes() -> dict[str, list[tuple[str | Promise, int]]]:
    """By provider, what came of its part of the ``LAST`` attempts."""
    newest = Attempt.objects.order_by("-pk").values_list("provider", "outcome")
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for alias, outcome in newest[:LAST]:
        found[alias][outcome] += 1
    return {
        alias: [(word, counts[outcome]) for outcome, word in OUTCOMES.items() if counts[outcome]]
        for alias, counts in found.items()
    }
