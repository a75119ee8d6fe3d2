"""What limits a hand-over, as the settings say it; and which store counts."""

import os
import time
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
import redis
from django.utils import timezone
from kombu import Connection

from celery_mailer import conf
from celery_mailer.deliver import limits
from celery_mailer.deliver.buckets import chosen
from celery_mailer.deliver.buckets.contract import SECOND
from celery_mailer.deliver.buckets.database import DatabaseBuckets
from celery_mailer.deliver.buckets.fallback import Fallback
from celery_mailer.deliver.buckets.process import ProcessBuckets
from celery_mailer.deliver.limits import Turn
from tests.conftest import leave_the_outbox
from tests.servers.broker import private_broker

MINUTE = timedelta(minutes=1)


@pytest.fixture
def configure(settings):
    """Set the rules of the provider ``esp``, and other sections; the outbox is left."""
    leave_the_outbox(settings)

    def _configure(more=None, **rules):
        settings.CELERY_MAILER = {
            "PROVIDERS": {"esp": {"BACKEND": conf.SMTP_BACKEND, **rules}},
            **(more or {}),
        }

    _configure()
    return _configure


@pytest.fixture
def store(monkeypatch):
    """A store of this test's own."""
    store = ProcessBuckets()
    monkeypatch.setattr(limits, "store", lambda: store)
    return store


def to(*addresses):
    return limits.ask("esp", addresses)


# The settings.


def problem(configure, more=None, **rules):
    configure(more, **rules)
    (found,) = conf.problems()
    return found.path, str(found)


@pytest.mark.parametrize("rate", ["14", "14/d", "0/s", "-1/s", "1.5/s", "/s", "14/S", "１４/s", 14, True, ""])
def test_what_is_no_rate_is_a_fault(configure, rate):
    path, words = problem(configure, RATE_LIMIT=rate)
    assert path == "CELERY_MAILER['PROVIDERS']['esp']['RATE_LIMIT']"
    assert "is not a rate. Give a rate such as '14/s', '600/m' or '5000/h'." in words


def test_the_fault_in_a_list_of_rates_is_named(configure):
    path, _ = problem(configure, RATE_LIMIT=["14/s", "600/min"])
    assert path == "CELERY_MAILER['PROVIDERS']['esp']['RATE_LIMIT'][1]"


def test_the_fault_in_a_domains_rate_is_named(configure):
    path, _ = problem(configure, {"DOMAIN_LIMITS": {"example.com": "5"}})
    assert path == "CELERY_MAILER['DOMAIN_LIMITS']['example.com']"


@pytest.mark.parametrize("domain", ["a@example.com", "Example.com", "bücher.example"])
def test_what_is_no_domain_is_a_fault(configure, domain):
    path, words = problem(configure, {"DOMAIN_LIMITS": {domain: "5/s"}})
    assert path == f"CELERY_MAILER['DOMAIN_LIMITS'][{domain!r}]"
    assert "is not a domain in lower case and ASCII." in words


@pytest.mark.parametrize("rules", [{"DAILY_QUOTA": 0}, {"DAILY_QUOTA": "100"}, {"MAX_CONNECTIONS": 0}])
def test_quota_and_connections_are_positive_numbers(configure, rules):
    assert problem(configure, **rules)[0] == f"CELERY_MAILER['PROVIDERS']['esp'][{next(iter(rules))!r}]"


def test_a_url_that_is_not_of_redis_is_a_fault_and_stays_secret(configure):
    path, words = problem(configure, {"REDIS_URL": "amqp://u:hunter2@mq.example.com"})
    assert path == "CELERY_MAILER['REDIS_URL']"
    assert "hunter2" not in words


def test_the_redis_url_is_not_in_the_settings_repr(configure):
    configure({"REDIS_URL": "redis://:hunter2@redis.example.com"})
    assert "hunter2" not in repr(conf.get())


def test_rates_are_read(configure):
    configure({"DOMAIN_LIMITS": {"example.com": "5/s"}}, RATE_LIMIT=["14/s", "600/m"])
    assert [str(rate) for rate in conf.get().providers["esp"].rate_limit] == ["14/s", "600/m"]
    assert conf.get().domain_limits == {"example.com": (5, 1)}
    configure(RATE_LIMIT="5000/h")
    assert conf.get().providers["esp"].rate_limit == ((5000, 3600),)


