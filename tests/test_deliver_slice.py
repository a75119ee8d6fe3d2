"""What one deliver task does to its emails: in which order, what it writes when, where it stops."""

import time
from collections import Counter
from contextlib import ExitStack
from datetime import timedelta
from itertools import islice
from uuid import uuid4

import pytest
import tenacity
from celery.exceptions import SoftTimeLimitExceeded
from django.db import InterfaceError, OperationalError
from django.utils import timezone

from celery_mailer import conf
from celery_mailer.deliver import limits, providers, turn
from celery_mailer.deliver import slice as deliver_slice
from celery_mailer.deliver.breaker import FIRST
from celery_mailer.deliver.slice import WINDOW, deliver_emails, in_doubt
from celery_mailer.deliver.turn import SECONDS, Waiting
from celery_mailer.exceptions import UnknownProvider
from celery_mailer.models import Attempt, Content, Decision, Email
from celery_mailer.models.transitions import CLAIM, DEFER, WAKE, move
from celery_mailer.values import Kind, Outcome, Phase, Reply, everyone, summarise
from tests.conftest import leave_the_outbox, smtp_provider
from tests.factories import claim, make_attempt, make_email, make_emails, stored
from tests.servers.scripted_smtp import ScriptedSmtp, drop, each, reset, take

pytestmark = pytest.mark.django_db(transaction=True)

ACCEPTED = Reply(Outcome.ACCEPTED)
DOWN = Reply(Outcome.DEFERRED, Kind.CONNECTION, Phase.CONNECT, text="nobody there")
DUMMY = {"BACKEND": "django.core.mail.backends.dummy.EmailBackend"}
FOREVER = float("inf")


class Fake:
    """A provider that does what the test puts into ``on_open`` and ``on_send``, and accepts."""

    def __init__(self, alias):
        self.alias = alias
        self.opened = 0
        self.sent = []  # (Message-ID, recipients)
        self.on_open = lambda: None
        self.on_send = lambda message, recipients: None

    def close(self):
        pass

    def open(self, timeout):
        self.opened += 1
        return self.on_open()

    def send(self, message, recipients, timeout):
        self.sent.append((message.extra_headers["Message-ID"], recipients))
        return self.on_send(message, recipients) or everyone(recipients, ACCEPTED)

    def ids(self):
        return [message_id for message_id, _ in self.sent]


class Streaming(Fake):
    """One that has ``ahead`` more emails in hand while it works on one, and ends a stream after ``most``."""

    ahead, most, at_once = 2, 10_000, 1

    def send_many(self, parcels, timeout):
        hand = list(islice(parcels, 1 + self.ahead))
        for _ in range(self.most):
            under_way = [p for p in hand[: self.at_once] if p.begin()]
            if not under_way:
                return
            for parcel in under_way:
                yield self.send(parcel.message, parcel.recipients, timeout)
            hand = hand[len(under_way) :]
            hand += islice(parcels, 1 + self.ahead - len(hand))


@pytest.fixture
def fakes(settings, monkeypatch):
    settings.CELERY_MAILER = {"PROVIDERS": {"default": DUMMY, "other": DUMMY}}
    made = {alias: Fake(alias) for alias in ("default", "other")}
    monkeypatch.setattr(providers, "get", made.__getitem__)
    return made


@pytest.fixture
def fake(fakes):
    return fakes["default"]


@pytest.fixture
def streaming(fakes):
    fakes["default"] = Streaming("default")
    return fakes["default"]


@pytest.fixture
def clock(monkeypatch):
    """Time as the slice sees it: only ``clock.pass_(seconds)`` moves it on, for a busy machine stalls."""

    class Still:
        now = time.monotonic()
        time_ns = staticmethod(time.time_ns)  # ``limits`` asks for it

        def monotonic(self):
            return self.now

        def pass_(self, seconds):
            self.now += seconds

        sleep = pass_

    clock = Still()
    for module in (deliver_slice, limits, turn):
        monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture(autouse=True)
def nothing_learned(monkeypatch):
    monkeypatch.setattr(deliver_slice, "_pace", deliver_slice.Pace(deliver_slice.WINDOW))


