"""The door for Celery's users, in this process; tests/e2e/test_canvas.py has the workers."""

from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from django.db import transaction
from django.utils import timezone

from celery_mailer import chain
from celery_mailer.exceptions import InvalidEmail, UnsupportedOption
from celery_mailer.models import Email
from celery_mailer.tasks import HIDDEN, PrivateRequest, send_email
from tests.factories import stored

pytestmark = pytest.mark.django_db

MAIL = {"subject": "s", "message": "m", "recipient_list": ["a@example.com"]}


@pytest.fixture(autouse=True)
def started(monkeypatch):
    calls = []
    monkeypatch.setattr(chain, "start", lambda ids, priority: calls.append((ids, priority)) or True)
    return calls


def test_delay_returns_a_result_whose_id_is_the_emails():
    result = send_email.delay(**MAIL)
    assert Email.objects.get().pk == UUID(result.id)


def test_the_first_arguments_are_those_of_send_mail():
    send_email.delay("subject", "message", "from@example.com", ["a@example.com", "b@example.com"])
    email = Email.objects.get()
    assert email.to == ["a@example.com", "b@example.com"]
    assert (email.content.subject, email.content.text) == ("subject", "message")
    assert email.content.from_email == "from@example.com"


def test_an_unknown_argument_is_refused_at_the_call():
    with pytest.raises(TypeError, match="mesage"):
        send_email.delay(**MAIL, mesage="typo")
    assert not Email.objects.exists()


def test_a_bad_address_is_refused_at_the_call():
    with pytest.raises(InvalidEmail, match="to"):
        send_email.delay(subject="s", message="m", recipient_list=["nonsense"])


def test_eta_becomes_scheduled_at():
    eta = timezone.now() + timedelta(hours=1)
    send_email.apply_async(kwargs=MAIL, eta=eta)
    assert Email.objects.get().scheduled_at == eta


def test_countdown_becomes_scheduled_at():
    before = timezone.now()
    send_email.apply_async(kwargs=MAIL, countdown=60)
    assert timedelta(seconds=60) <= Email.objects.get().scheduled_at - before < timedelta(seconds=70)


@pytest.mark.parametrize("expires", [30, 30.5])
def test_expires_in_seconds_becomes_expires_at(expires):
    before = timezone.now()
    send_email.apply_async(kwargs=MAIL, expires=expires)
    assert timedelta(seconds=30) <= Email.objects.get().expires_at - before < timedelta(seconds=40)


def test_expires_as_a_time_becomes_expires_at():
    at = timezone.now() + timedelta(hours=1)
    send_email.apply_async(kwargs=MAIL, expires=at)
    assert Email.objects.get().expires_at == at


def test_queue_becomes_the_priority_of_that_lane():
    send_email.apply_async(kwargs=MAIL, queue="mail.high")
    assert Email.objects.get().priority == 2


def test_a_queue_that_is_no_lane_is_refused():
    with pytest.raises(UnsupportedOption, match="no lane"):
        send_email.apply_async(kwargs=MAIL, queue="reports")


@pytest.mark.parametrize("option", [{"time_limit": 5}, {"priority": 3}, {"nonsense": 1}])
def test_an_option_that_an_email_cannot_honour_is_refused(option):
    with pytest.raises(UnsupportedOption, match=next(iter(option))):
        send_email.apply_async(kwargs=MAIL, **option)
    assert not Email.objects.exists()


def test_an_option_that_contradicts_an_argument_is_refused():
    with pytest.raises(UnsupportedOption, match="priority"):
        send_email.apply_async(kwargs={**MAIL, "priority": "low"}, queue="mail.high")


def test_the_task_id_is_the_emails_id():
    task_id = str(uuid4())
    assert send_email.apply_async(kwargs=MAIL, task_id=task_id).id == task_id
    assert str(Email.objects.get().pk) == task_id


def test_the_same_task_id_twice_is_one_email(started):
    task_id = "not-a-uuid"
    with transaction.atomic():
        first = send_email.apply_async(kwargs=MAIL, task_id=task_id)
        second = send_email.apply_async(kwargs=MAIL, task_id=task_id)
    assert first.id == second.id
    assert Email.objects.count() == 1


def test_a_call_with_a_link_goes_the_way_of_a_task_with_its_arguments_hidden(monkeypatch):
    sent = []
    monkeypatch.setattr("celery.app.task.Task.apply_async", lambda self, *a, **options: sent.append(options))
    send_email.apply_async(kwargs=MAIL, link=send_email.si(**MAIL))
    assert not Email.objects.exists()
    assert (sent[0]["argsrepr"], sent[0]["kwargsrepr"]) == (HIDDEN, HIDDEN)


def test_a_worker_shows_nobody_the_arguments_of_a_call_by_name():
    from kombu.message import Message

    body = ([], MAIL, {})
    headers = {"id": "1", "task": send_email.name, "kwargsrepr": repr(MAIL), "argsrepr": "('a@example.com',)"}
    message = Message(body, headers=headers, properties={}, delivery_info={})
    request = PrivateRequest(
        message, app=send_email.app, task=send_email, body=body, headers=headers, decoded=True
    )
    shown = f"{request!r} {request.argsrepr} {request.kwargsrepr} {request.info()} {request.info(safe=True)}"
    assert "example.com" not in shown


@pytest.mark.django_db(transaction=True)
class TestCalledDirectly:
    def test_it_sends_before_it_returns(self, mailoutbox):
        email = send_email(**MAIL)
        assert (email.status, email.attempt_count) == ("sent", 1)
        assert [m.subject for m in mailoutbox] == ["s"]

    def test_in_a_transaction_it_sends_at_commit(self, mailoutbox):
        with transaction.atomic():
            email = send_email(**MAIL)
            assert mailoutbox == []
        assert stored(email).status == "sent"
        assert len(mailoutbox) == 1

    def test_in_a_rolled_back_transaction_it_sends_nothing(self, mailoutbox):
        with pytest.raises(LookupError), transaction.atomic():
            send_email(**MAIL)
            raise LookupError
        assert mailoutbox == []
        assert not Email.objects.exists()

    def test_it_cannot_be_scheduled(self):
        with pytest.raises(InvalidEmail, match="scheduled_at"):
            send_email(**MAIL, scheduled_at=timezone.now() + timedelta(days=1))
