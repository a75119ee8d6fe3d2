"""django-post_office's functions: the same arguments in the same order."""

from collections.abc import Iterable, Mapping
from typing import Any

from celery_mailer.enqueue import checked_rows, enqueue
from celery_mailer.exceptions import InvalidEmail
from celery_mailer.models import Email
from celery_mailer.validation import parse_priority
from celery_mailer.values import EmailRequest, Priority

__all__ = ["send", "send_many"]


def send(
    recipients: Any = None,
    sender: Any = None,
    template: Any = None,
    context: Mapping[str, Any] | None = None,
    subject: Any = "",
    message: Any = "",
    html_message: Any = "",
    scheduled_time: Any = None,
    expires_at: Any = None,
    headers: Mapping[str, Any] | None = None,
    priority: Any = None,
    attachments: Any = None,
    render_on_delivery: bool = False,
    log_level: int | None = None,
    commit: bool = True,
    cc: Any = None,
    bcc: Any = None,
    language: str = "",
    backend: str = "",
    **more: Any,
) -> Email:
    """Queue one email to all ``recipients`` and return its row; ``priority="now"`` sends before returning.

    Inside a transaction, "now" is at its commit: rolled back, it sends nothing. With a ``context``,
    ``subject``, ``message`` and ``html_message`` are templates; without one they are taken verbatim.
    ``more`` takes what every door knows: ``reply_to``, ``stream``, ``idempotency_key``, ``tags``,
    ``metadata``, ``sensitive``, and the other doors' names of these arguments (``to``, ``from_email``,
    ``scheduled_at``, ``provider``). With ``commit=False`` the row is checked and returned unsaved; saving it
    queues the email. Raises ``InvalidEmail``, a ``ValidationError`` and a ``ValueError``.
    """
    arguments = dict(locals())
    del arguments["commit"]
    request = _request(**arguments.pop("more"), **arguments)
    return enqueue([request])[0] if commit else _unsaved(request)


def _unsaved(request: EmailRequest) -> Email:
    if parse_priority(request.priority) == Priority.NOW:
        raise InvalidEmail("priority", "cannot be 'now' with commit=False")
    if request.attachments:
        raise InvalidEmail("attachments", "cannot be given with commit=False")
    email = checked_rows([request])[0].email
    email.due_at = email.scheduled_at or email.created_at  # no chain is started: the dispatcher has it
    return email


def send_many(kwargs_list: Iterable[Mapping[str, Any]]) -> list[Email]:
    """Queue many emails, each a dict of ``send``'s arguments, as one batch; returns their rows.

    Nothing is written unless every one of them is valid. Refuses ``priority="now"``. What it returns is in
    memory, all of it: for a million recipients there is ``send_bulk_email``.
    """
    requests = [_request(**kwargs) for kwargs in kwargs_list]
    if any(parse_priority(r.priority) == Priority.NOW for r in requests):
        raise InvalidEmail("priority", "cannot be 'now' in send_many()")
    return enqueue(requests, as_batch=True)


# post_office's names of what the other doors call otherwise.
_NAMES = {"recipients": "to", "sender": "from_email", "scheduled_time": "scheduled_at", "backend": "provider"}


def _request(**kwargs: Any) -> EmailRequest:
    if kwargs.get("template"):
        for name in ("subject", "message", "html_message"):
            if kwargs.get(name):
                raise InvalidEmail(name, "cannot be given together with template")
    for name, other in _NAMES.items():
        value = kwargs.pop(name, None)
        if value and other in kwargs:
            raise InvalidEmail(name, f"cannot be given together with {other}")
        kwargs.setdefault(other, value)
    return EmailRequest(**kwargs)
