"""An import of 5,000 emails from django-post_office, killed on its way; workers deliver what waited."""

import subprocess
import sys

import pytest

from tests.site import ROOT, wait_until

FILL = """
from tests.post_office import attach, create_tables, insert, log, mail, template
create_tables()
for n in range(1, 21):
    insert("emailtemplate", [template(n)])
    for i, language in enumerate(("de", "fr")):
        insert("emailtemplate", [template(100 * n + i, name="", language=language, default_template_id=n)])
more = [{"status": i % 4, "priority": i % 3, "message_id": f"<{i}@example.com>"} for i in range(5001)]
insert("email", [mail(i, **more[i]) for i in range(1, 5001)])
insert("log", [log(i, status=i % 4 and 1) for i in range(1, 5001) if i % 4 != 2])
attach(1, b"terms" * 1000, *range(1, 5001, 10))
"""

STATE = """
from django.db.models import Count
from celery_mailer.models import Attachment, Attempt, Email, EmailTemplate, Enclosure
result = {
    **dict(Email.objects.values_list("status").annotate(Count("pk"))),
    "models": [m.objects.count() for m in (EmailTemplate, Attempt, Attachment, Enclosure)],
}
"""

EXPECTED = {"sent": 1250, "failed": 1250, "queued": 1250, "deferred": 1250, "models": [60, 3750, 1, 500]}


def killed_on_its_way(site):
    """An import that got a ``kill -9`` after its third batch was announced."""
    argv = [sys.executable, "-u", "-m", "django", "mailer_import_post_office"]
    process = subprocess.Popen(
        argv, env=site.env, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    for _ in range(3):
        process.stderr.readline()
    process.kill()
    process.wait(30)
    process.stderr.close()


@pytest.mark.slow
def test_5000_emails_are_imported_in_spite_of_a_kill_and_delivered_once(make_site, smtp):
    site = make_site("sqlite", "private", mailer="{}")
    site.run(FILL)
    killed_on_its_way(site)
    there = sum(number for status, number in site.run(STATE).items() if status != "models")
    assert 1500 <= there < 5000
    site.manage("mailer_import_post_office")
    assert site.run(STATE) == EXPECTED
    site.manage("mailer_import_post_office")
    assert site.run(STATE) == EXPECTED
    site.worker("-c", "2")
    site.manage("mailer_dispatch")
    site.manage("mailer_dispatch")
    wait_until("all are delivered", lambda: len(smtp.received) >= 2500, 90)
    counts = smtp.counts()
    assert set(counts) == {f"<{i}@example.com>" for i in range(1, 5001) if i % 4 > 1}
    assert set(counts.values()) == {1}
