"""The circuit breaker: its rules as tables, and what several workers make of one row."""

import itertools
import logging
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext
from hypothesis import given
from hypothesis import strategies as st

from celery_mailer import conf
from celery_mailer.deliver import breaker as b
from celery_mailer.deliver.breaker import Breakers, Held, Passage
from celery_mailer.deliver.pauses import Pauses
from celery_mailer.models import ProviderChange, ProviderState
from celery_mailer.models.pause import pause, resume
from celery_mailer.models.provider import State
from celery_mailer.values import Kind, Outcome, Phase, Reply, Result

NOW = datetime(2030, 1, 1, tzinfo=UTC)
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
LEASE = 3 * MINUTE
ALIAS = "default"

OK = Result(Reply(Outcome.ACCEPTED))
DOWN = Result(
    Reply(Outcome.DEFERRED, Kind.CONNECTION, Phase.CONNECT, text="connection refused"), usable=False
)
REFUSED = Result(
    Reply(Outcome.DEFERRED, Kind.PROVIDER, Phase.LOGIN, 535, "5.7.8 shop@example.com: no"), usable=False
)
THROTTLED = Result(
    Reply(Outcome.DEFERRED, Kind.THROTTLED, code=429, text="slow down", retry_after=2 * MINUTE), usable=False
)
BOUNCED = Result(Reply(Outcome.REJECTED, Kind.RECIPIENT, Phase.RCPT, 550, "no such user"))


class Clock:
    def __init__(self):
        self.now = NOW

    def __call__(self):
        return self.now

    def go_on(self, time):
        self.now += time


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def worker(clock, db):
    """Makes the breakers of one more worker process."""
    return lambda: Breakers(clock, lambda: 0.0, Pauses())


@pytest.fixture
def breakers(worker):
    return worker()


def enter(breakers, wanted=1):
    return breakers.enter(ALIAS, wanted)


def hand_over(breakers, result):
    """One hand-over with this result, if there is leave for it."""
    passage = enter(breakers)
    assert isinstance(passage, Passage), passage
    until = breakers.note(passage, result)
    breakers.leave(passage)
    return until


def fail(breakers, times=5, result=DOWN):
    for _ in range(times):
        hand_over(breakers, result)


def row():
    return ProviderState.objects.get(alias=ALIAS)


def log():
    rows = ProviderChange.objects.order_by("id")
    return [(r.from_state, r.to_state, r.reason) for r in rows]


def state(**values):
    defaults = {"alias": ALIAS, "since": NOW, "counted_at": NOW}
    return ProviderState(**{**defaults, **values})


def open_state(**values):
    return state(**{"state": State.OPEN, "openings": 1, "retry_at": NOW + 10 * SECOND, **values})


def half_open(**values):
    defaults = {"state": State.HALF_OPEN, "openings": 1, "trial": uuid4(), "trial_until": NOW + LEASE}
    return state(**{**defaults, **values})


def admitted(row, now=NOW, wanted=50, chance=0.0):
    return b.admitted(row, wanted=wanted, now=now, lease=LEASE, chance=chance)


# What is a fault of the provider's.


@pytest.mark.parametrize(
    ("result", "is_fault"),
    [
        (OK, False),
        (BOUNCED, False),
        (Result(Reply(Outcome.DEFERRED, Kind.TEMPORARY, Phase.RCPT, 450)), False),
        (Result(Reply(Outcome.REJECTED, Kind.CONTENT, Phase.DOT, 554)), False),
        (Result(Reply(Outcome.UNCERTAIN, Kind.NO_ANSWER)), False),  # a backend that does not count
        (Result(Reply(Outcome.UNCERTAIN, Kind.NO_ANSWER, Phase.DOT)), True),
        (Result(Reply(Outcome.UNCERTAIN, Kind.NO_ANSWER), usable=False), True),
        (Result(Reply(Outcome.DEFERRED, Kind.CONNECTION, Phase.BODY)), True),
        (Result(Reply(Outcome.DEFERRED, Kind.TEMPORARY, code=451), usable=False), True),
        (DOWN, True),
        (REFUSED, True),
        (THROTTLED, False),
    ],
)
def test_a_fault_of_the_providers_is_told_from_one_of_the_emails(result, is_fault):
    assert b.fault_of(result) == (result.summary if is_fault else None)


