"""How long the admin's pages take over a million emails in PostgreSQL: medians in milliseconds.

    CELERY_MAILER_SERVICES=required python -m tests.bench.admin_pages [EMAILS]

One email is sent and multiplied; each copy then has an address and a status of its own, most of them sent.
The pages are asked through Django's test client, so that the time is that of queries and templates.
"""

import json
import os
import subprocess
import sys

from tests.servers import databases

TIMES = 21  # that each page is asked
EMAILS = 1_000_000

# Addresses that differ; of a hundred one failed, one is uncertain, and one waits to be tried again.
SPREAD = """
UPDATE celery_mailer_email SET
    address = 'r' || substr(md5(id::text), 1, 8) || '@example.com',
    status = CASE part WHEN 0 THEN 'failed' WHEN 1 THEN 'uncertain' WHEN 2 THEN 'deferred' ELSE status END,
    finished_at = CASE WHEN part IN (1, 2) THEN NULL ELSE finished_at END,
    due_at = CASE part WHEN 2 THEN now() + interval '1 hour' ELSE due_at END
FROM (SELECT id AS pk, abs(hashtext(id::text)) % 100 AS part FROM celery_mailer_email) parts WHERE pk = id
"""


def fill(emails: int) -> None:
    from django.core.management import call_command
    from django.db import connection
    from django.test.utils import override_settings

    from celery_mailer.tasks import send_email
    from tests.bench.contestants import find

    call_command("migrate", verbosity=0)
    with override_settings(EMAIL_BACKEND="django.core.mail.backends.dummy.EmailBackend"):
        send_email("Your order", "It is on its way.", None, ["ada@example.com"])
    with connection.cursor() as cursor:
        find("own").fill(cursor, emails, 0)
        cursor.execute(SPREAD)
        cursor.execute("VACUUM ANALYZE")


def pages() -> dict[str, str]:
    from django.urls import reverse

    from celery_mailer.models import Email

    some = Email.objects.order_by("-pk")[1000]
    emails = reverse("admin:celery_mailer_email_changelist")
    return {
        "list": emails,
        "search by address": f"{emails}?q={some.address}",
        "search by id": f"{emails}?q={some.pk}",
        "search by Message-ID": f"{emails}?q={some.message_id}",
        "dashboard": reverse("admin:celery_mailer_email_dashboard"),
    }


def medians() -> dict[str, float]:
    from statistics import median
    from time import perf_counter

    from django.contrib.auth.models import User
    from django.test import Client

    client = Client()
    client.force_login(User.objects.create_superuser("ada", "ada@example.com"))
    found = {}
    for name, url in pages().items():
        times = []
        for _ in range(TIMES):
            start = perf_counter()
            answer = client.get(url)
            times.append((perf_counter() - start) * 1000)
            assert answer.status_code == 200, (name, answer.status_code)
        found[name] = round(median(times), 1)
    return found


def main() -> None:
    """Measures in a process of its own, whose settings know the database."""
    if "TEST_SITE" not in os.environ:
        with databases.postgres() as url:
            site = {**os.environ, "TEST_SITE": json.dumps({"database": url})}
            subprocess.run([sys.executable, "-m", __spec__.name, *sys.argv[1:]], env=site, check=True)
        return
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    import django

    django.setup()
    fill(int(sys.argv[1]) if len(sys.argv) > 1 else EMAILS)
    print(json.dumps(medians()))


if __name__ == "__main__":
    main()
