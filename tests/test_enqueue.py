from contextlib import closing, suppress

import pytest
from celery import current_app
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

import celery_mailer.enqueue as module
from celery_mailer import chain
from celery_mailer.enqueue import enqueue
from celery_mailer.exceptions import IdempotencyConflict, InvalidEmail
from celery_mailer.models import Content, Email
from celery_mailer.signals import email_queued
from celery_mailer.values import EmailRequest
from tests.factories import make_email

pytestmark = pytest.mark.django_db


def ask(**arguments):
    return EmailRequest(**{"to": "a@example.com", "subject": "s", "message": "m", **arguments})


@pytest.fixture
def started(monkeypatch):
    """What was published: (ids, priority) for each call."""
    calls = []
    monkeypatch.setattr(chain, "start", lambda ids, priority: calls.append((ids, priority)) or True)
    return calls


# PostgreSQL inserts both rows of an email with one.
STATEMENTS = 1 if connection.vendor == "postgresql" else 2


def test_an_email_costs_its_inserts_and_no_more(django_assert_num_queries):
    with transaction.atomic(), django_assert_num_queries(STATEMENTS):
        enqueue([ask()])


def test_an_email_with_an_idempotency_key_costs_one_look_more():
    with transaction.atomic(), CaptureQueriesContext(connection) as queries:
        enqueue([ask(idempotency_key="k")])
    assert len([q for q in queries if "SAVEPOINT" not in q["sql"]]) == STATEMENTS + 1


