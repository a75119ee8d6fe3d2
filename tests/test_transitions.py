import itertools
from datetime import timedelta

import pytest
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from celery_mailer import signals
from celery_mailer.models import Decision, Email, Message
from celery_mailer.models import transitions as t
from celery_mailer.values import FINAL, WAITING, Status
from tests.factories import claim, make_email, make_emails, stored

pytestmark = pytest.mark.django_db

LATER = timezone.now() + timedelta(hours=1)


def put(email, status):
    """The row in ``status``, past the transitions."""
    fields = {"status": status, "due_at": None, "lease_until": None, "claim": None}
    if status in WAITING:
        fields["due_at"] = LATER
    if status == Status.SENDING:
        fields |= {"lease_until": LATER, "claim": email.pk}
    Email.objects.filter(pk=email.pk).update(**fields)


@pytest.mark.parametrize(
    ("how", "start"), list(itertools.product(t.MOVES, Status)), ids=lambda v: getattr(v, "name", str(v))
)
def test_a_move_is_made_from_its_sources_and_from_nowhere_else(how, start):
    email = make_email()
    put(email, start)
    won = t.move([email.pk], how, due_at=LATER, lease_until=LATER if how is t.CLAIM else None)
    assert bool(won) == (start in how.sources)
    assert stored(email).status == (how.target if won else start)


def test_no_move_leaves_a_final_status():
    assert not any(how.sources & FINAL for how in t.MOVES)


def test_every_status_can_be_reached():
    assert {how.target for how in t.MOVES} == set(Status)


def test_a_second_claim_wins_nothing():
    email = make_email()
    claim([email])
    assert t.move([email.pk], t.CLAIM, lease_until=LATER) == []


def test_a_move_tells_which_of_several_it_won():
    first, taken, last = emails = make_emails(3)
    claim([taken])
    assert t.move([e.pk for e in emails], t.CLAIM, lease_until=LATER) == [first.pk, last.pk]


def test_a_move_with_another_claim_wins_nothing():
    email = make_email()
    claim([email])
    assert t.move([email.pk], t.SENT, claim=email.pk) == []
    assert stored(email).status == "sending"


def test_a_final_move_ends_the_waiting_and_the_lease():
    email = make_email()
    token = claim([email])
    t.move([email.pk], t.SENT, claim=token)
    row = stored(email)
    assert (row.due_at, row.lease_until) == (None, None)
    assert row.finished_at is not None


def test_only_counting_moves_count_an_attempt():
    email = make_email()
    t.move([email.pk], t.DEFER_FREE, due_at=LATER, claim=claim([email]))
    assert stored(email).attempt_count == 0
    t.move([email.pk], t.WAKE, due_at=LATER)
    t.move([email.pk], t.DEFER, due_at=LATER, claim=claim([email]))
    assert stored(email).attempt_count == 1


def test_a_move_off_the_plain_path_leaves_a_decision_with_its_reason():
    email = make_email()
    t.move([email.pk], t.BROKEN, reason="render", detail="no such variable")
    decision = Decision.objects.get(email=email)
    assert (decision.move, decision.status, decision.reason) == ("broken", "failed", "render")
    assert decision.detail == "no such variable"


def test_the_plain_path_leaves_no_decisions():
    email = make_email()
    t.move([email.pk], t.SENT, claim=claim([email]))
    assert not Decision.objects.exists()


def test_the_content_of_a_sensitive_email_is_dropped_when_it_is_final():
    secret, plain = make_email(sensitive=True), make_email()
    Message.objects.create(email=secret, text="rendered")
    t.move([secret.pk, plain.pk], t.CANCEL)
    secret.content.refresh_from_db()
    assert (secret.content.subject, secret.content.text, secret.content.dropped) == ("", "", True)
    assert not Message.objects.filter(email=secret).exists()
    plain.content.refresh_from_db()
    assert plain.content.text == "m"


