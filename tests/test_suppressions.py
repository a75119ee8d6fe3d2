"""Addresses that must not be written to: who becomes one, whom it stops, and how it ends."""

from datetime import UTC, datetime, timedelta

import pytest
from django.core import mail
from django.db import IntegrityError, transaction
from django.utils import timezone

from celery_mailer import chain
from celery_mailer.deliver.plan import plan
from celery_mailer.log.settle import settle_emails
from celery_mailer.models import Decision, Email, Feedback, Suppression
from celery_mailer.models.suppression import (
    Entry,
    delete_expired_suppressions,
    digest_of,
    forget_address,
    release,
    suppress,
    suppressed,
    why_stopped,
)
from celery_mailer.tracking.consequences import SOFT_BOUNCES
from celery_mailer.tracking.events import Happening, record
from celery_mailer.values import Bounce, EventKind, Phase, SuppressionReason
from tests.factories import claim, make_attempt, make_email, stored

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
A = "a@example.com"
HARD, MANUAL = SuppressionReason.HARD_BOUNCE, SuppressionReason.MANUAL


def tell(email, kind, at=NOON, **values):
    record([Happening(kind, at, email_id=email.pk, **values)])


def reasons(address=A):
    return suppressed([address]).get(address, {})


# The rows.


@pytest.mark.parametrize(
    ("stored_as", "asked"),
    [
        ("A@EXAMPLE.com", "a@example.com"),
        ("Ann <a@example.com>", "a@example.com"),
        ("a@bücher.example", "A@xn--bcher-kva.example"),
        ("a@xn--bcher-kva.example", "a@BÜCHER.example"),
    ],
)
def test_an_address_is_suppressed_in_every_spelling(stored_as, asked):
    suppress([Entry(stored_as, MANUAL)])
    assert reasons(asked) == {"": "manual"}


def test_suppressing_again_adds_nothing():
    assert suppress([Entry(A, MANUAL), Entry(A.upper(), MANUAL)]) == 1
    assert suppress([Entry(A, MANUAL)]) == 0


def test_two_reasons_are_two_rows():
    assert suppress([Entry(A, MANUAL), Entry(A, HARD)]) == 2


def test_the_database_refuses_the_same_twice():
    suppress([Entry(A, MANUAL)])
    with pytest.raises(IntegrityError), transaction.atomic():
        Suppression.objects.create(address=A, reason=MANUAL)


def test_what_has_expired_stops_nobody():
    suppress([Entry(A, MANUAL, expires_at=timezone.now() - timedelta(seconds=1))])
    assert reasons() == {}


def test_what_has_expired_is_prolonged():
    soon = timezone.now() + timedelta(days=1)
    suppress([Entry(A, MANUAL, expires_at=timezone.now() - timedelta(days=1))])
    assert suppress([Entry(A, MANUAL, expires_at=soon)]) == 0
    assert Suppression.objects.get().expires_at == soon


def test_what_lasts_longer_is_not_shortened():
    suppress([Entry(A, MANUAL)])
    suppress([Entry(A, MANUAL, expires_at=timezone.now())])
    assert Suppression.objects.get().expires_at is None


def test_what_never_expires_prolongs_what_does():
    suppress([Entry(A, MANUAL, expires_at=timezone.now())])
    suppress([Entry(A, MANUAL)])
    assert Suppression.objects.get().expires_at is None


def test_a_release_is_on_record_and_ends_it():
    suppress([Entry(A, MANUAL)])
    row = Suppression.objects.get()
    assert release([row.pk], by="eve", note="she wrote to us") == 1
    assert release([row.pk], by="bob", note="again") == 0
    row.refresh_from_db()
    assert (row.released_by, row.release_note, row.active) == ("eve", "she wrote to us", None)
    assert row.released_at is not None
    assert reasons() == {}


def test_what_was_released_may_be_suppressed_anew():
    for _ in range(2):
        suppress([Entry(A, MANUAL)])
        release(Suppression.objects.values_list("pk", flat=True), by="eve", note="")
    assert Suppression.objects.count() == 2


def test_to_lift_a_bounce_does_not_lift_an_opt_out():
    suppress([Entry(A, HARD), Entry(A, SuppressionReason.UNSUBSCRIBE, "marketing")])
    release([Suppression.objects.get(reason=HARD).pk], by="eve", note="")
    assert reasons() == {"marketing": "unsubscribe"}


