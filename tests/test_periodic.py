from datetime import timedelta
from uuid import uuid4

import pytest
from django.utils import timezone

from celery_mailer import chain, periodic
from celery_mailer.deliver.slice import WINDOW
from celery_mailer.models import Attempt, Batch, Decision, Email, Message
from celery_mailer.models.transitions import CANCEL, move
from tests.factories import claim, make_attempt, make_email, make_emails, stored

pytestmark = pytest.mark.django_db

PAST = timedelta(seconds=-1)


@pytest.fixture
def started(monkeypatch):
    calls = []
    monkeypatch.setattr(chain, "start", lambda ids, priority: calls.append((list(ids), priority)) or True)
    return calls


def make_due(emails, ago=timedelta(minutes=1)):
    Email.objects.filter(pk__in=[e.pk for e in emails]).update(due_at=timezone.now() - ago)


class TestDispatch:
    def test_it_starts_a_chain_for_what_is_due(self, started):
        due, not_yet = make_emails(2)
        make_due([due])
        assert periodic.dispatch() == {"dispatched": 1}
        assert started == [([due.pk], 1)]
        assert stored(not_yet).due_at > timezone.now()

    def test_what_it_took_is_due_again_a_lease_later(self, started):
        email = make_email()
        make_due([email])
        periodic.dispatch()
        after = stored(email).due_at - timezone.now()
        assert timedelta(seconds=110) < after <= timedelta(minutes=2)

    def test_a_second_run_takes_nothing(self, started):
        make_due(make_emails(3))
        periodic.dispatch()
        assert periodic.dispatch() == {"dispatched": 0}

    def test_a_deferred_email_is_queued_again(self, started):
        email = make_email()
        make_attempt(email, claim([email]), "deferred", kind="temporary")
        periodic.judge(Attempt.objects.select_related("email"))
        make_due([email])
        periodic.dispatch()
        assert stored(email).status == "queued"

    def test_the_urgent_lanes_come_first(self, started):
        low, now, high = make_email(priority="low"), make_email(priority="now"), make_email(priority="high")
        make_due([low, now, high])
        periodic.dispatch()
        assert started == [([now.pk], 3), ([high.pk], 2), ([low.pk], 0)]

    def test_a_run_is_bounded(self, started, monkeypatch):
        monkeypatch.setattr(periodic, "DISPATCH_LIMIT", 3)
        monkeypatch.setattr(periodic, "SHORT", 1)
        make_due(make_emails(5))
        assert periodic.dispatch() == {"dispatched": 3}

    def test_a_run_goes_on_while_the_queue_is_short(self, started, monkeypatch):
        monkeypatch.setattr(periodic, "DISPATCH_LIMIT", 2)
        monkeypatch.setattr(periodic, "SHORT", 3)
        monkeypatch.setattr(periodic, "outstanding", lambda queue: 1)
        make_due(make_emails(7))
        assert periodic.dispatch() == {"dispatched": 4}
        assert [len(ids) for ids, _ in started] == [2, 2]

    def test_a_run_ends_with_the_last_that_is_due(self, started, monkeypatch):
        monkeypatch.setattr(periodic, "DISPATCH_LIMIT", 2)
        make_due(make_emails(5))
        assert periodic.dispatch() == {"dispatched": 5}

    def test_a_run_ends_when_the_broker_takes_nothing(self, monkeypatch):
        monkeypatch.setattr(periodic, "DISPATCH_LIMIT", 2)
        monkeypatch.setattr(chain, "start", lambda ids, priority: False)
        make_due(make_emails(5))
        assert periodic.dispatch() == {"dispatched": 2}

    def test_a_lane_with_a_long_queue_gets_nothing_more(self, started, monkeypatch):
        lengths = {"mail.low": periodic.OUTSTANDING, "mail.high": 0, "mail.medium": 0}
        monkeypatch.setattr(periodic, "outstanding", lengths.get)
        low, high = make_email(priority="low"), make_email(priority="high")
        make_due([low, high])
        periodic.dispatch()
        assert started == [([high.pk], 2)]
        assert stored(low).due_at <= timezone.now()

    def test_it_takes_the_longest_due_first(self, started, monkeypatch):
        monkeypatch.setattr(periodic, "DISPATCH_LIMIT", 1)
        young, old = make_emails(2)
        make_due([young], timedelta(minutes=1))
        make_due([old], timedelta(hours=1))
        periodic.dispatch()
        assert started == [([old.pk], 1), ([young.pk], 1)]


