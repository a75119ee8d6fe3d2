"""Which providers an email may go by, in which order: tables, and what attempts say about it."""

from collections import Counter
from datetime import timedelta
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_mailer import conf
from celery_mailer.deliver.routes import candidates, drawn
from celery_mailer.models import Email, ProviderState
from celery_mailer.models.provider import Past, State, not_closed, past_of
from tests.factories import make_attempt, make_email

DUMMY = {"BACKEND": "django.core.mail.backends.dummy.EmailBackend"}
PROVIDERS = dict.fromkeys(("first", "second", "third"), DUMMY)


@pytest.fixture
def configure(settings):
    def _configure(**sections):
        settings.CELERY_MAILER = {"PROVIDERS": PROVIDERS, **sections}

    return _configure


def an_email(**values):
    return Email(**{"priority": 1, "stream": "transactional", "to": ["a@example.com"], **values})


# Whose routes.


def test_without_routes_it_is_the_default_provider(configure):
    configure()
    assert candidates(an_email()) == ["first"]
    configure(PROVIDERS={"other": DUMMY, "default": DUMMY})
    assert candidates(an_email()) == ["default"]


def test_the_projects_routes_in_their_order(configure):
    configure(ROUTES=["third", "first"])
    assert candidates(an_email()) == ["third", "first"]


def test_the_streams_routes_go_before_the_projects(configure):
    configure(ROUTES=["first"], STREAMS={"marketing": {"ROUTES": ["second"]}})
    assert candidates(an_email(stream="marketing")) == ["second"]
    assert candidates(an_email()) == ["first"]


def test_the_domains_routes_go_before_the_streams(configure):
    streams = {"transactional": {"ROUTES": ["second"]}}
    configure(STREAMS=streams, DOMAIN_ROUTES={"example.com": ["third", "first"]})
    assert candidates(an_email()) == ["third", "first"]
    assert candidates(an_email(to=["a@other.example"])) == ["second"]


def test_an_email_that_names_its_provider_has_no_other(configure):
    configure(ROUTES=["first", "second"], DOMAIN_ROUTES={"example.com": ["third"]})
    assert candidates(an_email(provider="second")) == ["second"]


@pytest.mark.parametrize(
    ("recipients", "by_domain"),
    [
        ({"to": ["A@EXAMPLE.com", "Bo <b@example.com>"], "bcc": ["c@Example.Com"]}, True),
        ({"to": ["a@example.com"], "cc": ["b@other.example"]}, False),
        ({"to": ["a@sub.example.com"]}, False),
        ({"to": []}, False),
        ({"to": ["no address"]}, False),
    ],
)
def test_a_domain_counts_if_all_recipients_are_there(configure, recipients, by_domain):
    configure(ROUTES=["first"], DOMAIN_ROUTES={"example.com": ["second"]})
    assert candidates(an_email(**recipients)) == ["second" if by_domain else "first"]


def test_a_domain_in_another_script_is_written_in_ascii(configure):
    configure(DOMAIN_ROUTES={"xn--bcher-kva.example": ["second"]})
    assert candidates(an_email(to=["a@bücher.example"])) == ["second"]


def test_a_stream_that_is_no_longer_configured_goes_by_the_projects_routes(configure):
    configure(ROUTES=["second"])
    assert candidates(an_email(stream="gone")) == ["second"]


def test_a_provider_that_is_listed_twice_is_tried_once(configure):
    configure(ROUTES=["first", "second", "first"])
    assert candidates(an_email()) == ["first", "second"]


# What was tried before.


def test_those_that_failed_least_often_come_first(configure):
    configure(ROUTES=["first", "second", "third"])
    assert candidates(an_email(), Past({"first": 1})) == ["second", "third", "first"]
    assert candidates(an_email(), Past({"first": 2, "second": 1, "third": 1})) == ["second", "third", "first"]
    assert candidates(an_email(), Past({"first": 1, "second": 1, "third": 1})) == ["first", "second", "third"]


def test_who_may_have_it_is_the_only_one_to_be_asked_again(configure):
    configure(ROUTES=["first", "second"])
    assert candidates(an_email(), Past({"second": 3}, doubt="second")) == ["second"]


@pytest.mark.parametrize("gone", ["removed", ""])
def test_a_doubt_about_a_provider_that_is_gone_binds_nobody(configure, gone):
    configure(ROUTES=["first", "second"])
    assert candidates(an_email(), Past({}, doubt=gone)) == ["first", "second"]


ATTEMPTS = [
    ("deferred", "connection", {"first": 1}, ""),
    ("deferred", "temporary", {"first": 1}, ""),
    ("deferred", "provider", {"first": 1}, ""),
    ("deferred", "throttled", {"first": 1}, ""),
    ("deferred", "message", {}, ""),  # a storage that does not answer is no provider's failure
    ("deferred", "no_answer", {}, "first"),  # it knows the key that went with it
    ("uncertain", "no_answer", {}, "first"),
    ("uncertain", "worker_lost", {}, "first"),
    ("rejected", "recipient", {}, ""),
    ("accepted", "", {}, ""),
]


@pytest.mark.django_db
@pytest.mark.parametrize(("outcome", "kind", "failures", "doubt"), ATTEMPTS)
def test_what_an_attempt_says_about_who_may_try_next(outcome, kind, failures, doubt):
    email = make_email()
    make_attempt(email, uuid4(), outcome, kind=kind, provider="first")
    assert past_of([email.pk]) == {email.pk: Past(failures, doubt)}