def test_an_erased_address_stays_suppressed():
    suppress([Entry(A, HARD, note=f"{A} unknown")])
    assert forget_address("A@example.com") == 1
    row = Suppression.objects.get()
    assert (row.address, row.note, row.digest) == ("", "", digest_of(A))
    assert reasons() == {"": "hard_bounce"}


def test_an_address_that_was_erased_can_be_suppressed_by_its_digest():
    suppress([Entry("", HARD, digest=digest_of(A))])
    assert reasons() == {"": "hard_bounce"}


def test_expired_ones_go_by_the_retention():
    now = timezone.now()
    suppress([Entry(A, MANUAL, expires_at=now - timedelta(days=2)), Entry("b@example.com", MANUAL)])
    assert delete_expired_suppressions(now - timedelta(days=1), 10) == 1
    assert Suppression.objects.get().address == "b@example.com"


def test_a_suppression_outlives_its_email():
    email = make_email()
    tell(email, EventKind.COMPLAINED)
    email.delete()
    assert Suppression.objects.get().email is None


@pytest.mark.parametrize(
    ("by_stream", "stream", "reason"),
    [
        ({"": "hard_bounce"}, "transactional", "hard_bounce"),
        ({"marketing": "unsubscribe"}, "marketing", "unsubscribe"),
        ({"marketing": "unsubscribe"}, "transactional", ""),
        ({"marketing": "unsubscribe"}, "digest", ""),
        ({}, "marketing", ""),
    ],
)
def test_an_opt_out_stops_its_own_stream_only(by_stream, stream, reason):
    assert why_stopped(by_stream, stream) == reason


# Who becomes one.


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        (EventKind.BOUNCED, {"bounce": Bounce.HARD}, {"": "hard_bounce"}),
        (EventKind.BOUNCED, {"bounce": Bounce.SOFT}, {}),
        (EventKind.BOUNCED, {"bounce": ""}, {}),
        (EventKind.REJECTED, {"bounce": Bounce.HARD}, {"": "hard_bounce"}),
        (EventKind.COMPLAINED, {}, {"": "complaint"}),
        (EventKind.UNSUBSCRIBED, {}, {"marketing": "unsubscribe"}),
        (EventKind.OPENED, {}, {}),
        (EventKind.DELIVERED, {}, {}),
        (EventKind.DEFERRED, {}, {}),
    ],
)
def test_what_an_event_suppresses(kind, values, expected):
    tell(make_email(stream="marketing"), kind, **values)
    assert reasons() == expected


def test_an_event_names_the_email_it_came_from():
    email = make_email()
    tell(email, EventKind.COMPLAINED)
    assert Suppression.objects.get().email == email


def bounce_softly(number, start=0):
    for n in range(start, start + number):
        tell(make_email(), EventKind.BOUNCED, NOON + timedelta(hours=n), bounce=Bounce.SOFT)


def test_soft_bounces_in_a_row_suppress_for_a_while():
    bounce_softly(SOFT_BOUNCES - 1)
    assert reasons() == {}
    bounce_softly(1, SOFT_BOUNCES)
    assert reasons() == {"": "soft_bounce"}
    assert Suppression.objects.get().expires_at > timezone.now() + timedelta(days=29)


def test_a_delivery_in_between_begins_the_count_anew():
    bounce_softly(SOFT_BOUNCES - 1)
    tell(make_email(), EventKind.DELIVERED, NOON + timedelta(hours=4, minutes=30))
    bounce_softly(SOFT_BOUNCES - 1, SOFT_BOUNCES)
    assert reasons() == {}


def test_one_email_that_bounces_softly_many_times_counts_once():
    email = make_email()
    for n in range(SOFT_BOUNCES):
        tell(email, EventKind.BOUNCED, NOON + timedelta(hours=n), bounce=Bounce.SOFT)
    assert reasons() == {}


def test_soft_bounces_of_emails_to_others_do_not_count():
    for n in range(SOFT_BOUNCES):
        email = make_email(to=["b@example.com", "c@example.com"])
        at = NOON + timedelta(hours=n)
        tell(email, EventKind.BOUNCED, at, recipient=A, event_id=str(n), bounce=Bounce.SOFT)
    bounce_softly(1, SOFT_BOUNCES)
    assert reasons() == {}


