"""What is done with a batch as a whole: pause, resume, cancel, and its canary.

Whoever asks for something only notes it, on the batch or as a ``Pause``, which holds within a second however
large the batch is. What then has to be done with each of its emails is done by beat (``tend``, as a part of
dispatch), in steps: a million rows in one statement would hold their locks for minutes.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from uuid import UUID

from django.db import router, transaction
from django.db.models import Count, F
from django.utils import timezone

from celery_mailer import chain, conf, logs
from celery_mailer.models import Batch, Email, Pause, pause
from celery_mailer.models.batch import was_cancelled
from celery_mailer.models.transitions import CANCEL, WAKE, move
from celery_mailer.values import FINAL, WAITING, Status

STEP = 1_000  # emails that are moved by one statement
STEPS = 50  # how many of these are made for a batch in one run
AT_ONCE = 5  # and how many while somebody waits
HELD = "canary"  # the reason of emails that wait for how the first ones do
CANCELLED = "cancelled"

Stage = Batch.Stage


def progress(batch_id: UUID) -> dict[str, int]:
    """How many emails of the batch have each status: a query that reads them all."""
    rows = Email.objects.filter(batch=batch_id).order_by().values_list("status")
    return dict(rows.annotate(number=Count("pk")))


def pause_batch(batch_id: UUID, reason: str, *, by: str = "") -> Pause:
    """Stop the batch until ``resume_batch``. What a worker has in its hands is sent.

    Raises ``ValidationError`` if it was cancelled.
    """
    return pause.pause(Pause.Subject.BATCH, str(batch_id), reason, by=by)


def resume_batch(batch_id: UUID) -> bool:
    """End the batch's pause, or its canary, however that came out; returns whether there was one.

    A batch that is being cancelled stays so.
    """
    with transaction.atomic(using=router.db_for_write(Batch)):
        if was_cancelled(batch_id):
            return False
        held = Batch.objects.filter(pk=batch_id, stage__in=[Stage.CANARY, Stage.REFUSED])
        released = held.update(stage=Stage.RELEASE)
        return bool(pause.resume(Pause.Subject.BATCH, str(batch_id)) or released)


def cancel_batch(batch_id: UUID, *, by: str = "") -> int:
    """Cancel what of the batch was not sent; no recipient is added to it any more.

    Returns how many emails were cancelled at once; of a large batch, beat cancels the rest in steps, and a
    pause keeps it from being sent until then.
    """
    batches = Batch.objects.filter(pk=batch_id)
    batches.filter(cancelled_at=None).update(cancelled_at=timezone.now())
    batches.update(stage=Stage.CANCEL)
    batch = batches.get()
    pause.hold(Pause.Subject.BATCH, str(batch_id), CANCELLED, by=by)
    return _cancel(batch, AT_ONCE)


def tend(*, start: bool = True) -> dict[str, int]:
    """Do what batches wait for, bounded; returns how many emails it was done to, by what was done.

    Without ``start``, what is let go is only queued, for a caller that delivers it in its own process.
    """
    acts: dict[Stage, Callable[[Batch], int]] = {
        Stage.CANARY: _look,
        Stage.REFUSED: _look_again,
        Stage.RELEASE: partial(_release, start=start),
        Stage.CANCEL: _cancel,
    }
    done: Counter[str] = Counter()
    for batch in Batch.objects.filter(stage__in=acts).order_by("pk"):
        number = acts[Stage(batch.stage)](batch)
        done[str(batch.stage)] += number
    return {name: number for name, number in done.items() if number}


def _to(stage: Stage, batch: Batch) -> bool:
    """Whether ``batch`` went on to ``stage``, and from the one it was read in."""
    return bool(Batch.objects.filter(pk=batch.pk, stage=batch.stage).update(stage=stage))


def _look(batch: Batch) -> int:
    """Once the first ones are done with, let go the rest, or hold it until a person has had a look.

    An uncertain email counts as failed, and one that is to be tried again as not done yet.
    """
    first = Email.objects.filter(batch=batch).order_by("pk").values_list("status", flat=True)
    statuses = Counter(first[: batch.canary])
    failed = sum(statuses[s] for s in (Status.FAILED, Status.EXPIRED, Status.UNCERTAIN))
    done = failed + sum(statuses[s] for s in FINAL - {Status.FAILED, Status.EXPIRED})
    if failed > batch.canary_failures * batch.canary:
        if _to(Stage.REFUSED, batch):
            why = f"canary: {failed} of the first {batch.canary} failed"
            pause.hold(Pause.Subject.BATCH, str(batch.pk), why)
            logs.batch_held(str(batch.pk), failed, batch.canary)
    elif done == statuses.total() and (done == batch.canary or not batch.reading):
        _to(Stage.RELEASE, batch)
    return 0


def _look_again(batch: Batch) -> int:
    """Its pause may also have been ended where nobody knows of canaries."""
    if not _paused(batch):
        _to(Stage.RELEASE, batch)
    return 0


def _paused(batch: Batch) -> bool:
    found = Pause.objects.filter(kind=Pause.Subject.BATCH, name=str(batch.pk)).first()
    return found is not None and found.holds(timezone.now())


def _release(batch: Batch, start: bool) -> int:
    """Let go what was held."""
    if _paused(batch):
        return 0
    number = 0
    for ids in _steps(batch, status=Status.QUEUED, reason=HELD):
        number += len(_let_go(ids, start))
    if not Email.objects.filter(batch=batch, status=Status.QUEUED, reason=HELD).exists():
        _to(Stage.NONE, batch)
    return number


def _let_go(ids: list[UUID], start: bool) -> list[UUID]:
    using, now = router.db_for_write(Email), timezone.now()
    with transaction.atomic(using=using):
        # Due only after a lease's time: chains are started for them at once.
        won = move(ids, WAKE, due_at=now + conf.get().lease, reason__exact=HELD)
        rows = Email.objects.filter(pk__in=won).order_by("pk")
        rows.filter(scheduled_at__gt=now).update(due_at=F("scheduled_at"))
        if not start:
            return won
        by_priority: dict[int, list[UUID]] = defaultdict(list)
        for pk, priority in rows.exclude(scheduled_at__gt=now).values_list("pk", "priority"):
            by_priority[priority].append(pk)
        for priority, some in by_priority.items():
            transaction.on_commit(partial(chain.start, some, priority), using=using)
    return won


def _cancel(batch: Batch, steps: int = STEPS) -> int:
    held = Pause.objects.filter(kind=Pause.Subject.BATCH, name=str(batch.pk)).first()
    by = f"by {held.by}" if held is not None and held.by else ""
    number = 0
    for ids in islice(_steps(batch, status__in=WAITING), steps):
        with transaction.atomic(using=router.db_for_write(Email)):
            number += len(move(ids, CANCEL, reason="by_hand", detail=by))
    # What is being sent may yet come back, to be tried again.
    if not Email.objects.filter(batch=batch, status__in=[*WAITING, Status.SENDING]).exists():
        _to(Stage.NONE, batch)
        pause.resume(Pause.Subject.BATCH, str(batch.pk))
    return number


def _steps(batch: Batch, **which: object) -> Iterator[list[UUID]]:
    """The ids of its emails that are ``which``, in their order, so many at a time; bounded."""
    emails = Email.objects.filter(batch=batch, **which).order_by("pk")
    ids = list(emails.values_list("pk", flat=True)[:STEP])
    for _ in range(STEPS):
        if not ids:
            return
        yield ids
        ids = list(emails.filter(pk__gt=ids[-1]).values_list("pk", flat=True)[:STEP])
