"""The providers an email may go by, the best first. Pure: what was tried before is given, nothing is read.

An email that names its provider goes by that one alone. Else the routes of its recipients' domain count,
else its stream's, else the project's (``models.provider.routes_of``).

Once a provider may have taken an email (its answer never came), no other is ever asked: only a provider
that certainly did not take the mail may be followed by the next.
"""

import hashlib
import math
from collections.abc import Mapping
from uuid import UUID

from celery_mailer import conf
from celery_mailer.models import Email
from celery_mailer.models.provider import Past, routes_of

NOTHING = Past()


def candidates(email: Email, past: Past = NOTHING) -> list[str]:
    """Aliases in the order to try them: those that failed this email least often come first.

    So all are tried once before one is tried twice. Never empty; an alias that an email names may be unknown.
    """
    if past.doubt in conf.get().providers:
        return [past.doubt]
    routes = routes_of(email)
    order = drawn(routes, email.pk) if isinstance(routes, Mapping) else dict.fromkeys(routes)
    return sorted(order, key=lambda alias: past.failures.get(alias, 0))


def drawn(weights: Mapping[str, int], key: UUID) -> list[str]:
    """``weights``' aliases in an order drawn by weight, always the same for ``key``.

    Weighted rendezvous hashing: where the first cannot be used, its share falls to the others by their
    weights, and a provider that joins or leaves changes the order of no others.
    """
    return sorted(weights, key=lambda alias: -math.log(_chance(alias, key)) / weights[alias])


def _chance(alias: str, key: UUID) -> float:
    """A number above 0 and below 1, evenly spread over keys and aliases."""
    digest = hashlib.sha256(key.bytes + alias.encode()).digest()
    return (int.from_bytes(digest[:6]) + 0.5) / 2**48