@pytest.mark.parametrize("to", [["b@example.com", A], [A, "b@example.com"]], ids=["further", "first"])
def test_soft_bounces_of_emails_to_several_count(to):
    for n in range(SOFT_BOUNCES):
        tell(make_email(to=to), EventKind.BOUNCED, NOON + timedelta(hours=n), recipient=A, bounce=Bounce.SOFT)
    assert reasons() == {"": "soft_bounce"}


def test_a_release_begins_the_count_anew():
    now = timezone.now()
    for _ in range(SOFT_BOUNCES):
        tell(make_email(), EventKind.BOUNCED, now - timedelta(hours=1), bounce=Bounce.SOFT)
    release([Suppression.objects.get().pk], by="eve", note="")
    for _ in range(SOFT_BOUNCES - 1):
        tell(make_email(), EventKind.BOUNCED, now + timedelta(hours=1), bounce=Bounce.SOFT)
    assert reasons() == {}


def soft_bounces_with_one_sent_between(days_ago, **feedback):
    """By a provider that tells of no delivery."""
    now, long_ago = timezone.now(), timedelta(days=days_ago)
    for n in range(SOFT_BOUNCES):
        at = now - long_ago + timedelta(hours=n - SOFT_BOUNCES + 2)  # the last one is later
        tell(make_email(), EventKind.BOUNCED, at, bounce=Bounce.SOFT)
        if n == 0:
            between = make_email()
            Email.objects.filter(pk=between.pk).update(status="sent", due_at=None, finished_at=now - long_ago)
            Feedback.objects.create(email=between, **feedback)


def test_an_email_that_did_not_come_back_for_a_week_counts_as_delivered():
    soft_bounces_with_one_sent_between(days_ago=8)
    assert reasons() == {}


def test_an_email_that_may_still_come_back_does_not_count_as_delivered():
    soft_bounces_with_one_sent_between(days_ago=3)
    assert reasons() == {"": "soft_bounce"}


def test_an_email_that_came_back_does_not_count_as_delivered():
    soft_bounces_with_one_sent_between(days_ago=8, bounced_at=NOON)
    assert reasons() == {"": "soft_bounce"}


def test_nobody_is_suppressed_by_an_event_about_no_email_of_ours():
    record([Happening(EventKind.COMPLAINED, NOON, A)])
    assert reasons() == {}


def test_nobody_is_suppressed_who_was_not_written_to():
    email = make_email(to=["b@example.com", "c@example.com"])
    tell(email, EventKind.BOUNCED, recipient=A, bounce=Bounce.HARD)
    assert not Suppression.objects.exists()


def test_on_a_staging_site_nobody_is_suppressed_who_was_replaced(settings):
    settings.CELERY_MAILER = {"OVERRIDE_RECIPIENTS": ["staging@example.com"]}
    tell(make_email(), EventKind.BOUNCED, bounce=Bounce.HARD)
    assert not Suppression.objects.exists()


def settle_refused(text, code=550, kind="recipient", phase=Phase.RCPT, **values):
    email = make_email(to=values.pop("to", A))
    make_attempt(email, claim([email]), "rejected", kind=kind, phase=phase, code=code, text=text, **values)
    settle_emails([email.pk])


def test_a_recipient_whom_the_server_does_not_know_is_suppressed():
    settle_refused("5.1.1 no such user")
    assert reasons() == {"": "hard_bounce"}
    assert Suppression.objects.get().note == "550 5.1.1 no such user"


@pytest.mark.parametrize(
    "values",
    [
        {"text": "5.7.1 listed by a blocklist"},
        {"text": "5.2.3 too large", "code": 552},
        {"text": "5.1.1 no such user", "kind": "content", "phase": Phase.DOT},
        {"text": "5.1.1 no such user", "kind": "sender", "phase": Phase.MAIL},
        {"text": "5.1.1 no such user", "to": [A, "b@example.com"]},
    ],
    ids=["policy", "size", "content", "sender", "several"],
)
def test_no_other_refusal_suppresses(values):
    settle_refused(**values)
    assert not Suppression.objects.exists()