def deliver(emails, seconds=FOREVER):
    return deliver_emails([e.pk for e in emails], seconds=seconds)


def nth(number, action):
    """``on_send`` that does ``action`` at the ``number``-th mail only."""
    count = iter(range(1, 10_000))
    return lambda message, recipients: action() if next(count) == number else None


def statuses(emails):
    return [stored(e).status for e in emails]


# Order, and who is handed over
def test_emails_are_handed_over_in_the_order_of_their_ids(fake):
    emails = make_emails(5)
    deliver(emails[::-1])
    assert fake.ids() == [e.message_id for e in emails]


def test_what_was_handed_over_stays_claimed_until_log_judges_it(fake):
    emails = make_emails(2)
    assert deliver(emails) == []
    assert statuses(emails) == ["sending", "sending"]


def test_an_id_given_twice_is_handed_over_once(fake):
    (email,) = make_emails(1)
    deliver([email, email])
    assert len(fake.sent) == 1


def test_a_repeated_message_hands_nothing_over_again(fake):
    emails = make_emails(2)
    deliver(emails)
    deliver(emails)
    assert len(fake.sent) == 2


def test_what_somebody_else_claimed_meanwhile_is_left_to_them(fake, monkeypatch):
    emails = make_emails(3)
    look = deliver_slice._load

    def load_then_lose(ids):
        loaded = look(ids)
        claim([emails[1]])
        return loaded

    monkeypatch.setattr(deliver_slice, "_load", load_then_lose)
    deliver(emails)
    assert fake.ids() == [emails[0].message_id, emails[2].message_id]


def test_scheduled_mail_does_not_go_out_early(fake):
    email = make_email(scheduled_at=timezone.now() + timedelta(hours=1))
    deliver([email])
    assert (fake.sent, stored(email).status) == ([], "queued")


def test_expired_mail_does_not_go_out(fake):
    email = make_email(expires_at=timezone.now() - timedelta(seconds=1))
    deliver([email])
    assert (fake.sent, stored(email).status) == ([], "expired")


def test_what_was_not_rendered_does_not_go_out(fake):
    email = make_email(message="{{ name }}", context={"name": "Ann"})
    deliver([email])
    assert (fake.sent, stored(email).status) == ([], "queued")


def test_everybody_is_a_recipient_once_by_bare_address(fake):
    make = {"to": ["Ann <a@example.com>"], "cc": ["a@example.com"], "bcc": ["b@bücher.example"]}
    deliver([make_email(**make)])
    assert fake.sent[0][1] == ["a@example.com", "b@xn--bcher-kva.example"]


# Facts
def test_a_fact_says_who_did_what_when(fake):
    email = make_email()
    reply = Reply(Outcome.REJECTED, Kind.RECIPIENT, Phase.RCPT, 550, "no such user")
    fake.on_send = lambda message, recipients: everyone(recipients, reply)
    before = timezone.now()
    deliver([email])
    fact = Attempt.objects.get()
    assert (fact.email_id, fact.claim, fact.provider) == (email.pk, stored(email).claim, "default")
    assert (fact.outcome, fact.kind, fact.phase, fact.code) == ("rejected", "recipient", "rcpt", 550)
    assert (fact.text, fact.recipients) == ("no such user", {})
    assert before <= fact.started_at <= fact.finished_at <= timezone.now()


def test_a_fact_tells_recipients_apart_where_they_differ(fake):
    no = Reply(Outcome.REJECTED, Kind.RECIPIENT, Phase.RCPT, 550, "no")
    fake.on_send = lambda message, recipients: summarise({"a@example.com": ACCEPTED, "b@example.com": no})
    deliver([make_email(to=["a@example.com", "b@example.com"])])
    assert Attempt.objects.get().recipients == {
        "a@example.com": ["accepted", None, ""],
        "b@example.com": ["rejected", 550, "no"],
    }


def test_no_more_than_a_window_of_hand_overs_is_ever_without_a_fact(fake):
    unwritten = []
    fake.on_send = lambda *_: unwritten.append(len(fake.sent) - Attempt.objects.count())
    deliver(make_emails(2 * WINDOW + 5))
    assert max(unwritten) == WINDOW
    assert Attempt.objects.count() == 2 * WINDOW + 5


