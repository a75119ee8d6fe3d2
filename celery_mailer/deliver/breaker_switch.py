"""The circuit breaker by hand: a person knows of an outage before it is seen, or that it is over."""

from datetime import datetime
from functools import partial

from celery_mailer.deliver.breaker import Breakers, Step, breakers
from celery_mailer.models import ProviderState
from celery_mailer.models.pause import OF_PROVIDERS, wake
from celery_mailer.models.provider import State

BY_HAND = "by_hand"


def open_breaker(alias: str, until: datetime, who: str, of: Breakers = breakers) -> None:
    """Leave ``alias`` alone until then; the first mail after that is the trial that closes it."""
    of.switch(alias, partial(opened, until=until, who=who))


def close_breaker(alias: str, who: str, of: Breakers = breakers) -> None:
    """Let mail go by ``alias`` again, a few at first, without a trial; what waits for it is due at once."""
    of.switch(alias, partial(closed, who=who))
    wake(OF_PROVIDERS)


def opened(row: ProviderState, *, until: datetime, now: datetime, who: str) -> tuple[Step, None]:
    """The row after it was opened by ``who``; a trial that is under way says nothing any more."""
    openings = max(1, row.openings)  # so that not all mail comes at once when it closes
    values = {"state": State.OPEN, "since": now, "openings": openings, "retry_at": until}
    values |= {"trial": None, "trial_until": None, "ok": 0.0, "faults": 0.0, "counted_at": now}
    return Step(values, BY_HAND, f"by {who}"), None


def closed(row: ProviderState, *, now: datetime, who: str) -> tuple[Step | None, None]:
    """The row after it was closed by ``who``; ``None`` where it is."""
    if row.state == State.CLOSED:
        return None, None
    values = {"state": State.CLOSED, "since": now, "retry_at": None, "trial": None, "trial_until": None}
    values |= {"ok": 0.0, "faults": 0.0, "counted_at": now, "let_in": 0}
    return Step(values, BY_HAND, f"by {who}"), None
