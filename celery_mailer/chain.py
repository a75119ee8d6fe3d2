"""The table of contents: every email goes through render -> deliver -> log.

Messages carry ids, never content; each step is told its queue, because a chain's own options reach
only its first task; the steps take nothing from each other but what is in the database.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from celery import chain, current_app
from celery.backends.base import DisabledBackend
from celery.canvas import Signature
from django.utils import timezone
from kombu.exceptions import OperationalError

from celery_mailer import conf, logs, routing
from celery_mailer.deliver.slice import deliver_emails
from celery_mailer.deliver.task import deliver
from celery_mailer.log.settle import settle_emails
from celery_mailer.log.task import log
from celery_mailer.models.transitions import push_due
from celery_mailer.render.stage import render_emails
from celery_mailer.render.task import render

# The caller of ``.delay()`` waits for this: one try, no more. The row stands, so the dispatcher can
# publish later. (``retry=False`` would cost six seconds with the broker down: measured.)
PUBLISH_ONCE: dict[str, Any] = {"retry_policy": {"max_retries": 0}}


def build(ids: Sequence[UUID], priority: int, task_id: str | None = None) -> Signature:
    """The chain for ``ids``, to take a task's place; its last task gets ``task_id``."""
    return chain(*_steps(ids, priority, task_id))


def _steps(
    ids: Sequence[UUID], priority: int, task_id: str | None = None, *, together: bool = False
) -> list[Signature]:
    """The three tasks for ``ids``; the last gets ``task_id``, by which the chain's result is known.

    With ``together`` the first may take more mail of its lane along, or cut the chain short if ``ids`` went
    along with another one (``render.together``).
    """
    queue = routing.lane(priority)
    names = [str(pk) for pk in ids]
    first = render.si(names, together=True) if together else render.si(names)
    steps = [step.set(queue=queue) for step in (first, deliver.si(names), log.si(names))]
    if task_id is not None:
        steps[-1].set(task_id=task_id)
    return steps


def publish(ids: Sequence[UUID], priority: int) -> None:
    """Publish one chain for ``ids``. Raises ``OperationalError``.

    What ``chain.apply_async`` sends is the first task's message with the others in it; its way there, by
    copies of every signature, takes twice as long. (Nobody adds to this chain, or waits for its parts.)
    """
    alone = len(ids) == 1
    together = alone and not results_are_kept()
    first, *rest = _steps(ids, priority, str(ids[0]) if alone else None, together=together)
    first.apply_async(chain=rest[::-1], **PUBLISH_ONCE)


def results_are_kept() -> bool:
    """Whether somebody may wait for the result of an email's own chain."""
    return not (current_app.conf.task_ignore_result or isinstance(current_app.backend, DisabledBackend))


def start(ids: Sequence[UUID], priority: int) -> bool:
    """Publish chains for ``ids``, in slices; false when the broker did not take one.

    What was not published is due at once, so the dispatcher publishes it when the broker is back.
    """
    size = conf.get().batch_size
    for at in range(0, len(ids), size):
        try:
            publish(ids[at : at + size], priority)
        except OperationalError as error:
            logs.broker_not_reached(error, len(ids) - at)
            push_due(ids[at:], timezone.now())
            return False
    return True


def run(ids: Sequence[UUID]) -> None:
    """The same three stages in this process, for what is sent ``now``."""
    render_emails(ids)
    deliver_emails(ids, seconds=float("inf"))
    settle_emails(ids)