def test_facts_are_written_after_a_while_however_few(fake, clock):
    written = []

    def slow(message, recipients):
        written.append(Attempt.objects.count())
        clock.pass_(deliver_slice.FLUSH_AFTER)

    fake.on_send = slow
    deliver(make_emails(3))
    assert written == [0, 1, 2]


def test_facts_are_written_when_an_exception_escapes(fake):
    def interrupted():
        raise KeyboardInterrupt

    fake.on_send = nth(3, interrupted)
    with pytest.raises(KeyboardInterrupt):
        deliver(make_emails(5))
    assert Attempt.objects.count() == 2


def test_after_a_crash_only_what_may_have_been_handed_over_is_in_doubt():
    ids = [uuid4() for _ in range(WINDOW + 3)]
    doubtful, untouched = in_doubt(ids)
    assert doubtful == sorted(ids)[:WINDOW]
    assert untouched == sorted(ids)[WINDOW:]


@pytest.mark.parametrize("error", [OperationalError, InterfaceError])
def test_a_database_that_hiccups_does_not_lose_facts(fake, monkeypatch, error):
    write, failures = deliver_slice.record, iter([error("gone"), error("still gone")])

    def failing(facts):
        for failure in failures:
            raise failure
        write(facts)

    monkeypatch.setattr(deliver_slice, "record", failing)
    monkeypatch.setattr(deliver_slice, "wait_fixed", lambda seconds: tenacity.wait_none())
    deliver(make_emails(3))
    assert (len(fake.sent), Attempt.objects.count()) == (3, 3)


def test_facts_written_twice_are_there_once(fake, monkeypatch):
    write = deliver_slice.record

    def answer_lost(facts):
        monkeypatch.setattr(deliver_slice, "record", write)
        write(facts)
        raise OperationalError("the answer was lost")

    monkeypatch.setattr(deliver_slice, "record", answer_lost)
    monkeypatch.setattr(deliver_slice, "wait_fixed", lambda seconds: tenacity.wait_none())
    deliver(make_emails(3))
    assert Attempt.objects.count() == 3


def test_an_email_that_is_deleted_while_it_is_sent_takes_no_other_fact_with_it(fake):
    emails = make_emails(3)
    fake.on_send = nth(2, lambda: Email.objects.filter(pk=emails[1].pk).delete() and None)
    deliver(emails)
    assert {a.email_id for a in Attempt.objects.all()} == {emails[0].pk, emails[2].pk}


# Time
def test_what_there_was_no_time_for_is_put_back_untouched(fake, clock):
    emails = make_emails(3)
    fake.on_send = nth(1, lambda: clock.pass_(10))
    assert deliver(emails, seconds=5) == [e.pk for e in emails[1:]]
    assert statuses(emails) == ["sending", "queued", "queued"]
    assert Attempt.objects.count() == 1
    assert all(stored(e).attempt_count == 0 for e in emails)


def test_what_was_put_back_can_be_delivered_at_once(fake, clock):
    emails = make_emails(2)
    fake.on_send = nth(1, lambda: clock.pass_(10))
    deliver_emails(deliver(emails, seconds=5))
    assert fake.ids() == [e.message_id for e in emails]


def test_a_slice_claims_no_more_than_it_has_time_for(fake, clock):
    emails = make_emails(10)
    deliver_slice._pace.learn(1.0)
    claimed = []

    def slow(message, recipients):
        claimed.append(Email.objects.filter(status="sending").count())
        clock.pass_(1)

    fake.on_send = slow
    deliver(emails, seconds=3.5)
    assert claimed[0] == 3


class Idle:
    """Nothing waits beside the slice; what it passes on is kept."""

    def __init__(self):
        self.passed = []
        self.asked = 0

    def waiting(self):
        self.asked += 1
        return Waiting.NOTHING

    def pass_on(self, ids):
        rows = Email.objects.filter(pk__in=ids)
        self.passed.append((ids, set(rows.values_list("status", "attempt_count"))))


