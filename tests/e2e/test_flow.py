"""The plain path on each broker and database: many emails, real workers, a real SMTP server."""

import pytest

from tests.e2e.support import assert_each_once, send


def flow(make_site, smtp, number, database, broker, *worker, **more):
    site = make_site(database, broker, mailer="{}", **more)
    site.worker(*worker)
    send(site, number)
    site.wait_for("sent", number)
    assert_each_once(site, smtp, number)
    return site


def test_delayed_emails_arrive_once_on_the_embedded_servers(make_site, smtp):
    flow(make_site, smtp, 100, "sqlite", "private", "-c", "2")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("broker", "database"),
    [
        pytest.param("redis", "postgres", marks=[pytest.mark.redis, pytest.mark.postgres]),
        pytest.param("redis", "mariadb", marks=[pytest.mark.redis, pytest.mark.mariadb]),
        pytest.param("rabbitmq", "postgres", marks=[pytest.mark.rabbitmq, pytest.mark.postgres]),
        pytest.param("rabbitmq", "mariadb", marks=[pytest.mark.rabbitmq, pytest.mark.mariadb]),
    ],
)
def test_500_delayed_emails_arrive_once_through_two_worker_processes(make_site, smtp, broker, database):
    flow(make_site, smtp, 500, database, broker, "-c", "2")


@pytest.mark.slow
@pytest.mark.redis
@pytest.mark.postgres
@pytest.mark.parametrize("late", [False, True])
def test_the_threads_pool_delivers_once_with_early_and_late_acks(make_site, smtp, late):
    flow(
        make_site, smtp, 100, "postgres", "redis", "-P", "threads", "-c", "4", celery={"TASK_ACKS_LATE": late}
    )


@pytest.mark.slow
@pytest.mark.rabbitmq
@pytest.mark.postgres
def test_quorum_queues_with_late_acks_deliver_once(make_site, smtp):
    celery = {
        "TASK_DEFAULT_QUEUE_TYPE": "quorum",
        "TASK_ACKS_LATE": True,
        "WORKER_DETECT_QUORUM_QUEUES": True,
    }
    flow(make_site, smtp, 100, "postgres", "rabbitmq", "-c", "2", celery=celery)


def test_a_worker_with_one_lane_leaves_the_others_alone(make_site, smtp):
    site = make_site()
    site.worker("-c", "1", "-Q", site.queues["high"])
    send(site, 1, "priority='low'")
    send(site, 1, "priority='high'")
    site.wait_for("sent", 1)
    assert site.statuses() == {"sent": 1, "queued": 1}


@pytest.mark.parametrize("late", [False, True], ids=["early", "late"])
def test_what_waits_in_a_lane_goes_together_and_each_once(make_site, smtp, late):
    number = 300
    site = make_site(celery={"TASK_ACKS_LATE": late})
    send(site, number)
    worker = site.worker("-c", "2")
    site.wait_for("sent", number)
    assert_each_once(site, smtp, number)
    assert worker.output().count("Task celery_mailer.deliver") < number / 2
