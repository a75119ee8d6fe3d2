"""The doors for Celery's users: tasks that are also functions."""

import inspect
from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any
from uuid import UUID, uuid5

from celery import Task, shared_task
from celery.result import AsyncResult
from celery.worker.request import Request
from django.utils import timezone

from celery_mailer import bulk, chain, routing
from celery_mailer.enqueue import enqueue
from celery_mailer.exceptions import UnsupportedOption
from celery_mailer.models import Batch
from celery_mailer.values import EmailRequest, Priority, Status

# Options that tie a call to others: only an ordinary task message can carry them.
CANVAS = {
    "chain", "chord", "group_id", "group_index", "link", "link_error", "parent_id", "root_id", "reply_to",
    "retries", "replaced_task_nesting", "stamped_headers", "on_replace",
}  # fmt: skip
# Options about the message alone: there is none of the kind that the caller means, and nothing is lost.
ABOUT_THE_MESSAGE = {
    "producer", "connection", "add_to_parent", "headers", "exchange", "routing_key", "shadow", "serializer",
    "compression", "retry", "retry_policy", "ignore_result", "argsrepr", "kwargsrepr", "delivery_mode",
}  # fmt: skip
HIDDEN = "(hidden)"
_NAMESPACE = UUID("0192f3a0-7c1e-7a52-9d3b-5f0b8c6d2e41")


class PrivateRequest(Request):
    """A task request that shows nobody its arguments: they are addresses and bodies.

    ``celery inspect``, Flower and the worker's log otherwise show them, and what the sender gave as
    ``argsrepr`` is lost on the way of some messages.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._argsrepr = self._kwargsrepr = HIDDEN
        # What the log of the pool's process shows; celery-types does not know the attribute.
        self._request_dict |= {"argsrepr": HIDDEN, "kwargsrepr": HIDDEN}  # type: ignore[attr-defined]

    def info(self, safe: bool = False) -> Any:
        return {**super().info(safe=safe), "args": HIDDEN, "kwargs": HIDDEN}


class Door(Task):  # type: ignore[type-arg]
    """Persists where it is called, if it can; the message that a worker gets holds only ids."""

    Request = f"{__name__}:PrivateRequest"

    def apply_async(  # type: ignore[override]
        self, args: Any = None, kwargs: Any = None, task_id: str | None = None, **options: Any
    ) -> AsyncResult:  # type: ignore[type-arg]
        given = {name for name, value in options.items() if value is not None and value != []}
        if given & CANVAS:
            hidden = {"argsrepr": HIDDEN, "kwargsrepr": HIDDEN}
            return super().apply_async(args, kwargs, task_id=task_id, **options | hidden)
        bound = self._signature.bind(*(args or ()), **(kwargs or {}))
        return self.AsyncResult(str(self.persist(bound.arguments, task_id, options)))

    @cached_property
    def _signature(self) -> inspect.Signature:
        return inspect.signature(self.run)

    def persist(self, arguments: Mapping[str, Any], task_id: str | None, options: Mapping[str, Any]) -> UUID:
        """Persist what the call asks for in the caller's transaction; the id by which it is known."""
        (email,) = enqueue([request(arguments, task_id, options)])
        return email.pk


class BulkDoor(Door):
    def persist(self, arguments: Mapping[str, Any], task_id: str | None, options: Mapping[str, Any]) -> UUID:
        return _bulk(arguments, task_id, options).pk


def request(arguments: Mapping[str, Any], task_id: str | None, options: Mapping[str, Any]) -> EmailRequest:
    """An ``EmailRequest`` from the task's arguments and Celery's options.

    Raises ``UnsupportedOption`` for an option that an email cannot honour.
    """
    values = dict(arguments)
    values.update(values.pop("more", {}))
    recipient_list = values.pop("recipient_list", None)
    if recipient_list is not None:
        values["to"] = [*_as_list(values.get("to")), *_as_list(recipient_list)]
    for name, value in options.items():
        if value is not None and name not in ABOUT_THE_MESSAGE:
            target, converted = _option(name, value)
            if values.get(target) is not None:
                raise UnsupportedOption(f"{name}: the email has {target!r} already")
            values[target] = converted
    unknown = values.keys() - {f.name for f in fields(EmailRequest)}
    if unknown:
        raise TypeError(f"unexpected keyword argument {min(unknown)!r}")
    return EmailRequest(**values, id=_email_id(task_id) if task_id else None)


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple | set) else [value]


def _option(name: str, value: Any) -> tuple[str, Any]:
    match name:
        case "eta":
            return "scheduled_at", value
        case "countdown":
            return "scheduled_at", timezone.now() + timedelta(seconds=float(value))
        case "expires":
            is_time = isinstance(value, datetime | str)
            return "expires_at", value if is_time else timezone.now() + timedelta(seconds=float(value))
        case "queue":
            priority = routing.priority_of(str(value))
            if priority is None:
                raise UnsupportedOption(f"queue: {value!r} is no lane; lanes are the values of QUEUES")
            return "priority", priority
    raise UnsupportedOption(f"{name}: not an option that an email can honour")


def _email_id(task_id: str) -> UUID:
    # A message that is delivered twice must not become two emails, so the task's id is the email's.
    try:
        return UUID(task_id)
    except ValueError:
        return uuid5(_NAMESPACE, task_id)