def test_half_of_what_is_left_is_passed_on_if_nothing_waits(fake, clock):
    emails = make_emails(12)
    deliver_slice._pace.learn(0.2)
    fake.on_send = lambda message, recipients: clock.pass_(0.2)
    others = Idle()
    assert deliver_emails([e.pk for e in emails], seconds=SECONDS, others=others) == []
    assert others.passed[0] == ([e.pk for e in emails[7:]], {("queued", 0)})
    passed = [pk for ids, _ in others.passed for pk in ids]
    assert fake.ids() == [e.message_id for e in emails if e.pk not in passed]


def test_what_fits_into_the_time_asks_nobody_who_waits(fake, clock):
    emails = make_emails(3)
    deliver_slice._pace.learn(0.05)
    others = Idle()
    deliver_emails([e.pk for e in emails], seconds=SECONDS, others=others)
    assert others.asked == 0
    assert fake.ids() == [e.message_id for e in emails]


def test_nothing_is_passed_on_that_would_soon_be_done(fake, clock):
    emails = make_emails(12)
    deliver_slice._pace.learn(0.04)
    fake.on_send = lambda message, recipients: clock.pass_(0.04)
    others = Idle()
    deliver_emails([e.pk for e in emails], seconds=SECONDS, others=others)
    assert others.passed == []
    assert fake.ids() == [e.message_id for e in emails]


def test_without_experience_a_slice_claims_a_window(fake):
    claimed = []
    fake.on_send = lambda *_: claimed.append(Email.objects.filter(status="sending").count())
    deliver(make_emails(WINDOW + 5), seconds=60)
    assert claimed[0] == WINDOW


def test_at_least_one_email_is_delivered_however_slow_the_server(fake):
    deliver_slice._pace.learn(1000.0)
    emails = make_emails(2)
    deliver(emails, seconds=1)
    assert emails[0].message_id in fake.ids()


def test_the_lease_is_renewed_when_half_of_it_is_gone(fake, clock):
    emails = make_emails(3)
    leases = []

    def slow(message, recipients):
        leases.append(stored(emails[2]).lease_until)
        clock.pass_(conf.get().lease.total_seconds() / 4 + 1)

    fake.on_send = slow
    deliver(emails)
    assert leases[0] == leases[1] < leases[2]


def test_a_lease_is_renewed_after_an_opening_that_took_long(fake, clock):
    email = make_email()
    leases = []
    fake.on_open = lambda: clock.pass_(conf.get().lease.total_seconds() * 3 / 4)
    claimed = []

    def note(message, recipients):
        leases.append(stored(email).lease_until - timezone.now())
        claimed.append(stored(email).status)

    fake.on_send = note
    deliver([email])
    assert leases[0] > conf.get().lease / 2
    assert claimed == ["sending"]


def test_an_email_whose_claim_was_lost_is_not_sent(fake, clock):
    emails = make_emails(3)

    def frozen():
        clock.pass_(conf.get().lease.total_seconds() + 1)
        Email.objects.filter(pk=emails[1].pk).update(claim=uuid4())

    fake.on_send = nth(1, frozen)
    deliver(emails)
    assert emails[1].message_id not in fake.ids()


def test_a_lost_claim_loses_no_facts(fake, clock):
    emails = make_emails(3)

    def frozen():
        clock.pass_(conf.get().lease.total_seconds() + 1)
        Email.objects.filter(pk__in=[e.pk for e in emails]).update(claim=uuid4())

    fake.on_send = nth(2, frozen)
    deliver(emails)
    assert [a.email_id for a in Attempt.objects.order_by("id")] == [e.pk for e in emails[:2]]


def test_after_a_lost_claim_the_rest_is_not_left_behind(fake, clock):
    emails = make_emails(4)

    def frozen():
        clock.pass_(conf.get().lease.total_seconds() + 1)
        Email.objects.filter(pk=emails[1].pk).update(claim=uuid4())

    fake.on_send = nth(1, frozen)
    rest = deliver(emails)
    sent = set(fake.ids()) | {e.message_id for e in emails if e.pk in rest}
    assert sent == {e.message_id for e in (emails[0], emails[2], emails[3])}


