"""Cancelling what waits of a batch: some at once, the rest by a task that ends in about a second and goes on.

While it lasts the batch is paused, so that no email leaves that somebody has cancelled. What a worker has in
its hands is sent. If the rest cannot be handed to a worker, it stays paused: to cancel again goes on.
"""

from uuid import UUID

from celery import shared_task
from django.db import router, transaction
from django.utils.translation import gettext as _
from kombu.exceptions import OperationalError

from celery_mailer import routing
from celery_mailer.chain import PUBLISH_ONCE
from celery_mailer.models import Email, Pause
from celery_mailer.models.connection import survives_lost_connection
from celery_mailer.models.pause import pause
from celery_mailer.models.transitions import CANCEL, move
from celery_mailer.values import WAITING

BY_HAND = "by_hand"
STEP = 1_000  # emails that are moved by one statement
AT_ONCE = 3 * STEP  # that are cancelled while a person waits
IN_A_TASK = 10 * STEP


def begin(batch: UUID, who: str) -> tuple[int, bool]:
    """Cancel the first of ``batch`` and hand the rest to a worker.

    Returns how many are cancelled, and whether the others will be.
    """
    pause(Pause.Subject.BATCH, str(batch), _("It is being cancelled."), by=who)
    number = _cancel(batch, who, AT_ONCE)
    return number, _go_on(batch, who, number >= AT_ONCE)


@shared_task(name=routing.CANCEL_BATCH, serializer="json", ignore_result=True)
@survives_lost_connection
def cancel_batch(batch: str, who: str) -> None:
    """Cancel some of what waits of ``batch``, and start again for what is left."""
    _go_on(UUID(batch), who, _cancel(UUID(batch), who, IN_A_TASK) >= IN_A_TASK)


def _cancel(batch: UUID, who: str, most: int) -> int:
    waiting = Email.objects.filter(batch=batch, status__in=WAITING, due_at__isnull=False)
    ids = list(waiting.values_list("pk", flat=True)[:most])
    for at in range(0, len(ids), STEP):
        with transaction.atomic(using=router.db_for_write(Email)):
            move(ids[at : at + STEP], CANCEL, reason=BY_HAND, detail=f"by {who}")
    return len(ids)


def _go_on(batch: UUID, who: str, more: bool) -> bool:
    """Have the rest cancelled; false if the broker does not take it."""
    if not more:
        Pause.objects.filter(kind=Pause.Subject.BATCH, name=str(batch)).delete()
        return True
    try:
        cancel_batch.apply_async((str(batch), who), **PUBLISH_ONCE)
    except OperationalError:
        return False
    return True