@pytest.mark.django_db
def test_a_doubt_outlives_later_failures_and_each_email_has_its_own_past(django_assert_num_queries):
    email, other = make_email(), make_email()
    make_attempt(email, uuid4(), "uncertain", kind="no_answer", provider="second")
    make_attempt(email, uuid4(), "deferred", kind="connection", provider="second")
    make_attempt(other, uuid4(), "deferred", kind="connection", provider="first")
    with django_assert_num_queries(1):
        past = past_of([email.pk, other.pk])
    assert past[email.pk] == Past({"second": 1}, "second")
    assert past[other.pk] == Past({"first": 1}, "")


def test_nothing_is_asked_about_no_email(django_assert_num_queries, db):
    with django_assert_num_queries(0):
        assert past_of([]) == {}


@pytest.mark.django_db
def test_open_and_half_open_breakers_are_not_closed():
    now = make_email().created_at
    ProviderState.objects.create(alias="closed")
    ProviderState.objects.create(alias="open", state=State.OPEN, retry_at=now)
    ProviderState.objects.create(alias="half", state=State.HALF_OPEN, trial=uuid4(), trial_until=now)
    assert not_closed() == {"open", "half"}


# Weights.

weights = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 1000), min_size=1)


@given(weights, st.uuids())
def test_the_draw_is_an_order_of_all_and_always_the_same(weights, key):
    order = drawn(weights, key)
    assert sorted(order) == sorted(weights)
    assert drawn(dict(reversed(weights.items())), key) == order


@given(weights, st.uuids())
def test_who_leaves_changes_the_order_of_no_others(weights, key):
    order = drawn(weights, key)
    rest = {alias: weight for alias, weight in weights.items() if alias != order[0]}
    assert drawn(rest, key) == order[1:]


def test_the_first_is_drawn_by_weight_and_its_share_falls_to_the_others_by_theirs():
    orders = [drawn({"a": 6, "b": 3, "c": 1}, uuid4()) for _ in range(4000)]
    first = Counter(order[0] for order in orders)
    after_a = Counter(order[1] for order in orders if order[0] == "a")
    assert first["a"] == pytest.approx(2400, abs=200)
    assert first["b"] == pytest.approx(1200, abs=200)
    assert after_a["b"] == pytest.approx(first["a"] * 3 / 4, abs=150)


def test_weights_in_the_settings(configure):
    configure(ROUTES={"first": 1, "second": 99})
    emails = [an_email() for _ in range(200)]
    assert Counter(candidates(email)[0] for email in emails)["second"] > 180
    assert all(candidates(email) == candidates(email) for email in emails)


# The settings.


@pytest.mark.parametrize(
    ("sections", "path", "fault"),
    [
        ({"ROUTES": ["fist"]}, "['ROUTES']", "names the unknown provider 'fist'."),
        ({"ROUTES": {"fist": 1}}, "['ROUTES']", "names the unknown provider 'fist'."),
        ({"ROUTES": {"first": 0}}, "['ROUTES']['first']", "is not valid."),
        ({"ROUTES": {"first": -1}}, "['ROUTES']['first']", "is not valid."),
        ({"ROUTES": {"first": True}}, "['ROUTES']['first']", "is not valid (bool)."),
        ({"ROUTES": {"first": 0.5}}, "['ROUTES']['first']", "is not valid (float)."),
        ({"ROUTES": "first"}, "['ROUTES']", "is not valid (str)."),
        ({"ROUTES": ["first", 5]}, "['ROUTES']", "is not valid (list)."),
        ({"ROUTES": None}, "['ROUTES']", "is not valid (NoneType)."),
        (
            {"STREAMS": {"marketing": {"ROUTES": ["x"]}}},
            "['STREAMS']['marketing']['ROUTES']",
            "names the unknown provider 'x'.",
        ),
        (
            {"DOMAIN_ROUTES": {"example.com": {"x": 1}}},
            "['DOMAIN_ROUTES']['example.com']",
            "names the unknown provider 'x'.",
        ),
        (
            {"DOMAIN_ROUTES": {"example.com": "first"}},
            "['DOMAIN_ROUTES']['example.com']",
            "is not valid (str).",
        ),
        (
            {"DOMAIN_ROUTES": {"Example.com": ["first"]}},
            "['DOMAIN_ROUTES']['Example.com']",
            "is not a domain in lower case and ASCII.",
        ),
        (
            {"DOMAIN_ROUTES": {"@example.com": ["first"]}},
            "['DOMAIN_ROUTES']['@example.com']",
            "is not a domain in lower case and ASCII.",
        ),
        ({"DOMAIN_ROUTES": {"": ["first"]}}, "['DOMAIN_ROUTES']['']", "is not a name."),
        ({"DOMAIN_ROUTES": ["first"]}, "['DOMAIN_ROUTES']", "is not valid (list)."),
    ],
)
def test_a_fault_in_the_routes_is_named(configure, sections, path, fault):
    configure(**sections)
    (problem,) = conf.problems()
    assert (problem.path, problem.fault) == (f"CELERY_MAILER{path}", fault)


def test_a_near_miss_is_guessed(configure):
    configure(ROUTES=["fist"])
    assert conf.problems()[0].hint == "Did you mean 'first'?"


@pytest.mark.parametrize("routes", [["first", "third"], ("first",), {"first": 1, "second": 2}, [], {}])
def test_routes_are_a_list_or_weights(configure, routes):
    configure(ROUTES=routes, DOMAIN_ROUTES={"example.com": routes}, STREAMS={"x": {"ROUTES": routes}})
    assert conf.problems() == ()


def test_a_stream_may_leave_its_routes_to_the_project(configure):
    configure(STREAMS={"x": {"ROUTES": None, "RETENTION": timedelta(days=1)}}, ROUTES=["third"])
    assert candidates(an_email(stream="x")) == ["third"]