# Providers
def test_a_provider_that_does_not_open_costs_one_attempt(fake):
    emails = make_emails(5)
    fake.on_open = lambda: DOWN
    deliver(emails)
    assert (fake.opened, fake.sent) == (1, [])
    fact = Attempt.objects.get()
    assert (fact.email_id, fact.outcome, fact.kind, fact.text) == (
        emails[0].pk,
        "deferred",
        "connection",
        "nobody there",
    )


def test_what_a_dead_provider_holds_up_is_postponed_with_the_reason(fake):
    emails = make_emails(5)
    fake.on_open = lambda: DOWN
    before = timezone.now()
    assert deliver(emails) == []
    assert statuses(emails) == ["sending", *["deferred"] * 4]
    assert {stored(e).reason for e in emails[1:]} == {"provider_open"}
    assert all(stored(e).due_at >= before + FIRST for e in emails[1:])
    assert set(Decision.objects.values_list("email_id", flat=True)) == {e.pk for e in emails[1:]}


def test_a_provider_that_gives_up_in_the_middle_is_not_asked_again(fake):
    emails = make_emails(5)
    fake.on_send = lambda m, recipients: everyone(recipients, DOWN, usable=len(fake.sent) < 3)
    deliver(emails)
    assert fake.ids() == [e.message_id for e in emails[:3]]
    assert Attempt.objects.count() == 3
    assert statuses(emails) == [*["sending"] * 3, *["deferred"] * 2]


def test_other_providers_go_on_when_one_is_dead(fakes):
    fakes["default"].on_open = lambda: DOWN
    dead, alive = make_emails(2), make_emails(2, provider="other")
    deliver([*dead, *alive])
    assert fakes["other"].ids() == [e.message_id for e in alive]
    assert fakes["default"].opened == 1


def test_an_email_goes_to_the_provider_it_names(fakes):
    deliver([make_email(provider="other")])
    assert (len(fakes["default"].sent), len(fakes["other"].sent)) == (0, 1)


def test_a_provider_that_is_gone_from_the_settings_holds_its_mail(fake, fakes, monkeypatch):
    def get(alias):
        if alias == "other":
            raise UnknownProvider("There is no provider 'other'.")
        return fake

    emails = [make_email(provider="other"), make_email()]
    monkeypatch.setattr(providers, "get", get)
    deliver(emails)
    assert fake.ids() == [emails[1].message_id]
    fact = Attempt.objects.get(email=emails[0])
    assert (fact.outcome, fact.kind) == ("deferred", "provider")


# One email among others
def test_an_email_that_cannot_be_built_does_not_touch_the_others(fake, monkeypatch):
    emails = make_emails(3)
    build = deliver_slice.build

    def broken(email, content, enclosures):
        if email.pk == emails[1].pk:
            raise ValueError("a header has a line break")
        return build(email, content, enclosures)

    monkeypatch.setattr(deliver_slice, "build", broken)
    deliver(emails)
    assert fake.ids() == [emails[0].message_id, emails[2].message_id]
    fact = Attempt.objects.get(email=emails[1])
    assert (fact.outcome, fact.kind) == ("rejected", "message")
    assert "a header has a line break" in fact.text


def retried(email, outcomes):
    """``email`` after an attempt in which each recipient had the outcome in ``outcomes``."""
    token = claim([email])
    recipients = {address: [outcome, None, ""] for address, outcome in outcomes.items()}
    make_attempt(email, token, "deferred", kind="temporary", recipients=recipients)
    assert move([email.pk], DEFER, due_at=timezone.now())
    assert move([email.pk], WAKE, due_at=timezone.now())
    return email


THREE = ["a@example.com", "b@example.com", "c@example.com"]


def test_on_a_retry_only_who_still_waits_is_asked(fake):
    email = make_email(to=THREE)
    outcomes = dict(zip(THREE, ["accepted", "deferred", "rejected"], strict=True))
    deliver([retried(email, outcomes)])
    assert fake.sent == [(email.message_id, ["b@example.com"])]


def test_on_a_retry_who_is_in_doubt_is_asked_again(fake):
    email = make_email(to=THREE)
    outcomes = dict(zip(THREE, ["uncertain", "uncertain", "rejected"], strict=True))
    deliver([retried(email, outcomes)])
    assert fake.sent[0][1] == ["a@example.com", "b@example.com"]