# How long it rests.


@pytest.mark.parametrize(
    ("openings", "seconds"), [(1, 10), (2, 20), (3, 40), (4, 80), (5, 160), (6, 300), (99, 300)]
)
def test_the_rest_doubles_up_to_the_longest(openings, seconds):
    assert b.rest(openings, DOWN.summary, 0.0) == seconds * SECOND


def test_the_rest_is_jittered():
    assert b.rest(1, DOWN.summary, 0.0) < b.rest(1, DOWN.summary, 0.5) < b.rest(1, DOWN.summary, 1.0)


def test_what_a_person_must_mend_rests_for_five_minutes():
    assert {b.rest(n, REFUSED.summary, 0.5) for n in (1, 2, 9)} == {5 * MINUTE}


def test_the_provider_itself_may_say_how_long():
    asked = Reply(Outcome.DEFERRED, Kind.CONNECTION, code=503, retry_after=2 * MINUTE)
    assert b.rest(1, asked, 0.5) == 2 * MINUTE


def test_it_is_asked_again_within_an_hour_whatever_it_says():
    asked = Reply(Outcome.DEFERRED, Kind.CONNECTION, retry_after=timedelta(days=900))
    assert b.rest(1, asked, 0.0) == HOUR


# Admission.


def test_a_closed_breaker_lets_all_through_and_writes_nothing():
    assert admitted(state()) == (None, Passage(ALIAS, 50))


def test_an_open_one_holds_until_it_is_to_be_tried():
    assert admitted(open_state()) == (None, Held(NOW + 10 * SECOND))


def test_what_is_held_comes_back_at_different_times():
    waits = [admitted(open_state(), chance=chance)[1].until for chance in (0.0, 0.5, 1.0)]
    assert waits == [NOW + n * SECOND for n in (10, 12.5, 15)]


def test_an_open_one_whose_time_has_come_gives_a_trial_for_one_mail():
    step, passage = admitted(open_state(), now=NOW + 10 * SECOND)
    assert (passage.most, passage.token) == (1, step.values["trial"])
    assert (step.values["state"], step.reason) == ("half_open", "trial")
    assert step.values["trial_until"] == NOW + 10 * SECOND + LEASE


def test_a_half_open_one_holds_all_others():
    step, held = admitted(half_open(), now=NOW + SECOND)
    assert (step, held) == (None, Held(NOW + 3 * SECOND))


def test_the_longer_a_trial_takes_the_less_often_it_is_looked_at():
    assert admitted(half_open(), now=NOW + 40 * SECOND)[1] == Held(NOW + 80 * SECOND)
    assert admitted(half_open(), now=NOW + LEASE - SECOND)[1] == Held(NOW + LEASE)


def test_a_trial_whose_lease_ran_out_is_somebody_elses():
    before = half_open()
    step, passage = admitted(before, now=NOW + LEASE)
    assert (step.reason, step.values["trial"]) == ("trial_lost", passage.token)
    assert passage.token != before.trial


@pytest.mark.parametrize(("seconds", "room"), [(0, 10), (3, 20), (6, 40), (15, 320), (29.9, 10_009)])
def test_after_closing_the_first_are_let_in_by_count(seconds, room):
    closed = state(openings=1)
    step, passage = admitted(closed, now=NOW + seconds * SECOND, wanted=100_000)
    assert passage.most == step.values["let_in"]
    assert passage.most == pytest.approx(room, rel=0.01)


def test_those_let_in_before_count():
    closed = state(openings=1, let_in=8)
    step, passage = admitted(closed)
    assert (passage.most, step.values["let_in"]) == (2, 10)


