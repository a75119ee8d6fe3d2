"""What answers say about how fast we may send."""

from datetime import timedelta
from types import SimpleNamespace

import pytest
from django.utils import timezone

from celery_mailer.deliver import limits, pressure
from celery_mailer.values import Kind, Outcome, Phase, Reply, Result, everyone

READY = SimpleNamespace(slot=object())


@pytest.fixture
def told(monkeypatch):
    """What the limits were told, by the name of the function."""
    calls = []
    for name in ("throttle", "slow_down", "give_back"):
        monkeypatch.setattr(limits, name, lambda *args, name=name: calls.append((name, *args)))
    return calls


def deferred(text, kind=Kind.TEMPORARY, **more):
    return Reply(Outcome.DEFERRED, kind, Phase.RCPT, 451, text, **more)


def learn(result):
    held = {}
    pressure.learn("esp", READY, result, held)
    return held


@pytest.mark.parametrize(
    "text",
    ["4.7.28 Our system has detected an unusual rate", "4.7.0 [TSS04] Messages deferred", "4.7.650 Busy"],
)
def test_a_domain_that_finds_us_too_fast_is_slowed_down(told, text):
    learn(everyone(["a@example.com"], deferred(text)))
    assert told == [("slow_down", "example.com")]


@pytest.mark.parametrize(
    "text",
    ["4.7.1 Greylisted, come back later", "4.7.1 <x>: Recipient address rejected: Graylisting in action",
     "4.2.2 Mailbox full", "Try again", "5.7.1 no"],
)  # fmt: skip
def test_other_refusals_slow_nobody_down(told, text):
    learn(everyone(["a@example.com"], deferred(text)))
    assert told == []


def test_only_the_domain_that_said_so_is_slowed_down(told):
    fine, busy = Reply(Outcome.ACCEPTED), deferred("4.7.28 too fast")
    learn(Result(busy, {"a@one.example": fine, "b@two.example": busy}))
    assert told == [("slow_down", "two.example")]


def closing(phase, text="too many errors"):
    return Reply(Outcome.DEFERRED, Kind.CONNECTION, phase, 421, text)


@pytest.mark.parametrize("phase", [Phase.RCPT, Phase.DATA, Phase.BODY, Phase.DOT])
def test_a_session_that_is_closed_at_a_recipient_slows_its_domain_down(told, phase):
    learn(everyone(["a@example.com"], closing(phase)))
    assert told == [("slow_down", "example.com")]


@pytest.mark.parametrize("phase", [Phase.CONNECT, Phase.LOGIN, Phase.MAIL])
def test_a_session_that_is_closed_before_any_recipient_is_the_providers_affair(told, phase):
    learn(everyone(["a@example.com"], closing(phase)))
    assert told == []


@pytest.mark.parametrize("text", ["4.3.2 System shutting down", "4.4.2 Timeout"])
def test_a_server_that_speaks_of_itself_slows_no_domain_down(told, text):
    learn(everyone(["a@example.com"], closing(Phase.RCPT, text)))
    assert told == []


def test_of_several_domains_a_closed_session_does_not_tell_which_it_was(told):
    learn(everyone(["a@one.example", "b@two.example"], closing(Phase.RCPT)))
    assert told == []


@pytest.mark.parametrize("code", [450, 451, 452])
def test_another_code_at_a_recipient_slows_nobody_down(told, code):
    reply = Reply(Outcome.DEFERRED, Kind.TEMPORARY, Phase.RCPT, code, "later")
    learn(everyone(["a@example.com"], reply))
    assert told == []


def test_a_provider_that_is_too_busy_is_left_alone_for_as_long_as_it_says(told):
    wait = timedelta(minutes=3)
    reply = deferred("slow down", Kind.THROTTLED, retry_after=wait)
    held = learn(everyone(["a@example.com"], reply))
    assert told == [("throttle", "esp", wait)]
    assert timedelta(minutes=2) < held["esp"].until - timezone.now() <= wait
    assert held["esp"].reason == "throttled"


def test_a_provider_that_does_not_say_how_long_gets_half_a_minute(told):
    learn(everyone(["a@example.com"], deferred("slow down", Kind.THROTTLED)))
    assert told == [("throttle", "esp", timedelta(seconds=30))]


def test_a_slot_that_was_of_no_use_is_given_back(told):
    learn(everyone(["a@example.com"], deferred("unreachable", Kind.CONNECTION), usable=False))
    assert told == [("give_back", [READY.slot])]
