"""One call, many emails: a batch with an email of its own for each recipient."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid5

from celery_mailer.addresses import named
from celery_mailer.enqueue import enqueue
from celery_mailer.exceptions import InvalidEmail
from celery_mailer.models import Batch
from celery_mailer.values import EmailRequest

_NAMESPACE = UUID("0192f3a0-7c1e-7a52-9d3b-5f0b8c6d2e42")


def persist(common: EmailRequest, recipients: Iterable[Any], key: str | None = None) -> Batch:
    """Persist an email like ``common`` for each of ``recipients``; the same ``key`` gives the batch of then.

    Raises ``InvalidEmail``, and writes nothing, if one of them is refused.
    """
    if common.to or common.cc or common.bcc:
        raise InvalidEmail("to", "cannot be given together with recipients, nor can cc and bcc")
    if common.idempotency_key is not None:
        raise InvalidEmail("idempotency_key", "cannot be given for many emails")
    common = replace(common, priority="low" if common.priority is None else common.priority)
    requests = [_personal(common, f"recipients[{i}]", given) for i, given in enumerate(recipients)]
    if not requests:
        raise InvalidEmail("recipients", "is empty")
    if key is not None:
        requests = [replace(r, id=uuid5(_NAMESPACE, f"{key} {i}")) for i, r in enumerate(requests)]
    batch = enqueue(requests, as_batch=True)[0].batch
    assert batch is not None  # noqa: S101 as_batch
    return batch


def _personal(common: EmailRequest, field: str, given: Any) -> EmailRequest:
    recipient = _recipient(field, given)
    name = str(recipient.get("name") or "")
    context = {"email": recipient["email"], "name": ""} | dict(common.context or {})
    context |= {"name": name} if name else {}
    return replace(
        common,
        to=named(name, str(recipient["email"])),
        context=context | dict(recipient.get("context") or {}),
        language=recipient.get("language") or common.language,
    )


def _recipient(field: str, given: Any) -> Mapping[str, Any]:
    recipient = {"email": given} if isinstance(given, str) else given
    if not isinstance(recipient, Mapping):
        raise InvalidEmail(field, f"is a {type(given).__name__}, not an address or a dict")
    if not recipient.get("email"):
        raise InvalidEmail(field, "has no email")
    unknown = recipient.keys() - {"email", "name", "context", "language"}
    if unknown:
        raise InvalidEmail(field, f"has the unknown key {min(map(str, unknown))!r}")
    return recipient
