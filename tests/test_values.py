import threading
import time
from dataclasses import FrozenInstanceError
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_mailer import values
from celery_mailer.values import (
    FINAL,
    WAITING,
    Outcome,
    Priority,
    Reply,
    RetryPolicy,
    Status,
    everyone,
    summarise,
    uuid7,
)

ACCEPTED, DEFERRED = Reply(Outcome.ACCEPTED), Reply(Outcome.DEFERRED)
REJECTED, UNCERTAIN = Reply(Outcome.REJECTED), Reply(Outcome.UNCERTAIN)


def test_a_status_waits_or_is_final_or_is_moved_on_by_someone():
    assert not WAITING & FINAL
    assert set(Status) - WAITING - FINAL == {Status.SENDING, Status.UNCERTAIN}


def test_priorities_are_ordered_by_urgency():
    assert sorted(Priority, reverse=True) == [Priority.NOW, Priority.HIGH, Priority.MEDIUM, Priority.LOW]


@pytest.mark.parametrize(
    "value", [ACCEPTED, everyone(["a@b.example"], ACCEPTED), RetryPolicy(1, "fixed", *[timedelta(1)] * 3)]
)
def test_values_cannot_be_changed(value):
    with pytest.raises((FrozenInstanceError, AttributeError, TypeError)):
        value.outcome = None


# What the replies to several recipients add up to.


@pytest.mark.parametrize(
    ("replies", "outcome"),
    [
        ([ACCEPTED], Outcome.ACCEPTED),
        ([REJECTED], Outcome.REJECTED),
        ([ACCEPTED, ACCEPTED], Outcome.ACCEPTED),
        ([ACCEPTED, REJECTED], Outcome.ACCEPTED),
        ([REJECTED, REJECTED], Outcome.REJECTED),
        ([ACCEPTED, DEFERRED], Outcome.DEFERRED),
        ([REJECTED, DEFERRED], Outcome.DEFERRED),
        ([ACCEPTED, REJECTED, DEFERRED, UNCERTAIN], Outcome.UNCERTAIN),
        ([REJECTED, UNCERTAIN], Outcome.UNCERTAIN),
    ],
)
def test_replies_add_up_to(replies, outcome):
    by_address = {f"r{i}@b.example": reply for i, reply in enumerate(replies)}
    for order in (by_address, dict(reversed(by_address.items()))):
        result = summarise(order)
        assert result.summary.outcome == outcome
        assert result.recipients == by_address


@given(st.lists(st.sampled_from([ACCEPTED, DEFERRED, REJECTED, UNCERTAIN]), min_size=1, max_size=9))
def test_a_sum_is_one_of_its_parts_and_no_doubt_is_lost(replies):
    result = summarise({f"r{i}@b.example": reply for i, reply in enumerate(replies)})
    assert result.summary in replies
    assert (result.summary.outcome == Outcome.UNCERTAIN) == (UNCERTAIN in replies)
    assert (result.summary.outcome == Outcome.REJECTED) == (set(replies) == {REJECTED})


def test_the_same_reply_for_everyone():
    result = everyone(["a@b.example", "c@d.example"], DEFERRED, usable=False)
    assert result.summary == DEFERRED
    assert result.recipients == {"a@b.example": DEFERRED, "c@d.example": DEFERRED}
    assert not result.usable


# Ids.


def test_an_id_is_a_uuid_of_version_7():
    made = uuid7()
    assert made.version == 7
    assert made.variant == "specified in RFC 4122"


def test_an_id_tells_the_time_it_was_made():
    before = time.time_ns() // 1_000_000
    made = uuid7().int >> 80
    # Ids that were made at a higher rate than the clock counts run ahead of it, by microseconds.
    assert before - 1 <= made <= time.time_ns() // 1_000_000 + 100


def test_ids_increase_in_the_order_they_are_made():
    made = [uuid7() for _ in range(10_000)]
    assert made == sorted(set(made))


def test_ids_increase_when_the_clock_goes_back(monkeypatch):
    first = uuid7()
    monkeypatch.setattr(values.time, "time_ns", lambda: 0)
    assert first < uuid7() < uuid7()


def test_ids_made_by_threads_at_once_are_different():
    made = []
    threads = [
        threading.Thread(target=lambda: made.extend([uuid7() for _ in range(2_000)])) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({pk.int >> 64 for pk in made}) == 8_000
