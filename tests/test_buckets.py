"""What every store of limits does: one suite that all of them pass, and what is each one's own."""

import threading
import time
from bisect import bisect_left
from collections import Counter

import pytest
import redis
from django.db import connection
from hypothesis import given
from hypothesis import strategies as st
from redis.backoff import NoBackoff
from redis.retry import Retry

from celery_mailer.deliver.buckets import rules
from celery_mailer.deliver.buckets.contract import SECOND, Bucket, Turn, moment
from celery_mailer.deliver.buckets.database import DatabaseBuckets
from celery_mailer.deliver.buckets.fallback import PAUSE, SHARE, WARN_EVERY, Fallback
from celery_mailer.deliver.buckets.process import TIDY_EVERY, ProcessBuckets
from celery_mailer.deliver.buckets.redis import PREFIX, RedisBuckets
from celery_mailer.deliver.buckets.rules import FLOOR, HOUR, RECOVERY
from celery_mailer.deliver.buckets.script import LUA
from celery_mailer.models import bucket as rows
from tests.servers.broker import private_broker

START = 1_700_000_000 * SECOND - 1_700_000_000 * SECOND % HOUR + 1_234_567  # early in an hour
MARGIN = "+ 1000)"  # milliseconds that keys outlive what they hold
MINUTE = 60 * SECOND
DAY = 24 * HOUR