@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
def test_those_for_whom_there_is_no_room_wait_within_the_ramp(chance):
    step, held = admitted(state(openings=1, let_in=10), chance=chance)
    assert step is None
    assert NOW + SECOND <= held.until <= NOW + b.RAMP + SECOND


def test_after_the_ramp_all_may_come():
    assert admitted(state(openings=1, let_in=10), now=NOW + b.RAMP) == (None, Passage(ALIAS, 50))


# Opening.


def opened_after(ok, faults):
    before = state(ok=ok, faults=faults - 1)
    step, until = b.counted(before, ok=0, fault=DOWN.summary, usable=False, now=NOW, chance=0)
    assert (until is not None) == (step.values.get("state") == "open")
    return until is not None


@pytest.mark.parametrize(
    ("ok", "faults", "opens"),
    [
        (0, 1, False),
        (0, 4, False),
        (0, 5, True),
        (3, 5, True),
        (4, 5, False),
        (70, 30, False),
        (40, 60, True),
    ],
)
def test_it_opens_on_a_rate_of_more_than_a_few(ok, faults, opens):
    assert opened_after(ok, faults) == opens


def test_old_faults_fade():
    before = state(faults=4.9)
    step, until = b.counted(before, ok=0, fault=DOWN.summary, usable=False, now=NOW + 30 * SECOND, chance=0)
    assert until is None
    assert step.values["faults"] == pytest.approx(1 + 4.9 / 2.718, rel=0.01)


def test_what_the_next_mail_would_only_repeat_opens_it_at_once():
    step, _ = b.counted(state(ok=1000), ok=0, fault=REFUSED.summary, usable=False, now=NOW, chance=0)
    assert (step.values["state"], step.reason) == ("open", "provider")


def test_one_email_that_is_asked_to_log_in_opens_nothing():
    step, until = b.counted(state(), ok=0, fault=REFUSED.summary, usable=True, now=NOW, chance=0)
    assert until is None
    assert "state" not in step.values


@pytest.mark.parametrize("before", [open_state(), half_open()])
@pytest.mark.parametrize("fault", [None, DOWN.summary, REFUSED.summary])
def test_what_was_under_way_when_it_opened_changes_nothing(before, fault):
    step, until = b.counted(before, ok=3, fault=fault, usable=fault is None, now=NOW, chance=0)
    assert step is None
    assert until > NOW


# The trial.


def tried(before, token, fault):
    return b.tried(before, token=token, fault=fault, now=NOW, chance=0.0)


def test_a_good_trial_closes():
    before = half_open()
    step, until = tried(before, before.trial, None)
    assert (step.values["state"], step.reason, until) == ("closed", "trial_ok", None)


def test_a_bad_trial_opens_for_longer():
    before = half_open(openings=2)
    step, until = tried(before, before.trial, DOWN.summary)
    assert (step.values["state"], step.reason, step.values["openings"]) == ("open", "connection", 3)
    assert until == step.values["retry_at"] == NOW + 40 * SECOND


@pytest.mark.parametrize("fault", [None, DOWN.summary])
@pytest.mark.parametrize("now", [half_open(), open_state(), state()])
def test_a_trial_that_lost_its_lease_says_nothing(now, fault):
    assert tried(now, uuid4(), fault) == (None, None)


@pytest.mark.parametrize(("calm", "openings"), [(MINUTE, 4), (6 * MINUTE, 1)])
def test_what_falls_again_soon_goes_on_resting_longer(calm, openings):
    before = state(openings=3, faults=9)
    step, _ = b.counted(before, ok=0, fault=REFUSED.summary, usable=False, now=NOW + calm, chance=0)
    assert step.values["openings"] == openings