def test_an_email_whose_recipients_all_have_an_answer_is_not_sent_again(fake):
    email = make_email(to=THREE)
    deliver([retried(email, dict.fromkeys(THREE, "accepted"))])
    assert fake.sent == []
    assert Attempt.objects.order_by("id").last().outcome == "accepted"


def test_a_slice_shares_one_connection(settings):
    with ScriptedSmtp() as server:
        settings.CELERY_MAILER = {"PROVIDERS": {"default": smtp_provider(server.port)}}
        leave_the_outbox(settings)
        deliver(make_emails(5))
        providers.close_all()
        assert (len(server.sessions), len(server.taken)) == (1, 5)


def test_a_provider_that_raises_leaves_the_other_emails_alone(fake):
    def bug():
        raise RuntimeError("a bug in a provider")

    fake.on_send = nth(2, bug)
    emails = make_emails(4)
    deliver(emails)
    assert len(fake.sent) == 4
    assert Attempt.objects.get(email=emails[1]).outcome == "uncertain"


def test_a_provider_that_cannot_be_made_leaves_the_other_emails_alone(fake, fakes, monkeypatch):
    def get(alias):
        if alias == "other":
            raise AttributeError("module 'settings' has no attribute 'API_KEY'")
        return fake

    emails = [make_email(provider="other"), make_email()]
    monkeypatch.setattr(providers, "get", get)
    deliver(emails)
    assert fake.ids() == [emails[1].message_id]


def test_what_was_certainly_not_begun_is_put_back_when_an_exception_escapes(fake):
    def interrupted():
        raise KeyboardInterrupt

    fake.on_send = nth(2, interrupted)
    emails = make_emails(4)
    with pytest.raises(KeyboardInterrupt):
        deliver(emails)
    assert statuses(emails) == ["sending", "sending", "queued", "queued"]


def test_untouched_emails_claimed_elsewhere_stay_so(fake):
    email = make_email()
    token = uuid4()
    assert move([email.pk], CLAIM, lease_until=timezone.now() + timedelta(minutes=2), token=token)
    deliver([email])
    assert (fake.sent, stored(email).claim) == ([], token)


# Streams
def interrupt():
    raise KeyboardInterrupt


def bug():
    raise RuntimeError("a bug in a provider")


def ids_of(emails):
    return [e.message_id for e in emails]


def test_a_stream_takes_the_emails_in_the_order_of_their_ids(streaming):
    emails = make_emails(10)
    deliver(emails)
    assert streaming.ids() == ids_of(emails)
    assert (streaming.opened, Attempt.objects.count()) == (1, 10)


@pytest.mark.parametrize("at_once", [1, 3, WINDOW, 2 * WINDOW])
def test_no_more_than_a_window_of_a_stream_is_ever_begun_without_a_fact(streaming, monkeypatch, at_once):
    streaming.ahead = streaming.at_once = at_once
    begin, begun, unwritten = deliver_slice._Slice._begin, [], []

    def counted(self, drawn):
        if begin(self, drawn):
            begun.append(drawn)
            unwritten.append(len(begun) - Attempt.objects.count())
        return drawn.begun

    monkeypatch.setattr(deliver_slice._Slice, "_begin", counted)
    emails = make_emails(2 * WINDOW + 5)
    deliver(emails)
    assert max(unwritten) == WINDOW
    assert streaming.ids() == ids_of(emails)


def test_what_a_crash_leaves_in_doubt_is_among_the_first_window(streaming):
    # With whatever was drawn ahead, or could not be built: they must not push it out of the window.
    emails = make_emails(2 * WINDOW)
    streaming.ahead = WINDOW
    doubtful = []

    def crash_here(message, recipients):
        written = set(Attempt.objects.values_list("email_id", flat=True))
        doubtful.append(in_doubt([e.pk for e in emails if e.pk not in written])[0])

    streaming.on_send = crash_here
    deliver(emails)
    assert all(email.pk in first for email, first in zip(emails, doubtful, strict=True))


