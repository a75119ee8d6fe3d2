"""The provider that answers by address."""

from datetime import timedelta

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from django.core.mail import EmailMessage

from celery_mailer.deliver import providers
from celery_mailer.deliver.providers.simulator import EmailBackend, SimulatorProvider
from celery_mailer.deliver.slice import deliver_emails
from celery_mailer.log.settle import settle_emails
from celery_mailer.options import Provider
from celery_mailer.values import Kind, Outcome, Status
from tests.conftest import leave_the_outbox
from tests.factories import make_email, stored

BACKEND = "celery_mailer.deliver.providers.simulator.EmailBackend"


def send(*words, slow=5.0, timeout=10, sleep=None, message=None):
    """What the simulator says of one message to ``word@simulator.test`` for each of ``words``."""
    recipients = [word if "@" in word else f"{word}@simulator.test" for word in words]
    provider = SimulatorProvider("test", EmailBackend(slow=slow), Provider(), sleep or no_sleep)
    assert provider.open(timeout) is None
    message = message or EmailMessage("s", "b", "shop@example.com", recipients)
    return provider.send(message, recipients, timeout)


def no_sleep(seconds):
    raise AssertionError("nothing here takes time")


@pytest.fixture
def simulated(settings):
    settings.CELERY_MAILER = {"PROVIDERS": {"default": {"BACKEND": BACKEND, "OPTIONS": {"slow": 0.01}}}}
    leave_the_outbox(settings)
    yield
    providers.close_all()


ANSWERS = [
    ("deliver", Outcome.ACCEPTED, Kind.NONE, True),
    ("anybody", Outcome.ACCEPTED, Kind.NONE, True),
    ("bounce", Outcome.REJECTED, Kind.RECIPIENT, True),
    ("bounce+42", Outcome.REJECTED, Kind.RECIPIENT, True),
    ("bounce-42", Outcome.REJECTED, Kind.RECIPIENT, True),
    ("Bounce", Outcome.REJECTED, Kind.RECIPIENT, True),
    ("bouncer", Outcome.ACCEPTED, Kind.NONE, True),
    ("bounce@example.com", Outcome.ACCEPTED, Kind.NONE, True),
    ("defer", Outcome.DEFERRED, Kind.TEMPORARY, True),
    ("uncertain", Outcome.UNCERTAIN, Kind.NO_ANSWER, True),
    ("refuse-content", Outcome.REJECTED, Kind.CONTENT, True),
    ("refuse-content+1", Outcome.REJECTED, Kind.CONTENT, True),
    ("throttle", Outcome.DEFERRED, Kind.THROTTLED, False),
    ("provider-down", Outcome.DEFERRED, Kind.CONNECTION, False),
]


@pytest.mark.parametrize(("word", "outcome", "kind", "usable"), ANSWERS)
def test_the_address_decides(word, outcome, kind, usable):
    result = send(word)
    assert (result.summary.outcome, result.summary.kind, result.usable) == (outcome, kind, usable)


def test_a_throttling_provider_says_how_long():
    assert send("throttle").summary.retry_after == timedelta(minutes=1)


def test_each_recipient_has_an_answer_of_its_own():
    result = send("deliver", "bounce", "defer")
    assert [r.outcome for r in result.recipients.values()] == ["accepted", "rejected", "deferred"]


def test_a_provider_that_is_down_for_one_recipient_is_asked_for_the_next_email():
    assert send("provider-down", "deliver").usable


def test_a_slow_provider_takes_its_time_once():
    slept = []
    result = send("slow", "slow+2", slow=3, sleep=slept.append)
    assert (result.summary.outcome, slept) == (Outcome.ACCEPTED, [3])


def test_a_provider_slower_than_there_is_time_leaves_a_doubt():
    slept = []
    result = send("slow", "deliver", slow=30, timeout=10, sleep=slept.append)
    assert [r.outcome for r in result.recipients.values()] == [Outcome.UNCERTAIN, Outcome.ACCEPTED]
    assert slept == [10]


def test_a_message_that_cannot_be_written_is_rejected():
    result = send("deliver", message=EmailMessage("a\nb", "b", "shop@example.com", ["a@example.com"]))
    assert (result.summary.outcome, result.summary.kind) == (Outcome.REJECTED, Kind.MESSAGE)


def test_a_time_limit_passes_through():
    class Late(EmailMessage):
        def message(self, **kwargs):
            raise SoftTimeLimitExceeded

    with pytest.raises(SoftTimeLimitExceeded):
        send("deliver", message=Late())


def test_for_django_itself_it_counts_those_that_somebody_gets():
    lists = (["a@example.com"], ["bounce@simulator.test"], [])
    messages = [EmailMessage("s", "b", "shop@example.com", to) for to in lists]
    assert EmailBackend().send_messages(messages) == 1


@pytest.mark.usefixtures("simulated")
def test_the_registry_makes_it_of_its_backend():
    assert isinstance(providers.get("default"), SimulatorProvider)


@pytest.mark.django_db
@pytest.mark.usefixtures("simulated")
@pytest.mark.parametrize(
    ("word", "status", "reason"),
    [
        ("deliver", Status.SENT, ""),
        ("slow", Status.SENT, ""),
        ("bounce", Status.FAILED, "recipient"),
        ("refuse-content", Status.FAILED, "content"),
        ("defer", Status.DEFERRED, "temporary"),
        ("provider-down", Status.DEFERRED, "connection"),
        ("throttle", Status.DEFERRED, "throttled"),
    ],
)
def test_an_email_comes_to_what_its_address_says(word, status, reason):
    email = make_email(to=f"{word}@simulator.test")
    deliver_emails([email.pk])
    settle_emails([email.pk])
    assert (stored(email).status, stored(email).reason) == (status, reason)
