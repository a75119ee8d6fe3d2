"""What an answer says about how fast we may send, told to the limits that all workers share."""

import re
from collections.abc import MutableMapping
from datetime import timedelta

from django.utils import timezone

from celery_mailer.deliver import limits
from celery_mailer.deliver.breaker import Held
from celery_mailer.deliver.plan import Ready
from celery_mailer.values import Kind, Outcome, Phase, Reply, Result

PAUSE = timedelta(seconds=30)  # where a provider says that it is too much, and not until when

# Security or policy status (RFC 3463, section 3.8), with which mailbox providers answer who sends too fast.
# Greylisting (RFC 6647) has such a status too, and asks for another time, not for a slower pace.
_TOO_FAST = re.compile(r"4\.7\.\d{1,3}\b(?!.*gr[ae]y-?list)", re.IGNORECASE | re.DOTALL)

# A server that closes the session (RFC 5321, section 3.8) at a recipient or a message has lost its patience,
# or the domain behind it has; unless its status is about the server or its network: that it shuts down, or
# heard nothing for a while (RFC 3463, sections 3.4 and 3.5). A 421 to the greeting, the login or MAIL was
# said before it heard of anybody: it is the provider's alone, which the breaker counts.
_CLOSING = 421
_AT_A_RECIPIENT = frozenset({Phase.RCPT, Phase.DATA, Phase.BODY, Phase.DOT})
_ABOUT_ITSELF = re.compile(r"4\.[34]\.\d{1,3}\b")


def learn(alias: str, ready: Ready, result: Result, held: MutableMapping[str, Held]) -> None:
    """Throttle ``alias`` or slow a domain down, if ``result`` asks for it; give back a useless slot."""
    reply = result.summary
    if reply.kind == Kind.THROTTLED:
        wait = reply.retry_after or PAUSE
        limits.throttle(alias, wait)
        held[alias] = Held(timezone.now() + wait, str(Kind.THROTTLED))
    if not result.usable and reply.outcome == Outcome.DEFERRED:
        limits.give_back([ready.slot])
    domains = {address: address.rpartition("@")[2] for address in result.recipients}
    one_domain = len({*domains.values()}) == 1  # of several, a closed session does not tell which it was
    for address, said in result.recipients.items():
        if _is_too_fast(said) or (one_domain and _is_closed_at_a_recipient(said)):
            limits.slow_down(domains[address])


def _is_too_fast(reply: Reply) -> bool:
    return reply.outcome == Outcome.DEFERRED and _TOO_FAST.match(reply.text) is not None


def _is_closed_at_a_recipient(reply: Reply) -> bool:
    closing = reply.code == _CLOSING and reply.phase in _AT_A_RECIPIENT
    return closing and _ABOUT_ITSELF.match(reply.text) is None
