"""Several ways out: failover, the circuit breaker, limits, and a password that is wrong."""

import itertools
from collections import Counter

import pytest

from tests.servers.smtp import SmtpServer
from tests.site import wait_until

# On a broker of their own: limits are counted there, and a quota is remembered for a day.
pytestmark = [pytest.mark.slow, pytest.mark.postgres]

SMTP = "django.core.mail.backends.smtp.EmailBackend"
SEND = """
    from celery_mailer import mail
    mail.send_many([
        dict(recipients=f"u{{i}}@example.com", subject="s", message="m") for i in range({number})
    ])
"""


def provider(port, **rules):
    return {"BACKEND": SMTP, "OPTIONS": {"host": "127.0.0.1", "port": port}, **rules}


def test_a_provider_that_fails_and_then_flaps_costs_nobody_anything(make_site, smtp):
    with SmtpServer() as first:
        mailer = {
            "PROVIDERS": {"first": provider(first.port), "second": provider(smtp.port)},
            "ROUTES": ["first", "second"],
        }
        site = make_site("postgres", mailer=repr(mailer))
        first.refuses = lambda: True
        for _ in range(2):
            site.worker("-c", "2")
        site.beat()
        site.run(SEND.format(number=500))
        site.wait_for("sent", 500)
        assert first.received == []
        calls = itertools.count(1)
        first.refuses = lambda: next(calls) % 3 == 0
        wait_until("the breaker may try again", lambda: retry_is_due(site), 60, every=0.5)
        site.run(SEND.format(number=500))
        site.wait_for("sent", 1000, timeout=120)
        arrived = first.counts() + smtp.counts()
        assert (len(arrived), set(arrived.values())) == (1000, {1})
        assert first.received
        assert site.statuses() == {"sent": 1000}
        changes = site.run("""
            from celery_mailer.models import ProviderChange
            result = list(ProviderChange.objects.order_by("id").values_list("from_state", "to_state"))
        """)
        states = [to for _, to in changes]
        assert states[0] == "open"
        assert {"open", "half_open", "closed"} <= set(states)
        # No second trial begins before the first has ended.
        assert all(a[1] == b[0] for a, b in itertools.pairwise(changes))


def retry_is_due(site):
    return site.run("""
        from django.utils import timezone
        from celery_mailer.models import ProviderState
        result = ProviderState.objects.filter(state="open", retry_at__lte=timezone.now()).exists()
    """)


def test_a_limit_holds_for_all_workers_together(make_site, smtp):
    mailer = {"PROVIDERS": {"default": provider(smtp.port, RATE_LIMIT="50/s")}}
    site = make_site("postgres", mailer=repr(mailer))
    for _ in range(2):
        site.worker("-c", "1")
    site.run(SEND.format(number=500))
    site.wait_for("sent", 500)
    times = sorted(smtp.times)
    windows = [sum(1 for t in times[i : i + 200] if t < begin + 1) for i, begin in enumerate(times)]
    print(f"at most {max(windows)} in a second, 500 in {times[-1] - times[0]:.1f} s")
    # A tenth as a burst, and what a busy machine brings late.
    assert max(windows) <= 50 + 5 + 5
    assert site.run("""
        from celery_mailer.models import Email
        result = sorted(set(Email.objects.values_list("attempt_count", flat=True)))
    """) == [1]


def test_a_daily_quota_lets_the_rest_wait_without_an_attempt(make_site, smtp):
    mailer = {"PROVIDERS": {"default": provider(smtp.port, DAILY_QUOTA=100)}}
    site = make_site("postgres", mailer=repr(mailer))
    site.worker("-c", "2")
    site.run(SEND.format(number=150))
    site.wait_for("sent", 100)
    site.wait_for("deferred", 50)
    assert len(smtp.received) == 100
    waiting = site.run("""
        from celery_mailer.models import Email
        rows = Email.objects.filter(status="deferred")
        hours = {(e.due_at - e.created_at).total_seconds() / 3600 for e in rows}
        result = [sorted({(e.reason, e.attempt_count) for e in rows}), min(hours), max(hours)]
    """)
    assert waiting[0] == [["throttled", 0]]
    assert 22.9 < waiting[1] <= waiting[2] < 25.1


def test_a_wrong_password_fails_no_email_and_is_told_once(make_site):
    with SmtpServer(password="right") as server:
        options = {"host": "127.0.0.1", "port": server.port, "username": "shop", "password": "hunter2"}
        mailer = {"PROVIDERS": {"default": {"BACKEND": SMTP, "OPTIONS": options}}}
        site = make_site("postgres", mailer=repr(mailer))
        workers = [site.worker("-c", "2") for _ in range(2)]
        site.beat()
        site.run(SEND.format(number=200))
        site.wait_for("deferred", 200)
        server.password = "hunter2"  # it is put right where it was wrong
        site.run("""
            from celery_mailer.models.pause import resume
            resume("provider", "default")
        """)
        site.wait_for("sent", 200, timeout=120)
        assert set(server.counts().values()) == {1}
        lines = [line for worker in workers for line in worker.output().splitlines()]
        assert Counter("ERROR" in line for line in lines if "provider default" in line)[True] == 1
        assert not any("hunter2" in line for line in lines)


def test_a_pause_stops_a_stream_and_nothing_else(make_site, smtp):
    site = make_site("postgres", mailer="{}")
    site.run("""
        from celery_mailer import mail
        from celery_mailer.models.pause import pause
        pause("stream", "marketing", "wrong price")
        for stream in ("marketing", "transactional"):
            mail.send("a@example.com", subject=stream, message="m", stream=stream)
    """)
    site.worker("-c", "1")
    site.beat()
    site.wait_for("sent", 1)
    site.wait_for("deferred", 1)
    site.run("""
        from celery_mailer.models.pause import resume
        resume("stream", "marketing")
    """)
    site.wait_for("sent", 2)
    assert [mail.message["Subject"] for mail in smtp.received] == ["transactional", "marketing"]