# What one hand-over takes.


def by_key(ask):
    return {bucket.key: (bucket, units) for bucket, units in ask.items()}


def test_a_handover_takes_units_of_all_its_limits(configure):
    configure({"DOMAIN_LIMITS": {"example.com": "5/s"}}, RATE_LIMIT=["14/s", "600/m"], DAILY_QUOTA=50_000)
    taken = by_key(to("a@example.com", "b@Example.com", "c@example.org"))
    assert {key: units for key, (_, units) in taken.items()} == {
        "esp": 3,
        "esp 14/s": 3,
        "esp 600/m": 3,
        "esp daily quota": 3,
        "@example.com": 2,
        "esp @example.com": 2,
        "@example.org": 1,
        "esp @example.org": 1,
    }
    assert {key for key, (bucket, _) in taken.items() if bucket.bookable} == {
        "esp",
        "esp 14/s",
        "esp 600/m",
        "esp daily quota",
    }


@pytest.mark.parametrize(
    ("rate", "interval", "tolerance"),
    [
        ("50/s", 20_000, 80_000),  # a burst of 5: four more than one at once
        ("14/s", 71_429, 71_429),  # a burst of 1: whatever came late by one interval
        ("4/s", 250_000, 100_000),
        ("1/m", 60 * SECOND, 100_000),
        ("600/m", 100_000, 5_900_000),
        ("5000/h", 720_000, 499 * 720_000),
    ],
)
def test_a_rate_becomes_an_interval_and_a_tolerance(configure, rate, interval, tolerance):
    configure(RATE_LIMIT=rate)
    bucket, _ = by_key(to("a@example.com"))[f"esp {rate}"]
    assert (bucket.interval, bucket.tolerance) == (interval, tolerance)


def test_a_raised_quota_counts_on(configure):
    configure(DAILY_QUOTA=100)
    before = set(by_key(to("a@example.com")))
    configure(DAILY_QUOTA=200)
    assert set(by_key(to("a@example.com"))) == before


def test_a_provider_that_left_the_settings_can_still_be_asked_for(configure, store):
    assert limits.take([limits.ask("gone", ["a@example.com"])], 0)[0].turn == Turn.NOW


def test_in_a_projects_tests_nothing_is_limited(settings):
    settings.CELERY_MAILER = {"PROVIDERS": {"esp": {"BACKEND": conf.SMTP_BACKEND, "RATE_LIMIT": "1/h"}}}
    slots = limits.take([to("a@example.com")] * 50, 0)
    assert {slot.turn for slot in slots} == {Turn.NOW}
    limits.give_back(slots)


# Slots.


def test_slots_say_when_by_both_clocks(configure, store):
    configure(RATE_LIMIT="10/s")
    before, here = timezone.now(), time.monotonic()
    slots = limits.take([to("a@example.com")] * 5, within=1)
    assert [slot.turn for slot in slots] == [Turn.NOW] * 5
    assert slots[4].at - slots[1].at == timedelta(seconds=0.3)
    assert slots[4].ready - slots[1].ready == pytest.approx(0.3)
    assert before <= slots[0].at <= timezone.now()
    assert here <= slots[0].ready <= time.monotonic()


def test_a_slot_is_stale_a_tenth_of_a_second_after_its_time(configure, store):
    configure(RATE_LIMIT="1/m")
    slot, waiting = limits.take([to("a@example.com")] * 2, 0)
    assert not replace(slot, ready=slot.ready + 60).stale
    assert replace(slot, ready=slot.ready - 0.2).stale
    assert not replace(waiting, ready=slot.ready - 0.2).stale


def test_times_are_naive_without_use_tz(configure, store, settings):
    settings.USE_TZ = False
    before = timezone.now()
    (slot,) = limits.take([to("a@example.com")], 0)
    assert slot.at.tzinfo is None
    assert before <= slot.at <= timezone.now()


def test_who_waits_is_told_for_what(configure, store):
    configure({"DOMAIN_LIMITS": {"example.com": "1/m"}}, RATE_LIMIT="10/s")
    asks = [to("a@example.com"), to("b@example.com"), to("c@example.org"), to("d@example.org")]
    slots = limits.take(asks, within=0)
    assert [slot.turn for slot in slots] == [Turn.NOW, Turn.LATER, Turn.NOW, Turn.SOON]
    assert [slot.limit for slot in slots] == ["", "@example.com", "", "esp 10/s"]