def test_of_several_recipients_the_refused_one_is_suppressed():
    email = make_email(to=[A, "b@example.com"])
    replies = {A: ["rejected", 550, "5.1.1 unknown"], "b@example.com": ["accepted", 250, "ok"]}
    make_attempt(email, claim([email]), "accepted", recipients=replies)
    settle_emails([email.pk])
    assert [row.address for row in Suppression.objects.all()] == [A]


# Whom it stops.


def test_an_email_to_a_suppressed_address_is_suppressed(mailoutbox):
    email = make_email()
    suppress([Entry(A, HARD)])
    chain.run([email.pk])
    assert (stored(email).status, stored(email).reason) == ("suppressed", "hard_bounce")
    assert Decision.objects.get().move == "suppress"
    assert mailoutbox == []


def test_the_others_of_its_slice_go_out(mailoutbox):
    emails = [make_email(to=to) for to in ("b@example.com", A, "c@example.com")]
    suppress([Entry(A, HARD)])
    chain.run([email.pk for email in emails])
    assert [stored(email).status for email in emails] == ["sent", "suppressed", "sent"]


def test_an_opt_out_after_queueing_stops_marketing_and_not_a_password_reset(mailoutbox):
    reset, newsletter = make_email(), make_email(stream="marketing")
    tell(newsletter, EventKind.UNSUBSCRIBED)
    chain.run([reset.pk, newsletter.pk])
    assert [stored(e).status for e in (reset, newsletter)] == ["sent", "suppressed"]


def test_a_complaint_stops_a_password_reset_too():
    tell(make_email(), EventKind.COMPLAINED)
    reset = make_email()
    chain.run([reset.pk])
    assert stored(reset).status == "suppressed"


def test_a_suppressed_recipient_is_left_out_and_the_others_get_it(mailoutbox):
    email = make_email(to=["A@Example.com", "b@example.com"], bcc="c@example.com")
    suppress([Entry(A, HARD)])
    chain.run([email.pk])
    assert stored(email).status == "sent"
    assert sorted(mailoutbox[0].recipients()) == ["b@example.com", "c@example.com"]
    assert Decision.objects.get().detail == "1 of 3 (hard_bounce: 1)"


def test_an_email_that_comes_by_twice_is_noted_once():
    email = make_email(to=[A, "b@example.com"])
    suppress([Entry(A, HARD)])
    for _ in range(2):
        assert [ready.recipients for ready in plan([email], {}, 0.3).ready] == [["b@example.com"]]
    assert Decision.objects.filter(move="leave_out").count() == 1


def test_who_has_it_by_an_earlier_attempt_keeps_the_email_sent():
    email = make_email(to=[A, "b@example.com"])
    replies = {A: ["deferred", 450, "later"], "b@example.com": ["accepted", 250, "ok"]}
    make_attempt(email, claim([email]), "deferred", kind="temporary", recipients=replies)
    settle_emails([email.pk])
    suppress([Entry(A, HARD)])
    type(email).objects.filter(pk=email.pk).update(status="queued")
    chain.run([email.pk])
    assert stored(email).status == "sent"
    assert mail.outbox == []


def test_an_email_whose_last_recipient_is_suppressed_after_the_others_were_refused_is_suppressed():
    email = make_email(to=[A, "b@example.com"])
    replies = {A: ["deferred", 450, "later"], "b@example.com": ["rejected", 550, "5.7.1 no"]}
    make_attempt(email, claim([email]), "deferred", kind="temporary", recipients=replies)
    settle_emails([email.pk])
    suppress([Entry(A, HARD)])
    type(email).objects.filter(pk=email.pk).update(status="queued")
    chain.run([email.pk])
    assert stored(email).status == "suppressed"


def test_a_replaced_recipient_is_asked_about_and_not_the_one_it_replaces(settings, mailoutbox):
    settings.CELERY_MAILER = {"OVERRIDE_RECIPIENTS": ["staging@example.com"]}
    suppress([Entry(A, HARD)])
    email = make_email()
    chain.run([email.pk])
    assert stored(email).status == "sent"


def test_a_slice_asks_once(django_assert_num_queries):
    with django_assert_num_queries(1):
        suppressed([f"u{n}@example.com" for n in range(100)])
    with django_assert_num_queries(0):
        suppressed([])
