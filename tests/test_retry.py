"""The verdict on an attempt as a table: no database, no Celery, no clock."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_mailer import options
from celery_mailer.log.retry import SAFE_REPETITIONS, Situation, judge, wait
from celery_mailer.models.transitions import DEFER, DEFER_FREE, DOUBT, REJECT, SENT
from celery_mailer.values import WAITING, Kind, OnUncertain, Outcome, RetryPolicy

NONE = timedelta(0)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
ACCEPTED, DEFERRED, REJECTED, UNCERTAIN = (
    Outcome.ACCEPTED,
    Outcome.DEFERRED,
    Outcome.REJECTED,
    Outcome.UNCERTAIN,
)
RESEND, HOLD = OnUncertain.RESEND, OnUncertain.HOLD
STRATEGIES = ("exponential-jitter", "exponential", "fixed", "random")


def policy(**changes):
    rules = {"max_attempts": 4, "wait": "fixed", "min": MINUTE, "max": HOUR, "give_up_after": DAY}
    return RetryPolicy(**{**rules, **changes})


def verdict(outcome, kind=Kind.NONE, attempts=1, age=NONE, on_uncertain=RESEND, **situation):
    return judge(Situation(outcome, kind, attempts, age, **situation), policy(), on_uncertain)


# What is final.


@pytest.mark.parametrize("attempts", [1, 4, 99])
@pytest.mark.parametrize("age", [NONE, 9 * DAY])
def test_accepted_is_sent_however_late(attempts, age):
    assert verdict(ACCEPTED, attempts=attempts, age=age).move == SENT


def test_accepted_by_all_needs_no_reason():
    assert verdict(ACCEPTED, some_accepted=True).reason == ""


def test_accepted_by_the_last_after_others_were_rejected_says_so():
    assert verdict(ACCEPTED, some_accepted=True, some_rejected=True).reason == "partly_rejected"


@pytest.mark.parametrize("kind", [Kind.SENDER, Kind.RECIPIENT, Kind.CONTENT, Kind.MESSAGE])
def test_rejected_has_failed_with_the_kind_as_reason(kind):
    found = verdict(REJECTED, kind, some_rejected=True)
    assert (found.move, found.reason, found.due_after) == (REJECT, kind, None)


def test_rejected_for_the_rest_of_the_recipients_is_partly_sent():
    found = verdict(REJECTED, Kind.RECIPIENT, some_accepted=True, some_rejected=True)
    assert (found.move, found.reason) == (SENT, "partly_rejected")


# What is tried again.


@pytest.mark.parametrize("kind", [Kind.CONNECTION, Kind.TEMPORARY])
@pytest.mark.parametrize("attempts", [1, 2, 3])
def test_deferred_is_tried_again_after_the_policys_wait(kind, attempts):
    found = verdict(DEFERRED, kind, attempts)
    assert (found.move, found.reason, found.due_after) == (DEFER, kind, MINUTE)


@pytest.mark.parametrize("attempts", [4, 5])
def test_deferred_for_the_last_time_has_failed(attempts):
    found = verdict(DEFERRED, Kind.TEMPORARY, attempts)
    assert (found.move, found.reason, found.due_after) == (REJECT, "gave_up", None)


def test_deferred_for_the_last_time_is_partly_sent_if_some_have_it():
    found = verdict(DEFERRED, Kind.TEMPORARY, 4, some_accepted=True)
    assert (found.move, found.reason) == (SENT, "partly_given_up")


def test_the_next_attempt_may_be_as_late_as_the_time_to_give_up():
    assert verdict(DEFERRED, Kind.TEMPORARY, age=DAY - MINUTE).move == DEFER


def test_the_next_attempt_may_not_be_later_than_the_time_to_give_up():
    found = verdict(DEFERRED, Kind.TEMPORARY, age=DAY - MINUTE + timedelta(seconds=1))
    assert (found.move, found.reason) == (REJECT, "gave_up")


# Faults of the provider's.


@pytest.mark.parametrize("attempts", [1, 4, 99])
def test_a_fault_of_the_providers_costs_no_attempt_and_is_never_one_too_many(attempts):
    found = verdict(DEFERRED, Kind.PROVIDER, attempts)
    assert (found.move, found.reason) == (DEFER_FREE, "provider")
    assert not found.move.counts


def test_a_fault_of_the_providers_that_nobody_mends_in_time_is_given_up():
    assert verdict(DEFERRED, Kind.PROVIDER, age=DAY).reason == "gave_up"


@pytest.mark.parametrize("attempts", [1, 4, 99])
def test_being_throttled_costs_no_attempt(attempts):
    found = verdict(DEFERRED, Kind.THROTTLED, attempts)
    assert (found.move, found.reason, found.due_after) == (DEFER_FREE, "throttled", MINUTE)


# What the provider asked for.

MONTH = 30 * DAY


@pytest.mark.parametrize("kind", [Kind.CONNECTION, Kind.TEMPORARY, Kind.THROTTLED, Kind.PROVIDER])
@pytest.mark.parametrize(
    ("asked", "age", "after"),
    [
        (None, NONE, MINUTE),
        (NONE, NONE, MINUTE),
        (MINUTE / 2, NONE, MINUTE),
        (HOUR, NONE, HOUR),
        (2 * HOUR, NONE, 2 * HOUR),  # longer than the policy's longest
        (MONTH, NONE, DAY),  # not past the time to give up
        (HOUR, DAY - 10 * MINUTE, 10 * MINUTE),
        (HOUR, DAY - MINUTE / 2, None),
        (HOUR, MONTH, None),
    ],
    ids=str,
)
def test_the_delay_is_at_least_what_the_provider_asked_for(kind, asked, age, after):
    assert verdict(DEFERRED, kind, age=age, retry_after=asked).due_after == after


def test_another_provider_did_not_ask_for_it():
    assert verdict(DEFERRED, Kind.THROTTLED, retry_after=HOUR, alternatives=True).due_after == NONE


def test_what_was_asked_for_is_no_way_round_the_last_attempt():
    assert verdict(DEFERRED, Kind.TEMPORARY, 4, retry_after=HOUR).reason == "gave_up"


def repeated(attempts, on_uncertain=RESEND, **rules):
    """The verdict on an attempt that a provider would recognise by its key, and asks for again."""
    case = Situation(DEFERRED, Kind.NO_ANSWER, attempts, NONE, retry_after=MINUTE)
    return judge(case, policy(max_attempts=9, min=HOUR, **rules), on_uncertain)


@pytest.mark.parametrize("attempts", range(1, SAFE_REPETITIONS + 1))
@pytest.mark.parametrize("on_uncertain", [RESEND, HOLD])
def test_a_repetition_comes_while_the_provider_remembers_its_key(attempts, on_uncertain):
    found = repeated(attempts, on_uncertain)
    assert (found.move, found.due_after) == (DEFER, MINUTE)


def test_after_that_it_is_a_doubt_like_any_other():
    found = repeated(SAFE_REPETITIONS + 1)
    assert (found.move, found.reason, found.resend, found.due_after) == (DOUBT, "no_answer", True, HOUR)
    held = repeated(SAFE_REPETITIONS + 1, HOLD)
    assert (held.move, held.resend, held.due_after) == (DOUBT, False, None)


@pytest.mark.parametrize("late", [{"attempts": 4}, {"age": DAY + MINUTE}], ids=["attempts", "age"])
@pytest.mark.parametrize("some_accepted", [False, True])
def test_no_answer_to_the_last_attempt_is_a_doubt_and_not_a_failure(late, some_accepted):
    found = verdict(DEFERRED, Kind.NO_ANSWER, some_accepted=some_accepted, **late)
    assert (found.move, found.reason, found.resend) == (DOUBT, "no_answer", False)


def test_what_a_provider_may_have_by_an_earlier_attempt_has_not_failed():
    found = verdict(DEFERRED, Kind.TEMPORARY, 4, doubted=True)
    assert (found.move, found.reason, found.resend) == (DOUBT, "gave_up", False)


def test_a_provider_that_refuses_what_it_may_have_had_before_has_the_last_word():
    assert verdict(REJECTED, Kind.CONTENT, doubted=True).move == REJECT


# Another provider.


@pytest.mark.parametrize("kind", [Kind.CONNECTION, Kind.TEMPORARY, Kind.PROVIDER, Kind.THROTTLED])
def test_the_next_provider_takes_over_at_once(kind):
    found = verdict(DEFERRED, kind, alternatives=True)
    assert (found.move.target, found.reason, found.due_after) == ("deferred", kind, NONE)


@pytest.mark.parametrize("kind", [Kind.MESSAGE, Kind.NO_ANSWER])
def test_what_may_have_been_taken_or_is_no_fault_of_the_providers_waits_all_the_same(kind):
    assert verdict(DEFERRED, kind, alternatives=True).due_after == MINUTE


@pytest.mark.parametrize("kind", [Kind.NO_ANSWER, Kind.WORKER_LOST])
def test_a_doubt_is_never_handed_on_at_once(kind):
    assert verdict(UNCERTAIN, kind, alternatives=True).due_after == MINUTE


def test_another_provider_is_no_way_round_the_last_attempt():
    assert verdict(DEFERRED, Kind.TEMPORARY, 4, alternatives=True).reason == "gave_up"


def test_the_next_provider_may_be_tried_up_to_the_time_to_give_up():
    assert verdict(DEFERRED, Kind.TEMPORARY, age=DAY, alternatives=True).due_after == NONE
    assert verdict(DEFERRED, Kind.TEMPORARY, age=DAY + MINUTE, alternatives=True).reason == "gave_up"


# Doubt.


@pytest.mark.parametrize("kind", [Kind.NO_ANSWER, Kind.WORKER_LOST])
def test_uncertain_is_sent_again_where_the_stream_says_so(kind):
    found = verdict(UNCERTAIN, kind)
    assert (found.move, found.reason) == (DOUBT, kind)
    assert (found.resend, found.due_after) == (True, MINUTE)


@pytest.mark.parametrize("kind", [Kind.NO_ANSWER, Kind.WORKER_LOST])
def test_uncertain_is_held_where_the_stream_says_so(kind):
    found = verdict(UNCERTAIN, kind, on_uncertain=HOLD)
    assert (found.move, found.reason) == (DOUBT, kind)
    assert (found.resend, found.due_after) == (False, None)


@pytest.mark.parametrize("late", [{"attempts": 4}, {"age": DAY}])
def test_uncertain_for_the_last_time_is_held_and_not_called_failed(late):
    found = verdict(UNCERTAIN, Kind.NO_ANSWER, **late)
    assert (found.move, found.resend) == (DOUBT, False)


def test_uncertain_for_some_is_uncertain_also_if_others_have_it():
    found = verdict(UNCERTAIN, Kind.NO_ANSWER, some_accepted=True, some_rejected=True)
    assert (found.move, found.resend) == (DOUBT, True)


# The whole space.

delays = st.timedeltas(min_value=timedelta(seconds=1), max_value=7 * DAY)
policies = st.builds(
    RetryPolicy,
    max_attempts=st.integers(1, 50),
    wait=st.sampled_from(STRATEGIES),
    min=delays,
    max=delays,
    give_up_after=delays,
)
situations = st.builds(
    Situation,
    outcome=st.sampled_from(Outcome),
    kind=st.sampled_from(Kind),
    attempts=st.integers(1, 60),
    age=st.timedeltas(min_value=NONE, max_value=30 * DAY),
    some_accepted=st.booleans(),
    some_rejected=st.booleans(),
    alternatives=st.booleans(),
    retry_after=st.none() | st.timedeltas(min_value=NONE, max_value=DAY),
    doubted=st.booleans(),
)


@given(situations, policies)
def test_what_is_held_is_never_sent_again(case, rules):
    found = judge(case, rules, HOLD)
    assert not found.resend
    if case.outcome == UNCERTAIN:
        assert (found.move, found.due_after) == (DOUBT, None)


@given(situations, policies, st.sampled_from(OnUncertain))
def test_nothing_is_due_after_the_time_to_give_up(case, rules, on_uncertain):
    found = judge(case, rules, on_uncertain)
    if found.due_after is not None:
        assert case.age + found.due_after <= rules.give_up_after


@given(situations, policies, st.sampled_from(OnUncertain))
def test_a_time_is_given_exactly_for_what_is_tried_again(case, rules, on_uncertain):
    found = judge(case, rules, on_uncertain)
    assert (found.due_after is not None) == (found.move.target in WAITING or found.resend)


@given(situations, policies, st.sampled_from(OnUncertain))
def test_there_are_never_more_attempts_than_allowed_that_count(case, rules, on_uncertain):
    found = judge(case, rules, on_uncertain)
    if found.due_after is not None and case.attempts >= rules.max_attempts:
        assert case.kind in (Kind.PROVIDER, Kind.THROTTLED)


@given(situations, policies, st.sampled_from(OnUncertain))
def test_nobody_who_has_it_makes_it_failed_and_nobody_who_has_it_not_makes_it_sent(case, rules, on_uncertain):
    found = judge(case, rules, on_uncertain)
    if found.move == REJECT:
        assert not case.some_accepted
    if found.move == SENT:
        assert case.some_accepted or case.outcome == ACCEPTED


@given(situations, policies, st.sampled_from(OnUncertain))
def test_a_doubt_is_never_guessed_away(case, rules, on_uncertain):
    found = judge(case, rules, on_uncertain)
    if case.outcome == UNCERTAIN:
        assert found.move == DOUBT
    if case.outcome == DEFERRED and (case.doubted or case.kind == Kind.NO_ANSWER):
        assert found.move.target in ("deferred", "uncertain")


@given(situations, policies, st.sampled_from(OnUncertain))
def test_a_doubt_has_its_reason(case, rules, on_uncertain):
    if judge(case, rules, on_uncertain).move == DOUBT:
        assert case.outcome == UNCERTAIN or case.doubted or case.kind == Kind.NO_ANSWER


# Waits.


@given(policies, st.integers(0, 100_000))
def test_a_wait_is_above_zero_and_at_most_the_longest(rules, attempts):
    assert NONE < wait(rules, attempts) <= rules.max


@given(policies, st.integers(0, 100_000))
def test_a_wait_is_at_least_the_shortest(rules, attempts):
    assert wait(rules, attempts) >= min(rules.min, rules.max)


def test_a_fixed_wait_is_always_the_shortest():
    assert {wait(policy(wait="fixed"), n) for n in range(1, 20)} == {MINUTE}


def test_an_exponential_wait_doubles_until_the_longest():
    rules = policy(wait="exponential")
    assert [wait(rules, n) // MINUTE for n in range(1, 9)] == [1, 2, 4, 8, 16, 32, 60, 60]


def test_a_random_wait_uses_the_whole_range():
    waits = [wait(policy(wait="random"), 1) for _ in range(300)]
    assert min(waits) < 10 * MINUTE
    assert max(waits) > 50 * MINUTE


def test_a_jittered_wait_grows_like_the_exponential_one():
    rules = policy(wait="exponential-jitter")
    for attempts in range(1, 7):
        exponential = wait(policy(wait="exponential"), attempts)
        assert exponential <= wait(rules, attempts) <= exponential + MINUTE / 2


@pytest.mark.parametrize("attempts", [1, 3, 7, 100])
def test_jitter_spreads_what_failed_together_also_at_the_longest_wait(attempts):
    waits = [wait(policy(wait="exponential-jitter"), attempts) for _ in range(300)]
    assert max(waits) - min(waits) > timedelta(seconds=20)


def test_every_strategy_that_can_be_asked_for_is_tested_here():
    assert set(STRATEGIES) == set(options.Wait.__args__)
