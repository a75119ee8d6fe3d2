"""Which email an event is about: by our id, by our Message-ID, or by the provider's id."""

from collections.abc import Iterable
from typing import NamedTuple
from uuid import UUID

from celery_mailer.models import Email, ProviderMessage


class Names(NamedTuple):
    """What an event calls its email; what it does not know is empty."""

    email_id: UUID | None = None
    message_id: str = ""
    provider_message_id: str = ""


def find(names: Iterable[Names]) -> dict[Names, Email]:
    """The emails that are known by ``names``; at most a query for each kind of name."""
    names = set(names)
    by_message_id = _by_message_id({n.message_id for n in names if n.message_id})
    by_provider = _by_provider_message_id({n.provider_message_id for n in names if n.provider_message_id})
    wanted = {n.email_id for n in names if n.email_id} | set(by_provider.values())
    by_id = Email.objects.in_bulk(wanted) if wanted else {}
    found = {}
    for name in names:
        by_provider_id = by_provider.get(name.provider_message_id)
        candidates = (
            by_id.get(name.email_id) if name.email_id else None,
            by_message_id.get(name.message_id),
            by_id.get(by_provider_id) if by_provider_id else None,
        )
        email = next((email for email in candidates if email is not None), None)
        if email is not None:
            found[name] = email
    return found


def _by_message_id(message_ids: set[str]) -> dict[str, Email]:
    if not message_ids:
        return {}
    # Of several with the same, which callers may give, the last.
    rows = Email.objects.filter(message_id__in=message_ids).order_by("pk")
    return {email.message_id: email for email in rows}


def _by_provider_message_id(message_ids: set[str]) -> dict[str, UUID]:
    # Whichever alias the email went by: an event knows the ESP, of which a site may have several accounts.
    if not message_ids:
        return {}
    rows = ProviderMessage.objects.filter(message_id__in=message_ids).order_by("pk")
    return dict(rows.values_list("message_id", "email_id"))
