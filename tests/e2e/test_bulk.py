"""Bulk calls in real processes: one is killed in the middle, one sends a few mails first."""

import random
import signal

import pytest

from tests.e2e.support import assert_each_once, hurry_beat

NUMBER = 1_000
BULK = f"""
    from celery_mailer import bulk
    from celery_mailer.tasks import send_bulk_email
    from celery_mailer.models import Batch, Email

    bulk.SLICE = 50

    def people():
        for i in range({NUMBER}):
            before(i)
            yield dict(email=f"u{{i}}@example.com", name=f"U{{i}}", context=dict(number=i))

    def send():
        words = dict(subject="Mail {{{{ number }}}}", message="Dear {{{{ name }}}}")
        send_bulk_email.delay(recipients=people(), idempotency_key="news", **words)
"""
STATE = """
    batch = Batch.objects.get()
    result = [batch.total, batch.reading, batch.taken, batch.duplicates, Email.objects.count()]
"""


@pytest.mark.slow
@pytest.mark.slow
@pytest.mark.parametrize(
    "database",
    [
        "sqlite",
        pytest.param("postgres", marks=pytest.mark.postgres),
        pytest.param("mariadb", marks=pytest.mark.mariadb),
    ],
)
def test_a_call_that_is_killed_in_the_middle_is_completed_by_the_same_call(make_site, smtp, database):
    site = make_site(database=database)
    site.worker("-c", "2")
    site.beat()
    hurry_beat(site)
    where = random.randrange(100, NUMBER)
    web = site.start(
        BULK
        + f"""
    import os, signal

    def before(i):
        if i == {where}:
            os.kill(os.getpid(), signal.SIGKILL)

    send()
    """
    )
    assert web.popen.wait(60) == -signal.SIGKILL
    total, reading, *_ = site.run(BULK + STATE)
    assert (total, reading) == (where // 50 * 50, True)
    assert site.run(BULK + "\n    before = id\n    send()\n" + STATE) == [NUMBER, False, NUMBER, 0, NUMBER]
    site.wait_for("sent", NUMBER, timeout=90)
    assert_each_once(site, smtp, NUMBER)


@pytest.mark.slow
def test_the_rest_follows_when_the_first_were_sent(make_site, smtp):
    site = make_site()
    site.worker("-c", "1")
    site.run("""
        from celery_mailer.tasks import send_bulk_email
        people = [f"u{i}@example.com" for i in range(30)]
        send_bulk_email.delay(subject="s", message="m", recipients=people, canary=3)
    """)
    site.wait_for("sent", 3)
    assert site.statuses() == {"sent": 3, "queued": 27}
    site.beat()
    hurry_beat(site)
    site.wait_for("sent", 30)
    assert_each_once(site, smtp, 30)