def test_what_a_stream_drew_and_did_not_begin_is_put_back_when_an_exception_escapes(streaming):
    streaming.on_send = nth(2, interrupt)
    emails = make_emails(6)
    with pytest.raises(KeyboardInterrupt):
        deliver(emails)
    assert statuses(emails) == ["sending", "sending", *["queued"] * 4]
    assert Attempt.objects.count() == 1


def test_a_stream_that_ends_early_is_followed_by_another(streaming):
    streaming.most = 3
    emails = make_emails(10)
    assert deliver(emails) == []
    assert streaming.ids() == ids_of(emails)
    assert streaming.opened == 4


def test_a_stream_that_raises_leaves_in_doubt_what_has_begun_and_nothing_else(streaming):
    streaming.ahead, streaming.at_once = 4, 2
    streaming.on_send = nth(2, bug)
    emails = make_emails(6)
    deliver(emails)
    facts = {a.email_id: a.outcome for a in Attempt.objects.all()}
    assert [facts[e.pk] for e in emails] == ["accepted", "uncertain", *["accepted"] * 4]


def test_a_stream_that_raises_before_it_has_begun_does_not_go_on_for_ever(streaming):
    streaming.send_many = lambda parcels, timeout: (bug() for _ in [1])
    emails = make_emails(2)
    deliver(emails)
    assert set(Attempt.objects.values_list("outcome", flat=True)) == {"uncertain"}
    assert streaming.sent == []


def test_a_database_that_is_gone_is_no_bug_of_the_provider(streaming, monkeypatch):
    def gone(*_):
        raise OperationalError("gone")

    emails = make_emails(3)
    monkeypatch.setattr(deliver_slice._Slice, "_still_ours", gone)
    with pytest.raises(OperationalError):
        deliver(emails)
    assert (streaming.sent, Attempt.objects.count()) == ([], 0)


def test_no_more_is_drawn_when_the_time_is_up(streaming, clock):
    emails = make_emails(6)
    streaming.on_send = nth(2, lambda: clock.pass_(10))
    assert deliver(emails, seconds=5) == [e.pk for e in emails[4:]]
    assert streaming.ids() == ids_of(emails[:4])


def test_an_email_of_a_stream_that_cannot_be_built_has_its_fact(streaming, monkeypatch):
    emails = make_emails(4)
    build = deliver_slice.build

    def broken(email, content, enclosures):
        if email.pk == emails[2].pk:
            raise ValueError("a header has a line break")
        return build(email, content, enclosures)

    monkeypatch.setattr(deliver_slice, "build", broken)
    deliver(emails)
    facts = {a.email_id: a.outcome for a in Attempt.objects.all()}
    assert [facts[e.pk] for e in emails] == ["accepted", "accepted", "rejected", "accepted"]


def test_a_recipient_that_cannot_be_written_rejects_its_email_alone(streaming):
    emails = make_emails(3)
    Email.objects.filter(pk=emails[1].pk).update(to=["a@b@c <"])
    deliver(emails)
    assert streaming.ids() == [emails[0].message_id, emails[2].message_id]
    assert Attempt.objects.get(email=emails[1]).kind == "message"


def test_a_stream_stops_where_another_provider_is_meant(fakes, streaming):
    emails = [make_email(), make_email(provider="other"), make_email()]
    deliver(emails)
    assert (len(streaming.sent), len(fakes["other"].sent)) == (2, 1)
    assert streaming.opened == 2


def test_what_was_drawn_from_a_stream_that_cannot_be_used_is_postponed(streaming):
    emails = make_emails(5)
    streaming.on_send = lambda m, recipients: everyone(recipients, DOWN, usable=len(streaming.sent) < 2)
    streaming.most = 2
    deliver(emails)
    assert statuses(emails) == ["sending", "sending", *["deferred"] * 3]


def test_the_lease_is_renewed_when_a_result_took_long(streaming, clock):
    emails = make_emails(3)
    streaming.on_send = nth(1, lambda: clock.pass_(conf.get().lease.total_seconds() * 3 / 4))
    before = timezone.now() + conf.get().lease
    deliver(emails)
    assert stored(emails[2]).lease_until > before


