"""What is shown: how far the emails are, the life of each as the database tells it, and what arrived."""

import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime

from celery_mailer.models import Attempt, Decision, Email
from celery_mailer.values import FINAL, Status
from demo.mailserver import REFUSED, MailServer, Received
from demo.processes import DemoFailed, Processes
from demo.scenes import Scene
from demo.tell import Teller
from shop.models import Customer

TIME_LIMIT = 90.0  # seconds until every email is final
PAUSE = 0.1
ALIKE = 3  # mails of one subject that are shown


def watch(scenes: list[Scene], server: MailServer, processes: list[Processes], say: Teller) -> None:
    """Wait until every email is final, and show how far they are."""
    end = time.monotonic() + TIME_LIMIT
    while not set(statuses(scenes)) <= FINAL:
        say.progress(f"{in_words(scenes)}; received: {len(server.received)}")
        for group in processes:
            group.check()
        if time.monotonic() > end:
            raise DemoFailed(f"After {TIME_LIMIT:g} seconds not every email is final: {in_words(scenes)}.")
        time.sleep(PAUSE)
    say.progress(f"{in_words(scenes)}; received: {len(server.received)}", last=True)


def statuses(scenes: list[Scene]) -> Counter[str]:
    ids = [pk for scene in scenes for pk in scene.emails]
    return Counter(Email.objects.filter(pk__in=ids).values_list("status", flat=True))


def in_words(scenes: list[Scene]) -> str:
    counts = statuses(scenes)
    return f"{sum(counts.values())} emails: " + ", ".join(
        f"{n} {status}" for status, n in sorted(counts.items())
    )


def lines(scenes: list[Scene], received: list[Received]) -> Iterator[str]:
    for scene in scenes:
        yield from ["", scene.title]
        yield from _one_of(scene)
    yield from ["", *arrivals(received), ""]
    if Customer.objects.get(email=REFUSED).unreachable:
        yield f"The shop's receiver of the signal email_failed has noted: {REFUSED} is unreachable."


def _one_of(scene: Scene) -> Iterator[str]:
    if not scene.emails:
        yield "  no email"
        return
    yield from timeline(Email.objects.get(pk=scene.emails[0]))
    if len(scene.emails) > 1:
        yield f"  ... and {len(scene.emails) - 1} more"


def timeline(email: Email) -> Iterator[str]:
    """What happened to one email, and when."""
    yield f"  {email.pk} to {', '.join(email.to)}: {email.get_priority_display()}, {email.stream}"
    moments = [(email.created_at, "queued")]
    if email.scheduled_at:
        moments.append((email.created_at, f"scheduled for {_after(email, email.scheduled_at)}"))
    moments += map(_attempt, email.attempts.all())
    moments += map(_decision, email.decisions.all())
    if email.finished_at and email.status == Status.SENT:  # other ends are decisions
        moments.append((email.finished_at, "sent"))
    for at, what in sorted(moments, key=lambda moment: moment[0]):
        yield f"    {_after(email, at)}  {what}"


def _after(email: Email, at: datetime) -> str:
    return f"{(at - email.created_at).total_seconds():+.2f} s"


def _attempt(attempt: Attempt) -> tuple[datetime, str]:
    reply = f"{attempt.code or ''} {attempt.text}".strip()
    phase = f" at {attempt.phase.upper()}" if attempt.phase else ""
    return attempt.finished_at, f"attempt by provider {attempt.provider!r}: {attempt.outcome}{phase}: {reply}"


def _decision(decision: Decision) -> tuple[datetime, str]:
    until = f", due in {(decision.until - decision.at).total_seconds():.1f} s" if decision.until else ""
    return decision.at, f"{decision.status}, reason {decision.reason!r}{until}"


def arrivals(received: list[Received]) -> Iterator[str]:
    """What the mail server took; of many mails with one subject, the first few."""
    yield f"The mail server received {len(received)} mails:"
    shown: Counter[str] = Counter()
    for mail in received:
        shown[mail.subject] += 1
        if shown[mail.subject] <= ALIKE:
            yield f"  {mail.to:24} {mail.size:6} bytes  {mail.subject}"
    for subject, number in shown.items():
        if number > ALIKE:
            yield f"  ... and {number - ALIKE} more: {subject}"


def faults(scenes: list[Scene], received: list[Received]) -> Iterator[str]:
    """What is not as it should be."""
    arrived = Counter(mail.message_id for mail in received)
    for scene in scenes:
        if len(scene.emails) != scene.expected:
            yield f"{scene.title}: {len(scene.emails)} emails instead of {scene.expected}"
        for email in Email.objects.filter(pk__in=scene.emails):
            if (email.status, email.attempt_count) != (scene.status, scene.attempts):
                yield f"{scene.title}: {email} after {email.attempt_count} attempts"
            if arrived[email.message_id] != (email.status == Status.SENT):
                yield f"{scene.title}: {email} arrived {arrived[email.message_id]} times"
    # With a database of one's own, mails that an earlier run left unfinished may arrive as well.
    known = Email.objects.filter(message_id__in=arrived).values_list("message_id", flat=True)
    for message_id in set(arrived) - set(known):
        yield f"{message_id} arrived, but belongs to no email"