def test_150_emails_and_a_quota_of_100(configure):
    """100 today, 50 at the reset; what is given back can be used today."""
    start = datetime(2026, 3, 1, 15, 20, tzinfo=UTC)
    store = ProcessBuckets(lambda: int(start.timestamp()) * SECOND)
    configure(RATE_LIMIT="1000/s", DAILY_QUOTA=100)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "store", lambda: store)
        slots = limits.take([to(f"u{i}@example.com") for i in range(150)], within=10)
        assert Counter(slot.turn for slot in slots) == {Turn.NOW: 100, Turn.LATER: 50}
        resets = {(slot.at, slot.limit) for slot in slots if slot.turn == Turn.LATER}
        assert resets == {(datetime(2026, 3, 2, 16, tzinfo=UTC), "esp daily quota")}
        limits.give_back(slots[90:])
        again = limits.take([to(f"u{i}@example.com") for i in range(11)], within=10)
        assert [slot.turn for slot in again] == [Turn.NOW] * 10 + [Turn.LATER]


def test_slots_of_several_calls_are_given_back_together(configure, store):
    configure(DAILY_QUOTA=10)
    slots = [slot for _ in range(2) for slot in limits.take([to("a@example.com")] * 5, 0)]
    limits.give_back(slots)
    assert [s.turn for s in limits.take([to("a@example.com")] * 10, 0)] == [Turn.NOW] * 10


def test_what_goes_now_may_wait_for_ever_and_books_a_day_at_most(configure, store):
    configure(RATE_LIMIT="1/h")
    slots = limits.take([to("a@example.com")] * 50, within=float("inf"))
    assert Counter(slot.turn for slot in slots) == {Turn.NOW: 25, Turn.LATER: 25}


# Throttled.


def test_a_throttled_provider_waits_and_others_do_not(configure, store):
    limits.throttle("esp", MINUTE)
    asks = [to("a@example.com"), limits.ask("other", ["a@example.com"])]
    slots = limits.take(asks, within=1)
    assert [(slot.turn, slot.limit) for slot in slots] == [(Turn.LATER, "esp"), (Turn.NOW, "")]
    assert timedelta(0) <= timezone.now() + MINUTE - slots[0].at < timedelta(seconds=5)


def test_a_domain_can_be_throttled_at_one_provider(configure, store):
    limits.throttle("esp", MINUTE, "Example.com")
    asks = [to("a@example.com"), to("a@example.org"), limits.ask("other", ["a@example.com"])]
    assert [slot.turn for slot in limits.take(asks, 0)] == [Turn.LATER, Turn.NOW, Turn.NOW]


def test_a_slowed_domain_waits_and_others_do_not(configure, store):
    limits.slow_down("Example.com")
    slots = limits.take([to("a@example.com"), to("b@example.com"), to("a@example.org")], 0)
    assert [slot.turn for slot in slots] == [Turn.NOW, Turn.SOON, Turn.NOW]
    assert slots[1].limit == "@example.com"


# Connections.


def test_connections_are_counted_per_provider(configure, store):
    configure(MAX_CONNECTIONS=2)
    tokens = [limits.connect("esp") for _ in range(3)]
    assert [token is not None for token in tokens] == [True, True, False]
    assert limits.connect("other") is not None
    limits.release("esp", tokens[0])
    assert limits.connect("esp") is not None
    assert limits.renew("esp", tokens[1])
    assert not limits.renew("esp", tokens[0])


def test_without_a_limit_nobody_is_asked(configure, monkeypatch):
    monkeypatch.setattr(limits, "store", None)
    token = limits.connect("esp")
    assert limits.renew("esp", token)
    limits.release("esp", token)


# Which store.


@pytest.fixture
def broker_url(monkeypatch):
    """Set the Celery app's broker."""

    def set_url(url, broker_use_ssl=None):
        app = SimpleNamespace(connection_for_write=lambda: Connection(url, ssl=broker_use_ssl or False))
        monkeypatch.setattr(chosen, "current_app", app)
        chosen._after_fork()

    yield set_url
    chosen._after_fork()


def client(store):
    assert isinstance(store, Fallback)
    return store._shared._script.registered_client


def test_without_redis_it_is_the_database(configure, broker_url):
    broker_url("memory://")
    assert isinstance(chosen.store(), DatabaseBuckets)