PROVIDER = Bucket("esp", bookable=True)
TEN = Bucket("esp 10/s", interval=SECOND // 10, bookable=True)
SLOW = Bucket("esp 1/m", interval=MINUTE, bookable=True)
QUOTA = Bucket("esp daily quota", quota=100, bookable=True)
DOMAIN = Bucket("@example.com", interval=SECOND)
OPEN_DOMAIN = Bucket("@example.org")


class Clock:
    def __init__(self):
        self.now = START

    def __call__(self):
        return self.now

    def advance(self, microseconds):
        self.now += microseconds


@pytest.fixture(scope="module")
def broker():
    with private_broker() as broker:
        yield broker


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(params=["process", "database", "redis"])
def store(request, clock):
    if request.param == "database":
        request.getfixturevalue("db")
        return DatabaseBuckets(clock)
    if request.param == "redis":
        return in_redis(request.getfixturevalue("broker"), clock)
    return ProcessBuckets(clock)


def in_redis(broker, clock=None):
    client = redis.Redis(port=broker.port, retry=Retry(NoBackoff(), 0))
    client.flushall()
    store = RedisBuckets(client, clock)
    if clock is not None:  # it stands still, while keys go by the real one: the test must not be too slow
        assert LUA.count(MARGIN) == 2
        store._script = client.register_script(LUA.replace(MARGIN, "+ 60000)"))
    return store


def take(store, asks, within=0, patience=5 * SECOND, token="t"):
    """The verdicts, with times since ``START``."""
    _, verdicts = store.take(asks, within, patience, token)
    return [(v.turn.name, v.at - START) for v in verdicts]


def take_one(store, *buckets, **more):
    return take(store, [dict.fromkeys(buckets, 1)], **more)[0]


# Rates.


def test_without_a_rate_everything_goes_at_once(store):
    assert take(store, [{PROVIDER: 1, OPEN_DOMAIN: 1}] * 50) == [("NOW", 0)] * 50


def test_no_asks_get_no_verdicts(store, clock):
    assert store.take([], 0, 0, "t") == (clock.now, [])


def test_slots_are_booked_ahead_at_equal_distances(store):
    got = take(store, [{TEN: 1}] * 4, within=SECOND)
    assert got == [("NOW", 0), ("NOW", 100_000), ("NOW", 200_000), ("NOW", 300_000)]


def test_a_second_caller_books_behind_the_first(store):
    take(store, [{TEN: 1}] * 3, within=SECOND)
    assert take_one(store, TEN, within=SECOND) == ("NOW", 300_000)


def test_what_is_out_of_reach_is_soon_each_at_a_time_of_its_own(store):
    got = take(store, [{TEN: 1}] * 4, within=100_000)
    assert got == [("NOW", 0), ("NOW", 100_000), ("SOON", 200_000), ("SOON", 300_000)]


def test_what_is_soon_takes_nothing(store, clock):
    take(store, [{TEN: 1}] * 9)
    clock.advance(100_000)
    assert take_one(store, TEN) == ("NOW", 100_000)


def test_what_is_beyond_patience_is_later(store):
    got = take(store, [{SLOW: 1}] * 3)
    assert got == [("NOW", 0), ("LATER", MINUTE), ("LATER", 2 * MINUTE)]


def test_the_line_goes_on_where_the_last_caller_stood(store):
    take(store, [{SLOW: 1}] * 3)
    assert take(store, [{SLOW: 1}] * 2) == [("LATER", 3 * MINUTE), ("LATER", 4 * MINUTE)]


def test_the_line_keeps_no_slot(store, clock):
    take(store, [{SLOW: 1}] * 5)
    clock.advance(MINUTE)
    assert take_one(store, SLOW) == ("NOW", MINUTE)


def test_the_line_is_forgotten_as_it_passes(store, clock):
    take(store, [{SLOW: 1}] * 3)
    clock.advance(10 * MINUTE)
    got = take(store, [{SLOW: 1}] * 2)
    assert got == [("NOW", 10 * MINUTE), ("LATER", 11 * MINUTE)]


def test_a_burst_comes_after_a_rest_and_not_again(store, clock):
    bucket = Bucket("b", interval=100_000, tolerance=300_000, bookable=True)
    assert [turn for turn, _ in take(store, [{bucket: 1}] * 6)] == ["NOW"] * 4 + ["SOON"] * 2
    clock.advance(100_000)
    assert [turn for turn, _ in take(store, [{bucket: 1}] * 6)] == ["NOW"] + ["SOON"] * 5


def test_tolerance_makes_good_what_came_late(store, clock):
    bucket = Bucket("b", interval=SECOND, tolerance=100_000, bookable=True)
    take_one(store, bucket)
    clock.advance(1_050_000)
    assert take_one(store, bucket) == ("NOW", 1_050_000)
    clock.advance(950_000)
    assert take_one(store, bucket) == ("NOW", 2_000_000)


def test_a_handover_of_many_units_begins_with_one_and_pays_for_all(store, clock):
    assert take(store, [{TEN: 30}]) == [("NOW", 0)]
    assert take_one(store, TEN) == ("SOON", 3 * SECOND)
    clock.advance(3 * SECOND)
    assert take_one(store, TEN) == ("NOW", 3 * SECOND)


def test_the_narrowest_bucket_is_named(store):
    ask = {PROVIDER: 1, TEN: 1, SLOW: 1}
    _, verdicts = store.take([ask, ask], 0, 0, "t")
    assert [v.by for v in verdicts] == [None, SLOW]


# Several limits.


def test_all_or_none(store):
    take_one(store, DOMAIN)
    assert take_one(store, TEN, DOMAIN) == ("SOON", SECOND)
    assert take_one(store, TEN) == ("NOW", 0)


def test_who_waits_for_his_domain_does_not_keep_the_others(store):
    mixed = [{TEN: 1, DOMAIN: 1}] * 3 + [{TEN: 1, OPEN_DOMAIN: 1}] * 2
    got = take(store, mixed, within=SECOND)
    assert got == [("NOW", 0), ("SOON", SECOND), ("SOON", 2 * SECOND), ("NOW", 100_000), ("NOW", 200_000)]


def test_a_domain_slot_that_is_free_by_the_providers_slot_is_taken(store):
    got = take(store, [{TEN: 1}] * 10 + [{TEN: 1, DOMAIN: 1}] * 2, within=5 * SECOND)
    assert got[-2:] == [("NOW", SECOND), ("SOON", 2 * SECOND)]


def test_two_rates_both_hold(store):
    got = take(store, [{TEN: 1, SLOW: 1}] * 2, within=SECOND)
    assert got == [("NOW", 0), ("LATER", MINUTE)]


def test_only_the_narrowest_bucket_has_a_line(store):
    one_of = [Bucket(f"@{i}", interval=MINUTE) for i in range(2)]
    take(store, [{SLOW: 1, one_of[0]: 1}] * 2 + [{TEN: 1, one_of[1]: 1}] * 9)
    assert take(store, [{TEN: 1}] * 2, patience=0)[1] == ("LATER", 200_000)


# Giving back.


def test_given_back_slots_are_free_again(store):
    take(store, [{TEN: 1}] * 5, within=SECOND, token="mine")
    store.give_back([({TEN: 1}, START + 300_000), ({TEN: 1}, START + 400_000)], "mine")
    assert take_one(store, TEN, within=SECOND) == ("NOW", 300_000)


def test_slots_are_lost_when_somebody_booked_behind_them(store):
    take(store, [{TEN: 1}] * 5, within=SECOND, token="mine")
    take(store, [{TEN: 1}], within=SECOND, token="other")
    store.give_back([({TEN: 1}, START + 400_000)], "mine")
    assert take_one(store, TEN, within=SECOND) == ("NOW", 600_000)


def test_a_quota_gets_its_units_back_in_any_case(store):
    take(store, [{QUOTA: 60}], token="mine")
    take(store, [{QUOTA: 40}], token="other")
    store.give_back([({QUOTA: 60}, START)], "mine")
    assert take(store, [{QUOTA: 60}, {QUOTA: 1}])[0] == ("NOW", 0)


# Quotas.


def reset(time=START):
    """When what is used now is free again, since ``START``."""
    return time // HOUR * HOUR + 25 * HOUR - START


def test_what_exceeds_the_quota_waits_for_its_reset(store):
    got = take(store, [{QUOTA: 1}] * 150)
    assert Counter(got) == {("NOW", 0): 100, ("LATER", reset()): 50}
    assert DAY <= reset() <= 25 * HOUR


def test_at_the_reset_the_quota_is_free(store, clock):
    take(store, [{QUOTA: 1}] * 150)
    clock.advance(reset() - MINUTE)
    assert take_one(store, QUOTA) == ("LATER", reset())
    clock.advance(MINUTE)
    assert take(store, [{QUOTA: 1}] * 100) == [("NOW", reset())] * 100


def test_a_quota_never_lets_more_through_in_any_day(store, clock):
    granted = []
    for _ in range(60):
        granted += [clock.now] * [turn for turn, _ in take(store, [{QUOTA: 1}] * 40)].count("NOW")
        clock.advance(47 * MINUTE)
    assert all(bisect_left(granted, at + DAY) - bisect_left(granted, at) <= 100 for at in granted)
    assert len(granted) == 200


def test_the_quota_comes_back_hour_by_hour(store, clock):
    first = reset(clock.now)
    take(store, [{QUOTA: 70}])
    clock.advance(HOUR)
    second = reset(clock.now)
    take(store, [{QUOTA: 30}])
    got = take(store, [{QUOTA: 1}] * 101)
    assert Counter(got) == {("LATER", first): 70, ("LATER", second): 31}


def test_a_handover_larger_than_the_quota_goes_when_nothing_was_used(store):
    assert take(store, [{QUOTA: 500}, {QUOTA: 1}]) == [("NOW", 0), ("LATER", reset())]


def test_nothing_that_waits_for_the_quota_moves_the_line_of_the_rate(store):
    take(store, [{TEN: 1, QUOTA: 100}] + [{TEN: 1, QUOTA: 1}] * 50)
    assert take_one(store, TEN, patience=0) == ("LATER", 100_000)


# Holds and the brake.


def test_a_held_provider_gives_nothing_until_the_hold_ends(store, clock):
    store.hold(PROVIDER.key, MINUTE)
    assert take_one(store, PROVIDER, TEN) == ("LATER", MINUTE)
    clock.advance(MINUTE)
    assert take_one(store, PROVIDER, TEN) == ("NOW", MINUTE)


def test_a_longer_hold_stays(store):
    store.hold(PROVIDER.key, MINUTE)
    store.hold(PROVIDER.key, SECOND)
    assert take_one(store, PROVIDER) == ("LATER", MINUTE)


def test_a_hold_that_ends_within_reach_is_waited_for(store):
    store.hold(PROVIDER.key, 200_000)
    assert take_one(store, PROVIDER, within=300_000) == ("NOW", 200_000)


def distance(store, bucket, clock):
    """How long after one hand-over the next may come, once the bucket is at rest."""
    clock.advance(MINUTE)
    take_one(store, bucket)
    _, at = take_one(store, bucket)
    return at - (clock.now - START)


def test_a_complaint_halves_the_rate(store, clock):
    store.slow_down(DOMAIN.key)
    assert take(store, [{DOMAIN: 1}] * 3) == [("NOW", 0), ("SOON", 2 * SECOND), ("SOON", 4 * SECOND)]


def test_complaints_of_one_moment_are_one(store):
    for _ in range(5):
        store.slow_down(DOMAIN.key)
    assert take(store, [{DOMAIN: 1}] * 2)[1] == ("SOON", 2 * SECOND)


def test_further_complaints_slow_down_further(store, clock):
    for _ in range(3):
        store.slow_down(DOMAIN.key)
        clock.advance(11 * SECOND)
    assert 5 * SECOND < distance(store, DOMAIN, clock) < 7 * SECOND


def test_a_domain_is_never_slowed_below_the_floor(store, clock):
    for _ in range(30):
        store.slow_down(DOMAIN.key)
        clock.advance(10 * SECOND)
    clock.advance(-10 * SECOND)
    take_one(store, DOMAIN)
    _, at = take_one(store, DOMAIN)
    assert at - (clock.now - START) <= SECOND / FLOOR


def test_the_rate_grows_back(store, clock):
    store.slow_down(DOMAIN.key)
    clock.advance(RECOVERY // 4 - MINUTE)
    assert distance(store, DOMAIN, clock) == -(-SECOND * 4 // 3)
    clock.advance(RECOVERY // 4)
    assert distance(store, DOMAIN, clock) == SECOND


def test_a_domain_without_a_rate_is_slowed_from_ten_per_second_and_then_free_again(store, clock):
    store.slow_down(OPEN_DOMAIN.key)
    assert take(store, [{OPEN_DOMAIN: 1}] * 2) == [("NOW", 0), ("SOON", 200_000)]
    clock.advance(RECOVERY // 2)
    assert {turn for turn, _ in take(store, [{OPEN_DOMAIN: 1}] * 50)} == {"NOW"}


def test_while_slowed_there_are_no_bursts(store):
    bucket = Bucket("@b", interval=100_000, tolerance=500_000)
    store.slow_down(bucket.key)
    assert [turn for turn, _ in take(store, [{bucket: 1}] * 3)] == ["NOW", "SOON", "SOON"]


# Connections.


def test_no_more_connections_than_places(store):
    assert [store.connect("c", token, 2, MINUTE) for token in "abc"] == [True, True, False]


def test_a_released_place_is_free(store):
    store.connect("c", "a", 1, MINUTE)
    store.release("c", "a")
    store.release("c", "a")
    assert store.connect("c", "b", 1, MINUTE)


def test_a_renewed_lease_lasts(store, clock):
    store.connect("c", "a", 1, MINUTE)
    clock.advance(MINUTE - 1)
    assert store.connect("c", "a", 1, MINUTE)
    clock.advance(MINUTE - 1)
    assert not store.connect("c", "b", 1, MINUTE)


def test_the_place_of_a_killed_worker_is_free_when_its_lease_ends(store, clock):
    store.connect("c", "killed", 1, MINUTE)
    clock.advance(MINUTE)
    assert store.connect("c", "b", 1, MINUTE)
    assert not store.connect("c", "killed", 1, MINUTE)


# The promise about any window, and that Lua and Python agree.

PROMISED = Bucket("b", interval=20_000, tolerance=80_000, bookable=True)  # 50/s, with a burst of 5


@given(st.lists(st.tuples(st.integers(0, 300_000), st.integers(1, 30), st.integers(0, 300_000)), max_size=60))
def test_no_second_has_more_than_the_rate_and_its_burst(steps):
    clock = Clock()
    store = ProcessBuckets(clock)
    granted = []
    for i, (pause, wanted, within) in enumerate(steps):
        clock.advance(pause)
        _, verdicts = store.take([{PROMISED: 1}] * wanted, within, 0, str(i))
        mine = [v.at for v in verdicts if v.turn == Turn.NOW]
        unused = mine[len(mine) // 2 :] if pause % 2 else []
        store.give_back([({PROMISED: 1}, at) for at in unused], str(i))
        granted += mine[: len(mine) - len(unused)]
    assert all(bisect_left(granted, at + SECOND) - bisect_left(granted, at) <= 50 + 5 for at in granted)


BUCKETS = [PROVIDER, TEN, SLOW, QUOTA, DOMAIN, OPEN_DOMAIN, PROMISED]
ASKS = st.lists(
    st.dictionaries(st.sampled_from(BUCKETS), st.integers(1, 40), min_size=1, max_size=4), max_size=12
)
STEPS = st.one_of(
    st.tuples(st.just("advance"), st.integers(0, 3 * HOUR)),
    st.tuples(st.just("take"), ASKS, st.integers(0, 2 * SECOND), st.integers(0, MINUTE)),
    st.tuples(st.just("give_back"), st.integers(0, 3)),
    st.tuples(st.just("hold"), st.sampled_from([PROVIDER, TEN]), st.integers(0, 10 * SECOND)),
    st.tuples(st.just("slow_down"), st.sampled_from([DOMAIN, OPEN_DOMAIN, TEN])),
)


@given(st.lists(STEPS, max_size=15))
def test_the_script_says_what_the_rules_say(broker, steps):
    clock = Clock()
    stores = [ProcessBuckets(clock), in_redis(broker, clock)]
    spent = []
    for i, (step, *arguments) in enumerate(steps):
        if step == "advance":
            clock.advance(*arguments)
        elif step == "take":
            expected, got = (store.take(*arguments, str(i)) for store in stores)
            assert got == expected
            asks = arguments[0]
            spent = [(a, v.at) for a, v in zip(asks, got[1], strict=True) if v.turn == Turn.NOW]
            token = str(i)
        elif step == "give_back" and spent:
            for store in stores:
                store.give_back(spent[arguments[0] :], token)
            spent = []
        elif step in ("hold", "slow_down"):
            bucket, *more = arguments
            for store in stores:
                getattr(store, step)(bucket.key, *more)


# Each one's own: in the process.


def test_threads_share_a_process_store():
    assert granted_by_threads(ProcessBuckets()) <= 11


def granted_by_threads(store, threads=4):
    """How many of many asks in about a second were granted, of a rate of 10 per second."""
    granted = []
    end = time.monotonic() + 0.95

    def ask():
        while time.monotonic() < end:
            granted.extend(v for v in store.take([{TEN: 1}], 0, 0, "t")[1] if v.turn == Turn.NOW)

    workers = [threading.Thread(target=ask) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return len(granted)


def test_a_look_tells_what_is_in_use_and_takes_nothing(store):
    store.hold(PROVIDER.key, 5 * SECOND)
    take(store, [{SLOW: 2}, {QUOTA: 7}], within=SECOND)
    store.slow_down(DOMAIN.key)
    store.connect("esp connections", "a", 2, MINUTE)
    keys = [PROVIDER.key, SLOW.key, QUOTA.key, DOMAIN.key, "esp connections", "never heard of"]
    now, levels = store.look(keys)
    assert now == START
    assert [level.tat - START for level in list(levels.values())[:2]] == [5 * SECOND, 2 * MINUTE]
    assert [levels[key].used for key in keys] == [0, 0, 7, 0, 0, 0]
    assert [levels[key].places for key in keys] == [0, 0, 0, 0, 1, 0]
    assert levels[DOMAIN.key].pace == 0.5
    assert store.look(keys) == (now, levels)


def test_a_look_forgets_what_is_over(store, clock):
    take(store, [{QUOTA: 7}])
    store.connect("esp connections", "a", 2, MINUTE)
    clock.advance(26 * HOUR)
    _, levels = store.look([QUOTA.key, "esp connections"])
    assert (levels[QUOTA.key].used, levels["esp connections"].places) == (0, 0)


def test_idle_buckets_are_forgotten(clock):
    store = ProcessBuckets(clock)
    for i in range(2 * TIDY_EVERY):
        take_one(store, Bucket(f"@{i}"))
    assert len(store._states) <= TIDY_EVERY


# In the database.


def test_a_slice_takes_two_queries(db, clock, django_assert_num_queries):
    store = DatabaseBuckets(clock)
    asks = [{PROVIDER: 1, TEN: 1, QUOTA: 1, Bucket(f"@{i}"): 1} for i in range(50)]
    take(store, asks)
    # Beside begin and commit, here a savepoint's; and SQLite has to write something to lock.
    with django_assert_num_queries(4 if connection.features.has_select_for_update else 5):
        take(store, asks, within=MINUTE)


def test_without_anything_to_count_it_takes_one(db, clock, django_assert_num_queries):
    store = DatabaseBuckets(clock)
    with django_assert_num_queries(1):
        take(store, [{PROVIDER: 1, Bucket(f"@{i}"): 1} for i in range(50)])


def test_only_what_counts_has_a_row(db, clock):
    take(DatabaseBuckets(clock), [{PROVIDER: 1, TEN: 1, OPEN_DOMAIN: 1}])
    assert [row.key for row in rows.Bucket.objects.all()] == [TEN.key]


def test_a_key_of_any_length_has_a_row(db, clock):
    store = DatabaseBuckets(clock)
    longest = [Bucket("@" + letter * 300, interval=SECOND) for letter in "ab"]
    take_one(store, *longest)
    assert take_one(store, longest[1]) == ("SOON", SECOND)


def test_rows_that_say_nothing_any_more_are_deleted(db, clock):
    store = DatabaseBuckets(clock)
    take(store, [{TEN: 1}])
    take(store, [{QUOTA: 1}])
    later = moment(clock.now + 2 * HOUR)
    assert rows.delete_expired_buckets(later, 10) == 1
    assert [str(row) for row in rows.Bucket.objects.all()] == [QUOTA.key]


# In Redis.


def test_the_clock_is_the_servers(broker):
    now, _ = in_redis(broker).take([{TEN: 1}], 0, 0, "t")
    assert abs(now / SECOND - time.time()) < 5


def test_threads_share_a_redis_store(broker):
    assert granted_by_threads(in_redis(broker)) <= 11


def test_a_server_that_forgot_the_script_gets_it_again(broker, clock):
    store = in_redis(broker, clock)
    take_one(store, TEN)
    broker.client().script_flush()
    assert take_one(store, TEN) == ("SOON", 100_000)


def test_every_key_goes_away_by_itself(broker, clock):
    store = in_redis(broker, clock)
    take(store, [{TEN: 1, QUOTA: 1}])
    take(store, [{SLOW: 1}] * 5)
    store.hold(PROVIDER.key, SECOND)
    store.slow_down(DOMAIN.key)
    store.connect("c", "a", 1, MINUTE)
    client = broker.client()
    keys = client.keys()
    assert len(keys) == 6
    assert all(key.decode().startswith(PREFIX) and 0 < client.pttl(key) <= 26 * 3_600_000 for key in keys)


def test_old_hours_of_a_quota_are_forgotten(broker, clock):
    store = in_redis(broker, clock)
    for _ in range(60):
        take_one(store, QUOTA)
        clock.advance(HOUR)
    assert broker.client().hlen(PREFIX + QUOTA.key) <= 26


# While Redis does not answer.


class Seconds:
    now = 0.0

    def __call__(self):
        return self.now


class Broken:
    """A store behind which nobody answers."""

    asked = 0

    def __getattr__(self, name):
        def fail(*arguments):
            self.asked += 1
            raise redis.ConnectionError("redis://:secret@example.com")

        return fail


@pytest.fixture
def seconds():
    return Seconds()


@pytest.fixture
def fallback(clock, seconds):
    return Fallback(Broken(), ProcessBuckets(clock), redis.RedisError, seconds)


def test_without_redis_mail_goes_on_at_a_part_of_the_rate(fallback):
    got = take(fallback, [{PROVIDER: 1, TEN: 1}] * 2)
    assert got == [("NOW", 0), ("SOON", SHARE * 100_000)]


def test_without_redis_a_part_of_the_quota_is_used(fallback):
    got = take(fallback, [{QUOTA: 1}] * 20)
    assert Counter(turn for turn, _ in got) == {"NOW": 100 // SHARE, "LATER": 20 - 100 // SHARE}


def test_without_redis_the_provider_can_be_throttled_and_slowed(fallback):
    fallback.hold(PROVIDER.key, MINUTE)
    fallback.slow_down(OPEN_DOMAIN.key)
    assert take_one(fallback, PROVIDER) == ("LATER", MINUTE)
    assert [turn for turn, _ in take(fallback, [{OPEN_DOMAIN: 1}] * 2)] == ["NOW", "SOON"]


def test_without_redis_there_is_at_least_one_connection(fallback):
    assert [fallback.connect("c", token, 5, MINUTE) for token in "ab"] == [True, False]
    fallback.release("c", "a")
    assert fallback.connect("c", "b", 5, MINUTE)


def test_a_failing_redis_is_left_alone_for_a_while(fallback, seconds):
    for _ in range(3):
        take_one(fallback, TEN)
    assert fallback._shared.asked == 1
    seconds.now += PAUSE
    take_one(fallback, TEN)
    assert fallback._shared.asked == 2


def test_the_log_says_so_once_a_minute_without_the_url(fallback, seconds, caplog):
    for _ in range(15):
        take_one(fallback, TEN)
        seconds.now += PAUSE
    assert len(caplog.records) == 1 + 15 * PAUSE // WARN_EVERY
    assert "ConnectionError" in caplog.text
    assert "secret" not in caplog.text


def test_what_was_taken_here_is_given_back_here(clock, seconds):
    shared, local = ProcessBuckets(clock), ProcessBuckets(clock)
    shared.take([{QUOTA: 50}], 0, 0, "before")
    fallback = Fallback(Broken(), local, redis.RedisError, seconds)
    fallback.take([{QUOTA: 10}], 0, 0, "mine")
    fallback._shared, seconds.now = shared, PAUSE
    fallback.give_back([({QUOTA: 10}, START)], "mine")
    assert sum(shared._states[QUOTA.key].hours.values()) == 50
    assert sum(local._states[QUOTA.key].hours.values()) == 0


def test_when_redis_is_back_it_is_used_again(clock, seconds):
    with private_broker() as broker:
        fallback = Fallback(in_redis(broker, clock), ProcessBuckets(clock), redis.RedisError, seconds)
        broker.stop()
        take(fallback, [{TEN: 1}] * 2)
        broker.start()
        seconds.now += PAUSE
        assert take(fallback, [{TEN: 1}] * 2)[1] == ("SOON", 100_000)


def test_the_rules_know_when_a_state_says_nothing_any_more():
    state = rules.State()
    assert state.useful_until() == 0
    state.leases["a"] = START
    assert state.useful_until() == START
    rules.slow_down(state, START)
    assert state.useful_until() == START + RECOVERY
    state.hours[str(START // HOUR)] = 1
    assert state.useful_until() == START // HOUR * HOUR + 25 * HOUR