faults = st.sampled_from([DOWN, REFUSED]).map(lambda r: r.summary)
rows = st.one_of(
    st.builds(state, openings=st.integers(0, 3), let_in=st.integers(0, 50), faults=st.floats(0, 9)),
    st.builds(open_state, retry_at=st.timedeltas(-HOUR, HOUR).map(lambda t: NOW + t)),
    st.builds(half_open, trial_until=st.timedeltas(-HOUR, HOUR).map(lambda t: NOW + t)),
)


@given(rows, st.one_of(st.none(), faults), st.booleans(), st.floats(0, 1))
def test_whatever_happens_the_row_is_of_one_of_the_three_kinds(before, fault, right, chance):
    token = before.trial if right and before.trial else uuid4()
    steps = [
        b.admitted(before, wanted=5, now=NOW, lease=LEASE, chance=chance)[0],
        b.counted(before, ok=1, fault=fault, usable=fault is None, now=NOW, chance=chance)[0],
        b.tried(before, token=token, fault=fault, now=NOW, chance=chance)[0],
        b.unused(before, token=token, now=NOW)[0],
    ]
    shapes = {"closed": (False, False, False), "open": (True, False, False), "half_open": (False, True, True)}
    for step in filter(None, steps):
        values = {f: getattr(before, f) for f in ("state", "retry_at", "trial", "trial_until")} | step.values
        shape = tuple(values[f] is not None for f in ("retry_at", "trial", "trial_until"))
        assert shapes[values["state"]] == shape


# Several workers, one row.


def test_what_goes_well_costs_no_query(breakers):
    enter(breakers)
    with CaptureQueriesContext(connection) as queries:
        for _ in range(100):
            assert hand_over(breakers, OK) is None
    assert len(queries) == 0
    assert not ProviderState.objects.exists()


def test_the_rows_are_read_once_per_second(breakers, clock):
    enter(breakers)
    clock.go_on(SECOND)
    with CaptureQueriesContext(connection) as queries:
        enter(breakers)
        enter(breakers)
    assert len(queries) == 2  # the breakers and the pauses


def test_a_mail_that_could_not_be_built_says_nothing_about_the_provider(breakers):
    fault = Result(Reply(Outcome.REJECTED, Kind.MESSAGE))
    assert hand_over(breakers, fault) is None
    assert not ProviderState.objects.exists()


def test_being_throttled_opens_nothing_but_says_when_to_come_back(breakers, clock):
    assert [hand_over(breakers, THROTTLED) for _ in range(9)] == [clock.now + 2 * MINUTE] * 9
    assert not ProviderState.objects.exists()


def test_a_trial_that_is_throttled_is_answered(breakers, clock):
    fail(breakers)
    clock.go_on(10 * SECOND)
    hand_over(breakers, THROTTLED)
    assert row().state == "closed"


def test_one_fault_opens_nothing_but_says_when_to_come_back(breakers, clock):
    assert hand_over(breakers, DOWN) == clock.now + b.FIRST
    assert row().state == "closed"
    assert isinstance(enter(breakers), Passage)


def test_faults_of_all_workers_open_it_for_all(worker):
    workers = [worker() for _ in range(5)]
    for one in workers:
        enter(one)  # all have seen it closed
    for one in workers:
        fail(one, 1)
    assert row().state == "open"
    assert log() == [("closed", "open", "connection")]


def test_it_says_what_the_last_fault_was(breakers):
    fail(breakers)
    assert (row().kind, row().text, row().fault_at) == ("connection", "connection refused", NOW)


def test_those_who_read_it_later_know_as_well(worker, clock):
    first, second = worker(), worker()
    enter(second)
    fail(first)
    assert isinstance(enter(second), Passage)
    clock.go_on(SECOND)
    assert enter(second) == Held(NOW + 10 * SECOND)


def test_faults_of_one_host_are_outweighed_by_what_goes_well_elsewhere(worker, clock):
    lame, sound = worker(), worker()
    for _ in range(60):
        clock.go_on(SECOND)
        hand_over(lame, DOWN)
        for _ in range(20):
            hand_over(sound, OK)
    assert row().state == "closed"


