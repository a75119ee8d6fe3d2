"""What a trace says of the three stages, where OpenTelemetry's API is installed (extra ``opentelemetry``).

The instrumentation of Celery makes a span for each task; here the span is told which mail its task was about.
Never an address, a subject or a body. The tables are asked for it, by one query for each span that somebody
records, so the stages know nothing of this. They are asked when the task ends: another process may have gone
on with the emails by then.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from celery.signals import task_prerun, task_success
from django.utils import timezone

from celery_mailer import routing
from celery_mailer.models import Attempt, Email

try:
    from opentelemetry.trace import get_current_span
except ImportError:
    INSTALLED = False
else:
    INSTALLED = True

STAGES = frozenset({routing.RENDER, routing.DELIVER, routing.LOG})

Attributes = dict[str, str | int | Sequence[str]]


def connect() -> None:
    """Hear of tasks, if there may be somebody to tell.

    At their end by ``task_success``: the span is the current one then, whether the instrumentation was
    connected to ``task_prerun`` and ``task_postrun`` before us or after.
    """
    if INSTALLED:
        task_prerun.connect(_begun, dispatch_uid="celery_mailer.spans")
        task_success.connect(_done, dispatch_uid="celery_mailer.spans")


def _begun(task: Any, **kwargs: Any) -> None:
    if task.name == routing.DELIVER:
        task.request.begun_at = timezone.now()


def _done(sender: Any, **kwargs: Any) -> None:
    if sender.name in STAGES and (span := get_current_span()).is_recording():
        span.set_attributes(_attributes(sender.name, sender.request))


def _attributes(stage: str, request: Any) -> Attributes:
    ids = _ids(request)
    found: Attributes = {"celery_mailer.email.count": len(ids)}
    if len(ids) == 1:
        found["celery_mailer.email.id"] = str(ids[0])
    lane = routing.priority_of((request.delivery_info or {}).get("routing_key") or "")
    if lane is not None:
        found["celery_mailer.lane"] = lane.label
    return found | (_of_attempts(ids, request.begun_at) if stage == routing.DELIVER else _of_emails(ids))


def _ids(request: Any) -> list[UUID]:
    """The emails of a stage's task: those that a later stage was told, for render takes others along."""
    later = [step["args"] for step in request.chain or () if step["task"] in STAGES]
    return [UUID(pk) for pk in (later or [request.args])[0][0]]


def _of_emails(ids: list[UUID]) -> Attributes:
    rows = list(Email.objects.filter(pk__in=ids).values_list("stream", "status"))
    return _names("stream", [stream for stream, _ in rows]) | _counts("status", [s for _, s in rows])


def _of_attempts(ids: list[UUID], since: Any) -> Attributes:
    rows = list(
        Attempt.objects.filter(email__in=ids, started_at__gte=since).values_list(
            "email__stream", "provider", "outcome"
        )
    )
    streams, providers, outcomes = zip(*rows, strict=True) if rows else ((), (), ())
    return _names("stream", streams) | _names("provider", providers) | _counts("outcome", outcomes)


def _names(what: str, values: Sequence[str]) -> Attributes:
    return {f"celery_mailer.{what}": sorted(set(values))}


def _counts(what: str, values: Sequence[str]) -> Attributes:
    return {f"celery_mailer.{what}.{value}": number for value, number in Counter(values).items()}
