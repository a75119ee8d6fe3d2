"""kill -9 at random moments: nothing is lost, and nothing is doubled without a record."""

import os
import random
import signal

import pytest

from celery_mailer.deliver.slice import WINDOW
from tests.e2e.support import history, hurry_beat, send
from tests.servers.smtp import SmtpServer
from tests.site import wait_until

ROUNDS = 10
MAILS = 500


def kill_child(worker):
    wait_until("a pool child", worker.children)
    os.kill(random.choice(worker.children()), signal.SIGKILL)
    return worker


def kill_worker(site, worker):
    worker.kill()
    return site.worker("-c", "2")


def storm(site, smtp, mailer_policy):
    """Ten rounds of 500 emails; in each, a child or the whole worker is killed while they flow."""
    site.beat()
    hurry_beat(site)
    worker = site.worker("-c", "2")
    more = "priority='low', stream='kills'"
    for round_ in range(ROUNDS):
        before = len(smtp.received)
        if round_ % 2:
            send(site, MAILS, more)
        else:
            site.run(f"""
                from celery_mailer import mail
                mail.send_many(
                    dict(recipients=f"u{{i}}@example.com", subject="s", message="m", {more})
                    for i in range({MAILS})
                )
            """)
        moment = before + random.randrange(1, MAILS // 2)
        wait_until("some mail of this round", lambda: len(smtp.received) >= moment)  # noqa: B023
        worker = kill_worker(site, worker) if round_ % 4 < 2 else kill_child(worker)
    done = ["sent", "uncertain"] if mailer_policy == "hold" else ["sent"]
    wait_until(
        "every email is settled",
        lambda: sum(site.statuses().get(s, 0) for s in done) == ROUNDS * MAILS,
        timeout=120,
        every=1,
    )
    return history(site), smtp.counts()


@pytest.fixture
def make_storm(make_site, smtp):
    def make(policy, **where):
        mailer = f"""{{
            'LEASE': timedelta(seconds=3), 'STREAMS': {{'kills': {{'ON_UNCERTAIN': '{policy}'}}}},
            'RETRY': {{'MIN': timedelta(seconds=1), 'MAX': timedelta(seconds=1), 'MAX_ATTEMPTS': 30}},
        }}"""
        site = make_site(mailer=mailer, **where)
        return storm(site, smtp, policy)

    return make


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.redis
@pytest.mark.postgres
def test_killed_workers_lose_nothing_and_double_only_what_was_recorded_uncertain(make_storm):
    emails, received = make_storm("resend", database="postgres", broker="redis")
    assert set(received) == set(emails)
    doubled = {message_id for message_id, count in received.items() if count > 1}
    uncertain = {message_id for message_id, (_, outcomes, _) in emails.items() if "uncertain" in outcomes}
    assert doubled <= uncertain
    for message_id, count in received.items():
        assert count <= 1 + emails[message_id][1].count("uncertain")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.rabbitmq
@pytest.mark.mariadb
def test_killed_workers_double_nothing_in_a_stream_that_holds(make_storm):
    emails, received = make_storm("hold", database="mariadb", broker="rabbitmq")
    assert set(received.values()) == {1}
    lost = set(emails) - set(received)
    assert {emails[message_id][0] for message_id in lost} <= {"uncertain"}


@pytest.mark.slow
def test_a_worker_killed_while_pipelining_leaves_at_most_a_window_in_doubt(make_site):
    number = 4 * WINDOW
    with SmtpServer(delay=0.02) as smtp:
        hold = "{'LEASE': timedelta(seconds=3), 'ON_UNCERTAIN': 'hold'}"
        site = make_site(smtp_port=smtp.port, mailer=hold)
        worker = site.worker("-c", "1")
        site.run(f"""
            from celery_mailer import mail
            mail.send_many(
                dict(recipients=f"u{{i}}@example.com", subject="s", message="m") for i in range({number})
            )
        """)
        smtp.wait_for(random.randrange(1, 2 * WINDOW))
        worker.kill()
        site.beat()
        hurry_beat(site)
        site.worker("-c", "1")
        wait_until("every email is settled", lambda: settled(site) == number, timeout=60)
        emails, received = history(site), smtp.counts()
    uncertain = {message_id for message_id, (status, *_) in emails.items() if status == "uncertain"}
    assert len(uncertain) <= WINDOW
    assert set(received.values()) == {1}
    assert set(emails) - set(received) <= uncertain


def settled(site):
    return sum(site.statuses().get(status, 0) for status in ("sent", "uncertain"))


def test_a_killed_worker_leaves_its_mail_to_the_next_one(make_site):
    with SmtpServer(delay=30) as slow:
        site = make_site(smtp_port=slow.port)
        worker = site.worker("-c", "1")
        send(site, 1)
        # Asked here, not in the database: a process that asks may start too late to see it ``sending``.
        wait_until("the server has the mail", lambda: slow.held)
        worker.kill()
    with SmtpServer(port=slow.port) as quick:
        site.beat()
        hurry_beat(site)
        site.worker("-c", "1")
        site.wait_for("sent", 1)
        assert len(quick.received) == 1
    ((status, outcomes, _),) = history(site).values()
    assert (status, outcomes) == ("sent", ["uncertain", "accepted"])
