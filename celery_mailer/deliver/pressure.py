"""What an answer says about how fast we may send, told to the limits that all workers share."""

import re
from collections.abc import MutableMapping
from datetime import timedelta

from django.utils import timezone

from celery_mailer.deliver import limits
from celery_mailer.deliver.breaker import Held
from celery_mailer.deliver.plan import Ready
from celery_mailer.values import Kind, Outcome, Reply, Result

PAUSE = timedelta(seconds=30)  # where a provider says that it is too much, and not until when

# Security or policy status (RFC 3463, section 3.8), with which mailbox providers answer who sends too fast.
# Greylisting (RFC 6647) has such a status too, and asks for another time, not for a slower pace.
_TOO_FAST = re.compile(r"4\.7\.\d{1,3}\b(?!.*gr[ae]y-?list)", re.IGNORECASE | re.DOTALL)


def learn(alias: str, ready: Ready, result: Result, held: MutableMapping[str, Held]) -> None:
    """Throttle ``alias`` or slow a domain down, if ``result`` asks for it; give back a useless slot."""
    reply = result.summary
    if reply.kind == Kind.THROTTLED:
        wait = reply.retry_after or PAUSE
        limits.throttle(alias, wait)
        held[alias] = Held(timezone.now() + wait, str(Kind.THROTTLED))
    if not result.usable and reply.outcome == Outcome.DEFERRED:
        limits.give_back([ready.slot])
    for address, said in result.recipients.items():
        if _is_too_fast(said):
            limits.slow_down(address.rpartition("@")[2])


def _is_too_fast(reply: Reply) -> bool:
    return reply.outcome == Outcome.DEFERRED and _TOO_FAST.match(reply.text) is not None
