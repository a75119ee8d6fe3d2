"""What a slice may hand over now, and by which provider; decided before anything is claimed.

What has no provider left, or no slot within reach, is put off here, so that it costs neither a claim nor an
attempt; it is told the time when it is worth coming again.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from uuid import UUID

from django.utils import timezone

from celery_mailer.addresses import bare
from celery_mailer.deliver import limits, suppressions
from celery_mailer.deliver.breaker import Held, breakers
from celery_mailer.deliver.limits import Slot, Turn
from celery_mailer.deliver.message import addressed
from celery_mailer.deliver.routes import NOTHING, candidates
from celery_mailer.models import Email
from celery_mailer.models.attempt import final_recipients
from celery_mailer.models.provider import past_of
from celery_mailer.models.transitions import POSTPONE, THROTTLE, move
from celery_mailer.values import Kind


@dataclass(slots=True, eq=False)
class Ready:
    """An email with its way out.

    ``recipients`` are the bare addresses that are not settled yet; ``None`` if one cannot be written at all.
    """

    email: Email
    alias: str
    recipients: list[str] | None
    slot: Slot


@dataclass(slots=True)
class Plan:
    """``soon`` is worth asking again at ``again`` (by ``time.monotonic``), and stays as it is until then."""

    ready: list[Ready] = field(default_factory=list)
    soon: list[UUID] = field(default_factory=list)
    again: float = 0.0


def plan(emails: Sequence[Email], held: dict[str, Held], within: float) -> Plan:
    """Find each email's provider and slot, up to ``within`` seconds ahead, in the order of ``emails``.

    ``held`` are the providers that this worker knows it cannot use; what the breakers know is added.
    """
    ways = _ways(emails, held)
    slots = limits.take([limits.ask(alias, recipients or ()) for _, alias, recipients in ways], within)
    found = Plan()
    later: dict[tuple[datetime, str], list[UUID]] = defaultdict(list)
    for (email, alias, recipients), slot in zip(ways, slots, strict=True):
        if slot.turn == Turn.NOW:
            found.ready.append(Ready(email, alias, recipients, slot))
        elif slot.turn == Turn.SOON:
            found.again = min(found.again or slot.ready, slot.ready)
            found.soon.append(email.pk)
        else:
            later[slot.at, slot.limit].append(email.pk)
    for (at, limit), ids in later.items():
        move(ids, THROTTLE, reason=Kind.THROTTLED, detail=limit, due_at=at)
    return found


def _ways(emails: Sequence[Email], held: dict[str, Held]) -> list[tuple[Email, str, list[str] | None]]:
    """Each email with the first of its providers that can be used; those that have none are put off.

    Nobody is asked for who must not be written to.
    """
    again = [email.pk for email in emails if email.attempt_count]
    settled, past = final_recipients(again), past_of(again)
    ways = []
    stuck: dict[Held, list[UUID]] = defaultdict(list)
    for email in suppressions.pass_over(emails, settled):
        routes = candidates(email, past.get(email.pk, NOTHING))
        for alias in routes:
            if alias not in held and (news := breakers.peek(alias)) is not None:
                held[alias] = news
        usable = next((alias for alias in routes if alias not in held), None)
        if usable is None:
            stuck[min((held[alias] for alias in routes), key=lambda h: h.until)].append(email.pk)
        else:
            ways.append((email, usable, _pending(email, settled.get(email.pk, {}))))
    for why, ids in stuck.items():
        move(ids, POSTPONE, reason=why.reason, due_at=max(why.until, timezone.now()))
    return ways


def _pending(email: Email, settled: Mapping[str, object]) -> list[str] | None:
    try:
        return [r for r in dict.fromkeys(map(bare, chain(*addressed(email)))) if r not in settled]
    except ValueError:  # the door of an earlier version let it pass
        return None
