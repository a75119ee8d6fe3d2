"""What the end-to-end tests do again and again."""

SEND = """
from celery_mailer.tasks import send_email
for i in range({number}):
    send_email.delay(
        subject=f"Mail {{i}}", message="Text of {{i}}", recipient_list=[f"u{{i}}@example.com"], {more}
    )
"""

HISTORY = """
from collections import defaultdict
from celery_mailer.models import Attempt, Email
attempts = defaultdict(list)
for email_id, outcome in Attempt.objects.order_by("id").values_list("email_id", "outcome"):
    attempts[email_id].append(outcome)
rows = Email.objects.values_list("id", "message_id", "status", "reason")
result = {message_id: [status, attempts[pk], reason] for pk, message_id, status, reason in rows}
"""


def send(site, number, more=""):
    site.run(SEND.format(number=number, more=more))


def history(site):
    """By Message-ID: status, the outcomes of the attempts in order, reason."""
    return site.run(HISTORY)


def hurry_beat(site, seconds=1):
    """What an admin does who wants the jobs to run more often."""
    site.run(f"""
        from django_celery_beat.models import IntervalSchedule, PeriodicTask
        every, _ = IntervalSchedule.objects.get_or_create(every={seconds}, period="seconds")
        for task in PeriodicTask.objects.filter(name__startswith="celery_mailer."):
            task.interval = every
            task.save()
    """)


def assert_each_once(site, smtp, number):
    """``number`` mails arrived, each once; all are ``sent``, each by one attempt."""
    counts = smtp.counts()
    assert len(counts) == number
    assert set(counts.values()) == {1}
    assert {tuple(map(str, h)) for h in history(site).values()} == {("sent", "['accepted']", "")}
