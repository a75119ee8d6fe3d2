"""The row is the truth, the broker a wake-up: down, flushed, repeating itself."""

import pytest

from tests.e2e.support import assert_each_once, hurry_beat, send
from tests.servers.smtp import SmtpServer
from tests.site import wait_until

LEASE_10 = "{'LEASE': timedelta(seconds=10)}"


def test_with_the_broker_down_delay_returns_soon_and_the_mail_goes_out_later(make_site, smtp, broker):
    site = make_site(broker=broker.url)
    site.beat()
    hurry_beat(site)
    site.worker("-c", "1")
    broker.stop()
    seconds = site.run("""
        import time
        from celery_mailer.tasks import send_email
        started = time.monotonic()
        send_email.delay(subject="s", message="m", recipient_list=["a@example.com"])
        result = time.monotonic() - started
    """)
    assert seconds < 2  # 0.05 as a rule
    assert site.statuses() == {"queued": 1}
    broker.start()
    site.wait_for("sent", 1)
    assert_each_once(site, smtp, 1)


@pytest.mark.slow
def test_a_flushed_broker_loses_none_of_2000_waiting_emails(make_site, smtp, broker):
    site = make_site(broker=broker.url, mailer=LEASE_10)
    send(site, 2000)
    broker.client().flushall()
    site.beat()
    hurry_beat(site)
    site.worker("-c", "2")
    site.wait_for("sent", 2000, timeout=100)
    assert_each_once(site, smtp, 2000)


def test_a_broker_flushed_under_running_workers_loses_nothing(make_site, smtp, broker):
    site = make_site(broker=broker.url, mailer=LEASE_10)
    site.beat()
    hurry_beat(site)
    site.worker("-c", "1")
    send(site, 200)
    broker.client().flushall()
    send(site, 50)
    site.wait_for("sent", 250)
    assert_each_once(site, smtp, 250)


def test_the_same_message_twenty_times_in_parallel_delivers_once(make_site, smtp):
    site = make_site()
    site.worker("-c", "4")
    site.run("""
        from celery_mailer import chain
        from celery_mailer.enqueue import enqueue
        from celery_mailer.values import EmailRequest
        (email,) = enqueue([EmailRequest(to="a@example.com", subject="s", message="m")], start=False)
        for _ in range(20):
            chain.build([email.pk], email.priority).apply_async()
    """)
    site.wait_for("sent", 1)
    assert_each_once(site, smtp, 1)


def test_a_message_redelivered_during_a_slow_delivery_delivers_once(make_site):
    with SmtpServer(delay=5) as slow:
        site = make_site(smtp_port=slow.port, mailer="{}", celery={"TASK_ACKS_LATE": True})
        site.config["transport_options"] |= {
            "visibility_timeout": 1,
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 1,
        }
        worker = site.worker("-c", "3")
        send(site, 1)
        again = "celery_mailer.deliver"
        wait_until("a redelivery", lambda: worker.output().count(f"Task {again}") > 1)
        site.wait_for("sent", 1)
        assert_each_once(site, slow, 1)
