"""Database connections that die under workers, and many workers at once."""

import pytest

from tests.e2e.support import assert_each_once, send

pytestmark = [pytest.mark.slow, pytest.mark.redis]


@pytest.mark.postgres
def test_connections_killed_between_tasks_delay_nothing(make_site, smtp):
    site = make_site("postgres", "redis", mailer="{}")
    site.worker("-c", "2")
    send(site, 20)
    site.wait_for("sent", 20)
    site.run("""
        from django.db import connection
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                           " WHERE datname = current_database() AND pid <> pg_backend_pid()")
    """)
    send(site, 20)
    site.wait_for("sent", 40, timeout=30)
    assert_each_once(site, smtp, 40)


@pytest.mark.postgres
def test_eight_workers_deliver_500_emails_once(make_site, smtp):
    site = make_site("postgres", "redis", mailer="{}")
    workers = [site.worker("-c", "2", wait=False) for _ in range(4)]
    send(site, 250)
    site.run("""
        from celery_mailer import mail
        mail.send_many([dict(recipients=f"m{i}@example.com", subject="s", message="m") for i in range(250)])
    """)
    site.wait_for("sent", 500)
    assert len(workers) == 4
    assert_each_once(site, smtp, 500)