def _send(self: Any, arguments: dict[str, Any]) -> Any:
    """What the body of a task for one email does, in a worker or called directly."""
    if self.request.called_directly:
        return enqueue([request(arguments | {"priority": Priority.NOW}, None, {})])[0]
    if arguments.get("priority") is None:
        arguments["priority"] = routing.priority_of(
            (self.request.delivery_info or {}).get("routing_key") or ""
        )
    (email,) = enqueue([request(arguments, self.request.id, {})], start=False)
    if email.status != Status.QUEUED or (email.scheduled_at and email.scheduled_at > timezone.now()):
        return str(email.pk)
    return self.replace(chain.build([email.pk], email.priority))


@shared_task(name=routing.SEND_EMAIL, serializer="json", base=Door, bind=True)
def send_email(
    self: Any,
    subject: Any = "",
    message: Any = "",
    from_email: Any = None,
    recipient_list: Any = None,
    *,
    to: Any = None,
    cc: Any = None,
    bcc: Any = None,
    reply_to: Any = None,
    html_message: Any = "",
    template: Any = None,
    context: Mapping[str, Any] | None = None,
    language: str | None = None,
    headers: Mapping[str, Any] | None = None,
    attachments: Any = None,
    render_on_delivery: bool = False,
    priority: Any = None,
    stream: str | None = None,
    provider: str | None = None,
    scheduled_at: Any = None,
    expires_at: Any = None,
    idempotency_key: str | None = None,
    tags: Any = None,
    metadata: Mapping[str, Any] | None = None,
    sensitive: bool = False,
    track_opens: Any = None,
    track_clicks: Any = None,
) -> Any:
    """Send one email; the first four arguments are those of Django's ``send_mail``.

    ``send_email.delay(...)`` and ``.apply_async(...)`` persist it in the caller's transaction, start its
    chain on commit, and return an ``AsyncResult`` whose ``id`` is the email's. ``eta`` and ``countdown``
    become ``scheduled_at``, ``expires`` becomes ``expires_at``, ``queue`` the priority of that lane.
    Called directly, it sends now, in this process, and returns the ``Email``. Called by name, or in a
    group, chain or chord, a worker persists it and the chain takes the task's place.
    Raises ``InvalidEmail`` for an argument that is refused, ``UnsupportedOption`` for such an option.
    """
    return _send(self, {name: value for name, value in locals().items() if name != "self"})


# mypy stumbles over ** behind a bound self.
@shared_task(name=routing.SEND_TEMPLATE_EMAIL, serializer="json", base=Door, bind=True)  # type: ignore[arg-type]
def send_template_email(
    self: Any,
    template: Any,
    context: Mapping[str, Any] | None = None,
    to: Any = None,
    subject: Any = "",
    **more: Any,
) -> Any:
    """Send one email from a template: a file's name, a database template's, or an ``EmailTemplate``.

    ``subject`` and ``message`` win over the template's, and are templates too if there is a ``context``.
    ``more`` takes what ``send_email`` takes. Called as ``send_email`` is, in all its ways.
    """
    return _send(self, {"template": template, "context": context, "to": to, "subject": subject, **more})


@shared_task(name=routing.SEND_BULK_EMAIL, serializer="json", base=BulkDoor, bind=True)  # type: ignore[arg-type]
def send_bulk_email(
    self: Any,
    template: Any = None,
    recipients: Any = (),
    subject: Any = "",
    context: Mapping[str, Any] | None = None,
    *,
    email_field: str = "email",
    canary: int = 0,
    canary_failures: float = bulk.CANARY_FAILURES,
    **more: Any,
) -> Any:
    """Send an email of its own to each of ``recipients``, as one ``Batch``, by default at low priority.

    ``recipients`` is a list, a generator or a queryset, of any length. Each is an address; a dict with
    ``email`` and, where wanted, ``name``, ``context`` and ``language``; or a model instance with its address
    in ``email_field``, which the template finds by its model's name. A recipient's context is laid over the
    common one, and has ``email`` and ``name``. An address that comes again gets nothing; one that is refused
    is counted and described on the batch. With ``canary``, so many go first, and the rest when at most the
    share ``canary_failures`` of them failed. The same ``idempotency_key`` (or task id) gives the same batch,
    and completes it if the process died. Called directly, it sends now and returns the ``Batch``;
    ``.delay(...)`` takes the recipients in the caller's process, and returns an ``AsyncResult`` whose ``id``
    is the batch's. Raises ``InvalidEmail`` for what is wrong with the whole call.
    """
    names = {name: value for name, value in locals().items() if name not in ("self", "more")} | more
    if self.request.called_directly:
        return _bulk(names | {"priority": Priority.NOW}, None, {})
    return str(_bulk(names, self.request.id, {}).pk)


def _bulk(arguments: Mapping[str, Any], task_id: str | None, options: Mapping[str, Any]) -> Batch:
    values = {**arguments, **arguments.get("more", {})}
    values.pop("more", None)
    recipients = values.pop("recipients", None)
    names = ("email_field", "canary", "canary_failures")
    own = {name: values.pop(name) for name in names if name in values}
    return bulk.persist(
        request(values, None, options), () if recipients is None else recipients, task_id, **own
    )