def test_one_worker_wins_the_trial_however_many_ask(worker, clock):
    workers = [worker() for _ in range(8)]
    fail(workers[0])
    for one in workers:
        enter(one)
    clock.go_on(10 * SECOND)
    for one in workers:
        one._rows.at(clock.now)  # all have read that its time has come
    answers = [enter(one, 50) for one in workers]
    assert [type(a) for a in answers].count(Passage) == 1
    assert next(a for a in answers if isinstance(a, Passage)).most == 1
    assert log()[1:] == [("open", "half_open", "trial")]


def test_a_good_trial_lets_the_mail_flow_again(breakers, clock):
    fail(breakers)
    clock.go_on(10 * SECOND)
    assert hand_over(breakers, OK) is None
    assert row().state == "closed"
    assert enter(breakers, 50) == Passage(ALIAS, 10)
    assert log() == [
        ("closed", "open", "connection"),
        ("open", "half_open", "trial"),
        ("half_open", "closed", "trial_ok"),
    ]


def test_a_bad_trial_opens_it_again(breakers, clock):
    fail(breakers)
    clock.go_on(10 * SECOND)
    assert hand_over(breakers, DOWN) == clock.now + 20 * SECOND
    assert log()[2:] == [("half_open", "open", "connection")]


def test_a_refused_recipient_is_a_good_answer(breakers, clock):
    fail(breakers)
    clock.go_on(10 * SECOND)
    hand_over(breakers, BOUNCED)
    assert row().state == "closed"


def test_a_trial_that_is_not_used_is_the_next_ones(worker, clock):
    first, second = worker(), worker()
    fail(first)
    clock.go_on(10 * SECOND)
    first.leave(enter(first))
    assert enter(second).token is not None
    assert [reason for *_, reason in log()[1:]] == ["trial", "trial_unused", "trial"]


def test_a_trial_whose_worker_was_killed_is_the_next_ones(worker, clock):
    killed, other = worker(), worker()
    fail(killed)
    clock.go_on(10 * SECOND)
    passage = enter(killed)
    clock.go_on(conf.get().lease)
    assert isinstance(enter(other), Held)
    clock.go_on(conf.get().lease / 2)
    assert enter(other).token not in {None, passage.token}
    assert killed.note(passage, OK) is None  # it lives after all, and comes too late
    assert row().state == "half_open"


def test_leaving_twice_does_nothing(breakers, clock):
    fail(breakers)
    clock.go_on(10 * SECOND)
    passage = enter(breakers)
    breakers.note(passage, OK)
    breakers.leave(passage)
    assert row().state == "closed"


def test_all_workers_together_let_in_what_the_ramp_allows(worker, clock):
    workers = [worker() for _ in range(6)]
    fail(workers[0])
    clock.go_on(10 * SECOND)
    hand_over(workers[0], OK)
    for one in workers:
        one._rows.at(clock.now)
    clock.go_on(timedelta(seconds=0.5))  # all still believe what they have read
    answers = [enter(one, 4) for one in workers]
    assert sum(a.most for a in answers if isinstance(a, Passage)) == 11


def test_each_provider_has_its_own(breakers):
    fail(breakers)
    assert breakers.enter("other", 7) == Passage("other", 7)


def test_when_everybody_is_faster_it_waits(breakers, monkeypatch, clock):
    fail(breakers)
    clock.go_on(10 * SECOND)
    monkeypatch.setattr(Breakers, "_write", lambda *args: False)
    assert enter(breakers) == Held(clock.now + b.SOON)


def test_a_row_that_somebody_deletes_is_a_closed_breaker(breakers, clock):
    fail(breakers)
    ProviderState.objects.all().delete()
    clock.go_on(10 * SECOND)
    assert enter(breakers, 50) == Passage(ALIAS, 50)


@pytest.mark.parametrize(
    "values", [{"state": "half_open"}, {"state": "open"}, {"retry_at": NOW}, {"state": "ajar"}]
)
def test_the_database_refuses_a_state_of_no_kind(db, values):
    with pytest.raises(IntegrityError), transaction.atomic():
        state(**values).save()