@pytest.mark.parametrize(
    "values",
    [
        {"status": "lost"},
        {"priority": 7},
        {"due_at": None},
        {"status": "sent"},
        {"lease_until": LATER},
        {"status": "sending", "due_at": None, "lease_until": None},
    ],
)
def test_the_database_refuses_a_row_that_contradicts_itself(values):
    email = make_email()
    with pytest.raises(IntegrityError), transaction.atomic():
        Email.objects.filter(pk=email.pk).update(**values)


@pytest.mark.parametrize(
    ("which", "index"),
    [
        ({"priority": 1, "due_at__lte": LATER}, "mailer_email_due_idx"),
        ({"lease_until__lt": LATER}, "mailer_email_stuck_idx"),
        ({"finished_at__lt": LATER}, "mailer_email_old_idx"),
    ],
)
def test_what_the_jobs_look_for_is_found_by_its_partial_index(which, index):
    if connection.vendor != "sqlite":
        pytest.skip("the plan is read as SQLite writes it")
    assert index in Email.objects.filter(**which).explain()


@pytest.fixture
def heard():
    """The ids that each signal was sent for."""
    calls = []
    names = ["email_queued", "email_sent", "email_deferred", "email_failed", "email_uncertain"]
    receivers = []
    for name in names:

        def receive(sender, emails, signal, name=name, **kwargs):
            calls.append((name, [e.pk for e in emails], [e.status for e in emails]))

        getattr(signals, name).connect(receive)
        receivers.append((name, receive))
    yield calls
    for name, receive in receivers:
        getattr(signals, name).disconnect(receive)


@pytest.mark.parametrize(
    ("how", "name", "status"),
    [
        (t.SENT, "email_sent", "sent"),
        (t.DEFER, "email_deferred", "deferred"),
        (t.DEFER_FREE, "email_deferred", "deferred"),
        (t.REJECT, "email_failed", "failed"),
        (t.DOUBT, "email_uncertain", "uncertain"),
    ],
    ids=lambda v: getattr(v, "name", None),
)
def test_a_move_sends_its_signal_once_it_is_committed(
    heard, django_capture_on_commit_callbacks, how, name, status
):
    email = make_email()
    token = claim([email])
    with django_capture_on_commit_callbacks(execute=True):
        t.move([email.pk], how, due_at=LATER, claim=token)
        assert heard == []
    assert heard == [(name, [email.pk], [status])]


@pytest.mark.parametrize("how", [t.POSTPONE, t.THROTTLE, t.HOLD], ids=lambda how: how.name)
def test_what_is_put_off_before_it_is_claimed_is_signalled_too(
    heard, django_capture_on_commit_callbacks, how
):
    email = make_email()
    with django_capture_on_commit_callbacks(execute=True):
        t.move([email.pk], how, due_at=LATER)
    assert heard == [("email_deferred", [email.pk], ["deferred"])]


def test_a_move_that_wins_nothing_sends_no_signal(heard, django_capture_on_commit_callbacks):
    email = make_email()
    with django_capture_on_commit_callbacks(execute=True):
        t.move([email.pk], t.SENT)
    assert heard == []


def test_a_receiver_that_raises_hurts_nobody(heard, django_capture_on_commit_callbacks):
    def broken(**kwargs):
        raise RuntimeError("a receiver's fault")

    signals.email_sent.connect(broken)
    try:
        email = make_email()
        with django_capture_on_commit_callbacks(execute=True):
            t.move([email.pk], t.SENT, claim=claim([email]))
    finally:
        signals.email_sent.disconnect(broken)
    assert heard[-1][0] == "email_sent"


def test_a_lease_is_renewed_only_for_who_still_holds_all_of_it():
    held, lost = emails = make_emails(2)
    token = claim(emails)
    t.move([lost.pk], t.REQUEUE, due_at=LATER, claim=token)
    assert t.renew_lease([held.pk], token, LATER)
    assert not t.renew_lease([held.pk, lost.pk], token, LATER)