def test_an_email_of_a_stream_whose_claim_was_lost_is_not_sent(streaming, clock):
    emails = make_emails(5)

    def frozen():
        clock.pass_(conf.get().lease.total_seconds() + 1)
        Email.objects.filter(pk__in=[e.pk for e in emails]).update(claim=uuid4())

    streaming.on_send = nth(2, frozen)
    assert deliver(emails) == []
    assert streaming.ids() == ids_of(emails[:2])
    assert Attempt.objects.count() == 2


# Streams over SMTP
@pytest.fixture
def serve(settings):
    """Starts a scripted server that pipelines, and makes it the default provider."""
    with ExitStack() as stack:

        def start(*scripts):
            server = stack.enter_context(ScriptedSmtp(*scripts, extensions=("SIZE", "PIPELINING")))
            settings.CELERY_MAILER = {"PROVIDERS": {"default": smtp_provider(server.port)}}
            leave_the_outbox(settings)
            return server

        yield start
        providers.close_all()


def arrived(server):
    return [t.message["Message-ID"] for t in server.taken]


def test_a_slice_is_pipelined(serve):
    server = serve()
    emails = make_emails(50)
    deliver(emails)
    assert arrived(server) == ids_of(emails)
    assert [s.pipelined for s in server.sessions] == [True]
    assert Attempt.objects.filter(outcome="accepted").count() == 50


def test_common_mail_goes_out_without_a_message_being_built(serve, monkeypatch):
    server = serve()
    monkeypatch.delattr(deliver_slice, "build")
    deliver(emails := make_emails(3))
    assert arrived(server) == ids_of(emails)


def test_an_unusual_mail_goes_out_among_common_ones(serve):
    server = serve()
    emails = make_emails(3)
    Content.objects.filter(pk=emails[1].pk).update(shape={"subtype": "markdown"})
    deliver(emails)
    assert [t.message.get_content_type() for t in server.taken] == [
        "text/plain",
        "text/markdown",
        "text/plain",
    ]


def test_two_slices_share_a_connection(serve):
    server = serve()
    for _ in range(2):
        deliver(make_emails(3))
    assert (len(server.sessions), len(server.taken)) == (1, 6)


@pytest.mark.parametrize("step", ["MAIL", "RCPT", "DATA"])
@pytest.mark.parametrize("action", [drop, reset, "what", "503 no"], ids=lambda a: getattr(a, "__name__", a))
def test_a_line_that_breaks_in_a_slice_costs_nobody_anything(serve, step, action):
    goes_well = {"DATA": "354 go ahead"}.get(step, "250 fine")
    server = serve({step: each(goes_well, goes_well, action)}, {})
    emails = make_emails(6)
    deliver(emails)
    assert arrived(server) == ids_of(emails)
    assert [a.outcome for a in Attempt.objects.all()] == ["accepted"] * 6


def test_of_a_slice_whose_line_breaks_after_a_dot_one_is_uncertain_and_none_is_sent_twice(serve):
    server = serve({"dot": each("250 taken", [take, drop])}, {})
    emails = make_emails(6)
    deliver(emails)
    assert arrived(server) == ids_of(emails)
    facts = {a.email_id: a.outcome for a in Attempt.objects.all()}
    assert [facts[e.pk] for e in emails] == ["accepted", "uncertain", *["accepted"] * 4]
    assert [s.pipelined for s in server.sessions] == [True, False]


def test_a_time_limit_in_a_pipelined_slice_leaves_one_email_in_doubt(serve, monkeypatch):
    server = serve()
    emails = make_emails(6)
    compose = deliver_slice.wire.compose

    def limited(email, content, enclosures):
        if email.pk == emails[3].pk:
            raise SoftTimeLimitExceeded
        return compose(email, content, enclosures)

    monkeypatch.setattr(deliver_slice.wire, "compose", limited)
    with pytest.raises(SoftTimeLimitExceeded):
        deliver(emails)
    # The fourth is composed while the second is on its way.
    assert statuses(emails) == ["sending", "sending", *["queued"] * 4]
    assert [a.email_id for a in Attempt.objects.all()] == [emails[0].pk]
    monkeypatch.undo()
    deliver(emails)
    assert Counter(arrived(server)) - Counter(ids_of(emails)) == Counter()
    assert set(ids_of(emails)) - set(arrived(server)) <= {emails[1].message_id}