class TestRescue:
    def test_a_running_lease_is_left_alone(self):
        email = make_email()
        claim([email])
        assert periodic.rescue() == {"judged": 0, "uncertain": 0, "requeued": 0}
        assert stored(email).status == "sending"

    def test_what_has_a_fact_is_judged_by_it(self):
        email = make_email()
        make_attempt(email, claim([email], PAST))
        assert periodic.rescue()["judged"] == 1
        assert stored(email).status == "sent"

    def test_what_may_have_been_handed_over_becomes_uncertain_with_an_attempt_that_says_so(self):
        email = make_email(stream="marketing")
        claim([email], PAST)
        assert periodic.rescue()["uncertain"] == 1
        attempt = Attempt.objects.get(email=email)
        assert (attempt.outcome, attempt.kind) == ("uncertain", "worker_lost")
        assert stored(email).status == "uncertain"

    def test_in_a_stream_that_resends_it_waits_for_its_next_attempt(self):
        email = make_email()
        claim([email], PAST)
        periodic.rescue()
        assert (stored(email).status, stored(email).attempt_count) == ("deferred", 1)

    def test_what_was_certainly_not_begun_is_queued_at_once(self):
        emails = make_emails(WINDOW + 30, stream="marketing")
        claim(emails, PAST)
        assert periodic.rescue() == {"judged": 0, "uncertain": WINDOW, "requeued": 30}
        assert [stored(e).status for e in emails] == ["uncertain"] * WINDOW + ["queued"] * 30
        assert stored(emails[-1]).due_at <= timezone.now()

    def test_the_window_begins_behind_the_last_fact(self):
        emails = make_emails(WINDOW + 10, stream="marketing")
        token = claim(emails, PAST)
        for email in emails[:5]:
            make_attempt(email, token)
        assert periodic.rescue() == {"judged": 5, "uncertain": WINDOW, "requeued": 5}

    def test_two_claims_have_a_window_each(self):
        claim(make_emails(WINDOW + 1, stream="marketing"), PAST)
        claim(make_emails(WINDOW + 1, stream="marketing"), PAST)
        assert periodic.rescue()["uncertain"] == 2 * WINDOW

    def test_a_second_run_finds_nothing(self):
        claim(make_emails(WINDOW + 5), PAST)
        periodic.rescue()
        assert periodic.rescue() == {"judged": 0, "uncertain": 0, "requeued": 0}


class TestSettle:
    def test_a_fact_whose_log_task_was_lost_is_judged(self):
        email = make_email()
        make_attempt(email, claim([email]), finished_at=timezone.now() - timedelta(minutes=1))
        assert periodic.settle() == {"judged": 1}
        assert stored(email).status == "sent"

    def test_a_fresh_fact_is_left_to_its_log_task(self):
        email = make_email()
        make_attempt(email, claim([email]))
        assert periodic.settle() == {"judged": 0}


class TestCleanup:
    def finish(self, email, ago):
        move([email.pk], CANCEL)
        Email.objects.filter(pk=email.pk).update(finished_at=timezone.now() - ago)

    def test_old_final_emails_are_deleted_with_all_that_belongs_to_them(self):
        email = make_email(sensitive=True)
        make_attempt(email, uuid4())
        Message.objects.create(email=email)
        self.finish(email, timedelta(days=91))
        assert periodic.cleanup()["emails_deleted"] == 1
        assert not Email.objects.exists()
        assert not Attempt.objects.exists()
        assert not Decision.objects.exists()

    def test_younger_ones_are_kept(self):
        self.finish(make_email(), timedelta(days=89))
        assert periodic.cleanup()["emails_deleted"] == 0

    def test_an_email_that_waits_is_never_deleted(self):
        email = make_email(scheduled_at=timezone.now() + timedelta(days=700))
        Email.objects.filter(pk=email.pk).update(created_at=timezone.now() - timedelta(days=700))
        periodic.cleanup()
        assert Email.objects.count() == 1

    def test_contents_go_before_the_history(self):
        email = make_email()
        self.finish(email, timedelta(days=31))
        assert periodic.cleanup() == {
            "contents_dropped": 1,
            "emails_deleted": 0,
            "files_deleted": 0,
            "captured_deleted": 0,
            "versions_deleted": 0,
            "events_deleted": 0,
            "suppressions_deleted": 0,
            "buckets_deleted": 0,
            "figures_deleted": 0,
        }
        email.content.refresh_from_db()
        assert (email.content.text, email.content.dropped) == ("", True)
        assert periodic.cleanup()["contents_dropped"] == 0

    def test_a_stream_has_its_own_retention(self, settings):
        settings.CELERY_MAILER = {"STREAMS": {"digest": {"RETENTION": timedelta(days=5)}}}
        self.finish(make_email(stream="digest"), timedelta(days=6))
        self.finish(make_email(), timedelta(days=6))
        assert periodic.cleanup()["emails_deleted"] == 1
        assert Email.objects.get().stream == "transactional"

    def test_a_stream_that_is_no_longer_configured_is_cleaned_too(self):
        email = make_email()
        Email.objects.filter(pk=email.pk).update(stream="forgotten")
        self.finish(email, timedelta(days=91))
        assert periodic.cleanup()["emails_deleted"] == 1

    def test_an_empty_old_batch_is_deleted(self):
        Batch.objects.create(total=1, created_at=timezone.now() - timedelta(days=91))
        periodic.cleanup()
        assert not Batch.objects.exists()
