"""What one process queues within a moment shares a chain."""

import threading
from pathlib import Path
from types import SimpleNamespace
from uuid import UUID, uuid4

import pytest
from celery import current_app
from celery.signals import worker_process_shutdown
from django.db import transaction

from celery_mailer import chain, moment
from celery_mailer.tasks import send_email
from celery_mailer.values import Priority
from tests.site import wait_until

MOMENT, LONGEST = moment.MOMENT, moment.LONGEST  # before any test
LONG = 3600.0  # seconds: a moment that does not end by itself


@pytest.fixture(autouse=True)
def chains(monkeypatch):
    """The chains that are started: their ids, lane by lane, in their order; no moment ends by itself."""
    started = []

    def start(ids, priority):
        if ids:
            started.append((list(ids), priority))
        return True

    monkeypatch.setattr(chain, "start", start)
    monkeypatch.setattr(moment, "_moments", {})
    monkeypatch.setattr(moment, "MOMENT", LONG)
    monkeypatch.setattr(moment, "LONGEST", LONG)
    yield started
    for lane in moment._moments.values():
        if lane._end is not None:
            lane._end.cancel()


def start(*ids, priority=Priority.MEDIUM):
    moment.start(list(ids), priority)


def ids(number):
    return [uuid4() for _ in range(number)]


def test_the_first_after_a_quiet_time_leaves_at_once(chains):
    (first,) = ids(1)
    start(first)
    assert chains == [([first], Priority.MEDIUM)]


def test_what_follows_leaves_together_at_the_moments_end(chains):
    first, second, third = ids(3)
    for pk in (first, second, third):
        start(pk)
    assert chains == [([first], Priority.MEDIUM)]
    moment._flush()
    assert chains[1:] == [([second, third], Priority.MEDIUM)]


def test_a_moment_ends_by_itself(chains, monkeypatch):
    monkeypatch.setattr(moment, "MOMENT", 1.0)
    first, second, third = ids(3)
    for pk in (first, second, third):
        start(pk)
    wait_until("its end", lambda: len(chains) == 2)
    assert chains[1] == ([second, third], Priority.MEDIUM)


def test_nothing_is_published_at_the_end_of_a_moment_in_which_nothing_came(chains):
    start(*ids(1))
    moment._flush()
    assert len(chains) == 1


def test_a_full_slice_does_not_wait(chains, settings):
    settings.CELERY_MAILER = {"BATCH_SIZE": 3}
    first, *rest, last = ids(5)
    for pk in (first, *rest, last):
        start(pk)
    assert [names for names, _ in chains] == [[first], rest]
    moment._flush()
    assert chains[2] == ([last], Priority.MEDIUM)


def test_each_lane_has_its_own_moment(chains):
    low, high = ids(2)
    start(low, priority=Priority.LOW)
    start(high, priority=Priority.HIGH)
    assert chains == [([low], Priority.LOW), ([high], Priority.HIGH)]


def test_moments_get_longer_while_calls_go_on(monkeypatch, chains):
    monkeypatch.setattr(moment, "MOMENT", 1.0)
    monkeypatch.setattr(moment, "LONGEST", 3.0)
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(moment, "time", SimpleNamespace(monotonic=lambda: clock.now))
    waits = []

    class Timer(SimpleNamespace):
        def __init__(self, seconds, *_):
            waits.append(seconds)

        start = cancel = lambda self: None

    monkeypatch.setattr(moment.threading, "Timer", Timer)
    for _ in range(4):
        start(*ids(1))
        moment._flush()
    start(*ids(1))
    assert waits == [2.0, 3.0, 3.0, 3.0]
    clock.now += 10
    moment._flush()
    clock.now += 10
    start(*ids(2))
    start(*ids(1))
    assert waits[-1] == 1.0


def test_where_results_are_kept_each_email_has_its_own_chain(chains, monkeypatch):
    monkeypatch.setattr(chain, "results_are_kept", lambda: True)
    for pk in ids(3):
        start(pk)
    assert len(chains) == 3


def test_where_tasks_run_at_once_nothing_waits(chains, monkeypatch):
    monkeypatch.setitem(current_app.conf, "task_always_eager", True)
    for pk in ids(3):
        start(pk)
    assert len(chains) == 3


@pytest.mark.parametrize(
    ("options", "number"),
    [({}, 3), ({"enable-threads": b"true"}, 1), ({"threads": b"4"}, 1)],
    ids=["none", "enabled", "some"],
)
def test_in_uwsgi_without_threads_nothing_waits(chains, monkeypatch, options, number):
    monkeypatch.setitem(moment.sys.modules, "uwsgi", SimpleNamespace(opt=options))
    for pk in ids(3):
        start(pk)
    assert len(chains) == number


def test_an_interpreter_that_ends_starts_no_thread_and_loses_nothing(chains, monkeypatch):
    def refuse(self):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Timer, "start", refuse)
    for pk in ids(2):
        start(pk)
    assert len(chains) == 2


def test_a_pools_process_publishes_what_waits_before_it_ends(chains):
    first, second = ids(2)
    start(first)
    start(second)
    worker_process_shutdown.send(sender=None, pid=1, exitcode=0)
    assert chains[1] == ([second], Priority.MEDIUM)


def test_the_thread_publishes_for_the_callers_app(chains, monkeypatch):
    monkeypatch.setattr(moment, "MOMENT", 0.1)
    apps = []
    monkeypatch.setattr(chain, "start", lambda *_: apps.append(current_app._get_current_object()))
    start(*ids(1))
    start(*ids(1))
    wait_until("its end", lambda: len(apps) == 2)
    assert apps[0] is apps[1]


@pytest.mark.django_db(transaction=True)
def test_transactions_one_after_the_other_share_a_chain(chains):
    results = []
    for i in range(3):
        with transaction.atomic():
            results.append(send_email.delay("s", "m", None, [f"a{i}@example.com"]))
    moment._flush()
    assert [names for names, _ in chains] == [[UUID(results[0].id)], [UUID(r.id) for r in results[1:]]]


def test_the_readme_says_how_long_a_moment_is():
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    assert f"every {MOMENT} to {LONGEST}\nseconds" in readme