@pytest.mark.parametrize("url", ["sentinel://a.example.com", "redis+socket:///tmp/redis.sock"])
def test_a_broker_that_has_no_plain_url_is_not_used(configure, broker_url, url):
    broker_url(url)
    assert isinstance(chosen.store(), DatabaseBuckets)


def test_a_broker_that_is_redis_is_used(configure, broker_url):
    broker_url("redis://:p%40ss@redis.example.com:6380/3")
    arguments = client(chosen.store()).connection_pool.connection_kwargs
    assert [arguments[k] for k in ("host", "port", "db", "password")] == [
        "redis.example.com",
        6380,
        3,
        "p@ss",
    ]


@pytest.mark.parametrize(
    ("url", "tls"),
    [
        ("rediss://redis.example.com/1?ssl_cert_reqs=CERT_NONE", None),
        ("redis://redis.example.com/1", {"ssl_cert_reqs": "none"}),
    ],
)
def test_a_broker_over_tls_is_used_over_tls(configure, broker_url, url, tls):
    broker_url(url, broker_use_ssl=tls)
    pool = client(chosen.store()).connection_pool
    assert issubclass(pool.connection_class, redis.SSLConnection)
    assert pool.make_connection().cert_reqs == 0


def test_the_setting_goes_before_the_broker(configure, broker_url):
    broker_url("redis://broker.example.com")
    configure({"REDIS_URL": "redis://limits.example.com"})
    assert client(chosen.store()).connection_pool.connection_kwargs["host"] == "limits.example.com"


def test_one_store_per_process_and_settings(configure, broker_url):
    broker_url("memory://")
    first = chosen.store()
    assert chosen.store() is first
    configure(DAILY_QUOTA=1)
    assert chosen.store() is not first


def test_a_forked_child_has_a_store_of_its_own(configure, broker_url):
    broker_url("memory://")
    first = chosen.store()
    child = os.fork()
    if not child:
        os._exit(chosen.store() is first)
    assert os.waitpid(child, 0)[1] == 0
    assert chosen.store() is first


def test_a_server_that_restarts_is_used_again_at_once(configure):
    with private_broker() as broker:
        configure({"REDIS_URL": broker.url}, RATE_LIMIT="1/m")
        limits.take([to("a@example.com")], 0)
        broker.stop()
        broker.start()
        slots = limits.take([to("a@example.com")] * 2, 0)
        assert [slot.turn for slot in slots] == [Turn.NOW, Turn.LATER]
        assert broker.client().exists("{celery_mailer}:esp 1/m")


def test_a_server_that_hangs_does_not_hold_up_mail(configure, caplog):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        configure({"REDIS_URL": f"redis://127.0.0.1:{silent.getsockname()[1]}"})
        start = time.monotonic()
        assert limits.take([to("a@example.com")], 0)[0].turn == Turn.NOW
        assert time.monotonic() - start < 30  # half a second; but a busy machine stalls
    assert "no limits from Redis (TimeoutError)" in caplog.text


# What people see of them.


def test_usage_tells_each_limit_of_a_provider_in_the_words_of_the_settings(configure, store):
    configure(RATE_LIMIT=["1/m", "14/s"], DAILY_QUOTA=50, MAX_CONNECTIONS=2)
    limits.take([to("a@example.com")], 0)
    limits.connect("esp")
    (usage,) = limits.usage(["esp"]).values()
    assert [(u.limit, u.used, u.most, bool(u.until)) for u in usage] == [
        ("1/m", 0, 0, True),
        ("14/s", 0, 0, False),
        ("daily quota", 1, 50, False),
        ("connections", 1, 2, False),
    ]


def test_usage_tells_of_a_provider_that_asked_to_be_left_alone(configure, store):
    assert limits.usage(["esp"]) == {"esp": []}
    limits.throttle("esp", MINUTE)
    (usage,) = limits.usage(["esp"])["esp"]
    assert usage.limit == "throttle"
    assert usage.until > timezone.now() + MINUTE / 2


def test_usage_is_not_known_while_redis_does_not_answer(configure, monkeypatch):
    class Dead:
        def look(self, keys):
            raise redis.ConnectionError

    dead = Fallback(Dead(), ProcessBuckets(), redis.RedisError)
    monkeypatch.setattr(limits, "store", lambda: dead)
    assert limits.usage(["esp"]) is None