def test_the_chain_starts_at_commit_and_not_before(started, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks(execute=True):
        (email,) = enqueue([ask(priority="high")])
        assert started == []
    assert started == [([email.pk], 2)]


def test_one_call_starts_one_chain_for_each_priority_the_urgent_first(
    started, django_capture_on_commit_callbacks
):
    with django_capture_on_commit_callbacks(execute=True):
        low, high, low_too = enqueue([ask(priority="low"), ask(priority="high"), ask(priority="low")])
    assert started == [([high.pk], 2), ([low.pk, low_too.pk], 0)]


def test_a_scheduled_email_starts_no_chain(started, django_capture_on_commit_callbacks):
    tomorrow = timezone.now() + timezone.timedelta(days=1)
    with django_capture_on_commit_callbacks(execute=True):
        (email,) = enqueue([ask(scheduled_at=tomorrow)])
    assert all(ids == [] for ids, _ in started)
    assert email.due_at == tomorrow


def test_nothing_is_written_when_one_of_several_is_refused():
    with pytest.raises(InvalidEmail):
        enqueue([ask(), ask(to="nonsense")])
    assert not Email.objects.exists()


def test_the_same_key_with_the_same_payload_is_the_first_email():
    (first,) = enqueue([ask(idempotency_key="order-1")])
    (second,) = enqueue([ask(idempotency_key="order-1")])
    assert second.pk == first.pk
    assert Email.objects.count() == Content.objects.count() == 1


def test_the_same_key_with_another_payload_is_an_error():
    enqueue([ask(idempotency_key="order-1")])
    with pytest.raises(IdempotencyConflict) as error:
        enqueue([ask(idempotency_key="order-1", message="something else")])
    assert error.value.field == "idempotency_key"


def test_a_repetition_starts_no_second_chain(started, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks(execute=True):
        enqueue([ask(idempotency_key="order-1")])
        enqueue([ask(idempotency_key="order-1")])
    assert len(started) == 1


def test_a_repetition_among_others_leaves_them_in_their_order():
    (known,) = enqueue([ask(idempotency_key="k")])
    emails = enqueue([ask(to="b@example.com"), ask(idempotency_key="k"), ask(to="c@example.com")])
    assert [e.to for e in emails] == [["b@example.com"], ["a@example.com"], ["c@example.com"]]
    assert emails[1].pk == known.pk
    assert Email.objects.count() == 3


def test_the_same_key_twice_in_one_call_is_one_email():
    first, second = enqueue([ask(idempotency_key="k"), ask(idempotency_key="k")])
    assert first.pk == second.pk
    assert Email.objects.count() == 1


def test_a_key_that_somebody_else_commits_meanwhile_gives_their_email(monkeypatch):
    (theirs,) = enqueue([ask(idempotency_key="k")])
    look, looks = module._replace_known, []

    def look_too_early(rows, using):
        looks.append(1)
        return list(rows) if len(looks) == 1 else look(rows, using)

    monkeypatch.setattr(module, "_replace_known", look_too_early)
    (email,) = enqueue([ask(idempotency_key="k")])
    assert email.pk == Email.objects.get().pk == theirs.pk


def test_the_signal_tells_of_all_emails_once_at_commit(django_capture_on_commit_callbacks, started):
    heard = []
    receiver = lambda sender, emails, **kwargs: heard.append(emails)  # noqa: E731
    email_queued.connect(receiver)
    try:
        with django_capture_on_commit_callbacks(execute=True):
            emails = enqueue([ask(), ask()])
            assert heard == []
    finally:
        email_queued.disconnect(receiver)
    assert heard == [emails]


def test_a_broker_that_is_down_leaves_the_emails_due_at_once(monkeypatch, django_capture_on_commit_callbacks):
    from kombu.exceptions import OperationalError

    def publish(ids, priority):
        raise OperationalError("connection refused")

    monkeypatch.setattr(chain, "publish", publish)
    with django_capture_on_commit_callbacks(execute=True):
        email = make_email()
        assert email.due_at > timezone.now()
        assert not chain.start([email.pk], email.priority)
    email.refresh_from_db()
    assert email.status == "queued"
    assert email.due_at <= timezone.now()


def test_chains_carry_at_most_a_batch_of_ids(monkeypatch, settings):
    settings.CELERY_MAILER = {"BATCH_SIZE": 40}
    published = []
    monkeypatch.setattr(chain, "publish", lambda ids, priority: published.append(ids))
    chain.start(list(range(100)), 1)
    assert [len(ids) for ids in published] == [40, 40, 20]
    assert sum(published, []) == list(range(100))  # noqa: RUF017


@pytest.fixture
def several(started, django_capture_on_commit_callbacks):
    """What is started of three calls in one transaction, one of them at another savepoint."""

    def several():
        with django_capture_on_commit_callbacks(execute=True):
            ids = [enqueue([ask()])[0].pk for _ in range(3)]
            with transaction.atomic():
                ids += [enqueue([ask()])[0].pk for _ in range(2)]
        return ids

    return several


def test_what_one_transaction_queues_is_started_together(several, started):
    ids = several()
    assert [i for i, _ in started] == [ids[:3], ids[3:]]


def test_where_results_are_kept_each_email_has_its_own_chain(several, started, monkeypatch):
    monkeypatch.setattr(chain, "results_are_kept", lambda: True)
    ids = several()
    assert [i for i, _ in started] == [[pk] for pk in ids]


def test_a_rolled_back_savepoint_takes_no_other_chain_with_it(started, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks(execute=True):
        with suppress(RuntimeError), transaction.atomic():
            enqueue([ask()])
            raise RuntimeError
        (email,) = enqueue([ask()])
    assert started == [([email.pk], email.priority)]


@pytest.fixture
def messages():
    """Takes what was published to a lane, as headers and body."""

    def take(queue):
        with (
            current_app.connection_for_read() as connection,
            closing(connection.SimpleQueue(queue)) as waiting,
        ):
            taken = []
            while waiting.qsize():
                message = waiting.get_nowait()
                taken.append((message.headers, message.payload))
                message.ack()
        return taken

    for queue in ("mail.high", "mail.medium"):
        take(queue)
    return take


@pytest.mark.parametrize("kept", [True, False])
def test_a_single_email_goes_together_with_others_unless_results_are_kept(kept, monkeypatch, messages):
    monkeypatch.setattr(chain, "results_are_kept", lambda: kept)
    chain.start(["an-id"], 1)
    chain.start(["an-id", "another"], 1)
    assert [kwargs.get("together", False) for _, (_, kwargs, _) in messages("mail.medium")] == [
        not kept,
        False,
    ]


def test_what_is_published_is_what_a_chain_publishes(messages):
    chain.publish(["an-id", "another"], 2)
    chain.build(["an-id", "another"], 2).apply_async(**chain.PUBLISH_ONCE)
    (_, quick), (_, slow) = messages("mail.high")
    assert quick[:2] == slow[:2]
    assert [bare_step(step) for step in quick[2]["chain"]] == [bare_step(step) for step in slow[2]["chain"]]


def bare_step(step):
    """Without the ids, which each message has of its own."""
    return step | {"options": {"queue": step["options"]["queue"]}}


def test_the_last_task_of_a_single_email_has_its_id(messages):
    chain.publish(["an-id"], 2)
    ((_, (_, _, embedded)),) = messages("mail.high")
    assert [step["options"].get("task_id") for step in embedded["chain"]] == ["an-id", None]


def test_each_step_of_a_chain_has_the_lane_of_its_priority():
    steps = chain.build(["an-id"], 2, "task-id").tasks
    assert [s.task for s in steps] == ["celery_mailer.render", "celery_mailer.deliver", "celery_mailer.log"]
    assert {s.options["queue"] for s in steps} == {"mail.high"}
    assert [s.args for s in steps] == [(["an-id"],)] * 3
    assert all(s.immutable for s in steps)
    assert steps[-1].options["task_id"] == "task-id"