# What a person sees and does.


def levels(caplog):
    return [r.levelname for r in caplog.records]


def test_a_refused_login_is_one_error_with_the_servers_words_and_no_address(worker, clock, caplog):
    caplog.set_level(logging.INFO)
    for one in [worker(), worker(), worker()]:
        passage = Passage(ALIAS, 1)
        assert one.note(passage, REFUSED) == clock.now + 5 * MINUTE
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert record.getMessage() == "provider default: open (provider) 535 5.7.8 ...@example.com: no"


def test_while_it_lasts_the_error_is_not_repeated(breakers, clock, caplog):
    fail(breakers, 1, REFUSED)
    for _ in range(5):
        clock.go_on(5 * MINUTE)
        fail(breakers, 1, REFUSED)
    assert levels(caplog).count("ERROR") == 1
    clock.go_on(5 * MINUTE)
    hand_over(breakers, OK)
    fail(breakers, 1, REFUSED)
    assert levels(caplog).count("ERROR") == 2


def test_any_other_outage_is_one_warning(breakers, clock, caplog):
    fail(breakers)
    clock.go_on(10 * SECOND)
    fail(breakers, 1)
    assert levels(caplog).count("WARNING") == 1
    assert "ERROR" not in levels(caplog)


def test_an_outage_that_turns_out_to_need_a_person_is_an_error(breakers, clock, caplog):
    fail(breakers)
    clock.go_on(10 * SECOND)
    fail(breakers, 1, REFUSED)
    assert levels(caplog).count("ERROR") == 1


def test_a_paused_provider_is_not_used(breakers):
    pause("provider", ALIAS, "moving")
    assert enter(breakers) == Held(NOW + MINUTE, "paused")


def test_resuming_a_parked_provider_tries_it_at_once(breakers, clock, monkeypatch):
    fail(breakers, 1, REFUSED)
    clock.go_on(2 * SECOND)
    monkeypatch.setattr("celery_mailer.models.pause.timezone.now", clock)
    resume("provider", ALIAS)
    clock.go_on(SECOND)
    assert hand_over(breakers, OK) is None
    assert row().state == "closed"


# A thousand emails, four workers, a primary that fails and then flaps, and a second provider.


def test_failing_then_flapping_all_go_out_once_and_never_two_trials_at_once(worker, clock):
    dice = random.Random(7)
    workers = [worker() for _ in range(4)]
    started = clock.now
    waiting, delivered, trials = list(range(1000)), Counter(), 0

    def primary():
        rate = 1.0 if clock.now < started + 40 * SECOND else 0.3
        return DOWN if dice.random() < rate else OK

    def turn(breakers, email):
        nonlocal trials
        for alias, answer in ((ALIAS, primary), ("second", lambda: OK)):
            passage = breakers.enter(alias, 1)
            if isinstance(passage, Held):
                continue
            trials += passage.token is not None
            assert passage.token is None or row().trial == passage.token
            result = answer()
            breakers.note(passage, result)
            breakers.leave(passage)
            if result is OK:
                delivered[email] += 1
                return alias
        return None

    by = Counter()
    while waiting:
        clock.go_on(timedelta(seconds=0.1))
        alias = turn(dice.choice(workers), waiting[0])
        if alias:
            by[alias] += 1
            waiting.pop(0)
    changes = log()
    assert set(delivered.values()) == {1}
    assert len(delivered) == 1000
    assert changes[:2] == [("closed", "open", "connection"), ("open", "half_open", "trial")]
    assert ("half_open", "closed", "trial_ok") in changes
    assert all(
        earlier[1] == later[0] for earlier, later in itertools.pairwise(changes)
    )  # so between two trials, one has ended
    assert trials == sum(reason == "trial" for *_, reason in changes)
    assert by[ALIAS] > 100
