"""Mail that was queued one by one, and waits: one task takes it along."""

from datetime import timedelta
from types import SimpleNamespace

import pytest
from django.utils import timezone

from celery_mailer import chain, conf, periodic
from celery_mailer.enqueue import enqueue
from celery_mailer.models import Email
from celery_mailer.models.transitions import CANCEL, CLAIM, POSTPONE, move
from celery_mailer.render import task, together
from celery_mailer.values import EmailRequest, Priority, Status
from tests.factories import make_emails

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def busy(monkeypatch):
    """The lane is busy: this process was asked for a single email just now."""
    lately = together._Lately()
    lately.busy()
    monkeypatch.setattr(together, "_lately", lately)
    monkeypatch.setattr(together, "BUSY", 60.0)  # a busy machine stalls
    return lately


def singles(number, **arguments):
    """Emails that were queued one by one, in a transaction that is not committed: no chain starts."""
    values = {"to": "a@example.com", "subject": "s", "message": "m", **arguments}
    return [enqueue([EmailRequest(**values)])[0].pk for _ in range(number)]


def gather(own):
    return together.gather(own, Priority.MEDIUM)


def test_the_first_takes_along_what_waits_with_it():
    ids = singles(4)
    assert gather(ids[0]) == ids


def test_what_went_along_does_not_go_again():
    first, second, third = singles(3)
    gather(first)
    assert gather(second) == []
    assert gather(third) == []


def test_who_took_others_along_is_not_stopped_when_it_is_repeated():
    first, *_ = singles(3)
    gather(first)
    assert gather(first) == [first]


def test_on_an_idle_system_nobody_is_asked(busy, django_assert_num_queries):
    busy.at = float("-inf")
    first, _ = singles(2)
    with django_assert_num_queries(0):
        assert gather(first) == [first]


def test_a_slice_holds_no_more_than_a_batch(settings):
    settings.CELERY_MAILER = {"BATCH_SIZE": 3}
    ids = singles(5)
    assert gather(ids[0]) == ids[:3]


@pytest.mark.parametrize(
    "arguments",
    [
        {"priority": "high"},
        {"priority": "low"},
        {"scheduled_at": timedelta(hours=1)},
    ],
    ids=lambda arguments: next(iter(arguments)) + "-" + str(next(iter(arguments.values()))),
)
def test_what_is_of_another_lane_or_has_its_time_stays(arguments):
    arguments = {k: timezone.now() + v if isinstance(v, timedelta) else v for k, v in arguments.items()}
    (first,) = singles(1)
    singles(1, **arguments)
    assert gather(first) == [first]


def test_a_bulk_call_goes_in_slices_of_its_own():
    (first,) = singles(1)
    enqueue([EmailRequest(to="a@example.com", subject="s", message="m")] * 2, as_batch=True)
    assert gather(first) == [first]


def test_an_email_whose_chain_somebody_waits_for_is_left_to_it():
    (first,) = singles(1)
    make_emails(1)  # its caller starts it
    assert gather(first) == [first]


@pytest.mark.parametrize("how", [CLAIM, CANCEL], ids=lambda how: how.name)
def test_what_is_done_ends_its_chain_with_the_first_task(how):
    (first,) = singles(1)
    lease = {"lease_until": timezone.now()} if how is CLAIM else {}
    move([first], how, **lease)
    assert gather(first) == []


def test_what_waits_for_longer_than_a_lease_goes_along_too():
    first, late = singles(2)
    Email.objects.filter(pk=late).update(due_at=timezone.now())
    assert gather(first) == [first, late]


def test_a_retry_is_left_to_the_dispatcher():
    first, late = singles(2)
    move([late], POSTPONE, due_at=timezone.now())
    assert gather(first) == [first]


def test_what_went_along_with_a_task_that_was_lost_is_dispatched(monkeypatch):
    first, second = singles(2)
    gather(first)
    Email.objects.filter(pk=second).update(due_at=timezone.now())  # a lease later
    started = []
    monkeypatch.setattr(chain, "start", lambda ids, priority: started.extend(ids) or True)
    monkeypatch.setattr(periodic, "outstanding", lambda queue: 0)
    periodic.dispatch()
    assert started == [second]
    assert second in gather(second)


def test_a_mark_changes_no_status_and_no_time():
    first, second = singles(2)
    before = Email.objects.get(pk=second)
    gather(first)
    after = Email.objects.get(pk=second)
    assert (after.status, after.due_at) == (Status.QUEUED, before.due_at)
    assert after.reason == "together"


class TestTask:
    @staticmethod
    def request(ids):
        steps = [{"task": "log", "args": [ids]}, {"task": "deliver", "args": [ids]}]
        return SimpleNamespace(delivery_info={"routing_key": conf.get().queues.medium}, chain=steps)

    def test_tells_what_is_left_of_the_chain_of_the_company(self):
        ids = [str(pk) for pk in singles(3)]
        request = self.request(ids[:1])
        assert task._company(request, ids[:1]) == ids
        assert [step["args"] for step in request.chain] == [[ids], [ids]]

    def test_ends_the_chain_of_what_went_along(self):
        first, second = map(str, singles(2))
        task._company(self.request([first]), [first])
        request = self.request([second])
        assert task._company(request, [second]) == []
        assert request.chain is None

    def test_leaves_the_chain_of_who_goes_alone_as_it_is(self):
        ids = [str(pk) for pk in singles(1)]
        request = self.request(ids)
        assert task._company(request, ids) == ids
        assert [step["args"] for step in request.chain] == [[ids], [ids]]

    def test_takes_nobody_along_in_a_queue_that_is_no_lane(self):
        ids = [str(pk) for pk in singles(2)]
        request = self.request(ids[:1])
        request.delivery_info = {"routing_key": "elsewhere"}
        assert task._company(request, ids[:1]) == ids[:1]
