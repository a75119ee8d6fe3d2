"""What becomes of an email when its SMTP server misbehaves: through all three stages, until it is over."""

from datetime import timedelta

import pytest
from django.utils import timezone

from celery_mailer import chain, periodic
from celery_mailer.deliver import providers
from celery_mailer.models import Attempt, Email
from celery_mailer.models.transitions import push_due
from tests.conftest import leave_the_outbox, smtp_provider
from tests.factories import make_email, make_emails, stored
from tests.servers.scripted_smtp import ScriptedSmtp, drop, reset, silence, take

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def serve(settings):
    """Starts a scripted server and makes it the default provider."""
    servers = []

    def start(*scripts, on_uncertain="hold", lease=60):
        server = ScriptedSmtp(*scripts)
        servers.append(server)
        server.__enter__()
        settings.CELERY_MAILER = {
            "PROVIDERS": {"default": smtp_provider(server.port)},
            "LEASE": timedelta(seconds=lease),
            "ON_UNCERTAIN": on_uncertain,
        }
        leave_the_outbox(settings)
        providers.close_all()
        return server

    yield start
    providers.close_all()
    for server in servers:
        server.__exit__(None, None, None)


def run_again(*emails):
    """What the dispatcher and a chain do when the emails are due."""
    ids = [e.pk for e in emails]
    push_due(ids, timezone.now() - timedelta(seconds=1))
    periodic._take_due(1, timezone.now())
    chain.run(ids)


DROPPED = ["connect", "EHLO", "MAIL", "RCPT", "DATA", "body"]


@pytest.mark.parametrize("action", [drop, reset], ids=["closed", "reset"])
@pytest.mark.parametrize("step", DROPPED)
def test_a_line_that_breaks_before_the_final_dot_defers(serve, step, action):
    server = serve({step: action}, {})
    # In the body: larger than what the system takes on its own account, or the dot is on its way as well.
    email = make_email(message=("x" * 70 + "\n") * 85_000 if step == "body" else "m")
    chain.run([email.pk])
    assert (stored(email).status, stored(email).reason) == ("deferred", "connection")
    run_again(email)
    assert stored(email).status == "sent"
    assert len(server.taken) == 1


@pytest.mark.parametrize("action", [drop, reset, silence], ids=["closed", "reset", "silent"])
def test_a_line_that_breaks_after_the_final_dot_is_uncertain_and_held(serve, action):
    server = serve({"dot": [take, action]}, {}, lease=4)  # half of it is how long a hand-over may take
    email = make_email()
    chain.run([email.pk])
    assert (stored(email).status, stored(email).reason) == ("uncertain", "no_answer")
    run_again(email)
    assert stored(email).status == "uncertain"
    assert len(server.taken) == 1


def test_in_a_stream_that_resends_uncertain_mail_is_recorded_and_tried_again(serve):
    server = serve({"dot": [take, drop]}, {}, on_uncertain="resend")
    email = make_email()
    chain.run([email.pk])
    assert stored(email).status == "deferred"
    run_again(email)
    assert stored(email).status == "sent"
    outcomes = Attempt.objects.filter(email=email).order_by("id").values_list("outcome", flat=True)
    assert list(outcomes) == ["uncertain", "accepted"]
    assert {t.message["Message-ID"] for t in server.taken} == {email.message_id}


@pytest.mark.parametrize(
    ("script", "status", "reason"),
    [
        ({"connect": "421 too busy"}, "deferred", "connection"),
        ({"connect": "554 not for you"}, "deferred", "provider"),
        ({"MAIL": "451 later"}, "deferred", "temporary"),
        ({"MAIL": "550 not this sender"}, "failed", "sender"),
        ({"RCPT": "451 greylisted"}, "deferred", "temporary"),
        ({"RCPT": "550 no such user"}, "failed", "recipient"),
        ({"RCPT": "421 closing"}, "deferred", "connection"),
        ({"DATA": "451 later"}, "deferred", "temporary"),
        ({"DATA": "554 no"}, "failed", "content"),
        ({"dot": "451 later"}, "deferred", "temporary"),
        ({"dot": "550 looks like spam"}, "failed", "content"),
        ({"MAIL": "530 login first"}, "deferred", "provider"),
    ],
    ids=str,
)
def test_a_reply_leads_to_its_status(serve, script, status, reason):
    server = serve(script)
    email = make_email()
    chain.run([email.pk])
    assert (stored(email).status, stored(email).reason) == (status, reason)
    assert server.taken == []


THREE = ["a@example.com", "b@example.com", "c@example.com"]


def test_of_three_recipients_one_is_refused_and_the_others_get_it_once(serve):
    server = serve({"RCPT b@example.com": "550 no such user"})
    email = make_email(to=THREE)
    chain.run([email.pk])
    assert (stored(email).status, stored(email).reason) == ("sent", "partly_rejected")
    assert [t.recipients for t in server.taken] == [["a@example.com", "c@example.com"]]
    people = Attempt.objects.get(email=email).recipients
    assert {a: (o, code) for a, (o, code, _) in people.items()} == {
        "a@example.com": ("accepted", 250),
        "b@example.com": ("rejected", 550),
        "c@example.com": ("accepted", 250),
    }


def test_who_was_deferred_is_asked_again_and_nobody_else(serve):
    server = serve({"RCPT b@example.com": "451 later", "RCPT c@example.com": "550 no"}, {})
    email = make_email(to=THREE)
    chain.run([email.pk])
    assert stored(email).status == "deferred"
    providers.close_all()
    run_again(email)
    assert (stored(email).status, stored(email).reason) == ("sent", "partly_rejected")
    assert [t.recipients for t in server.taken] == [["a@example.com"], ["b@example.com"]]


def test_one_bad_mail_does_not_touch_the_others_of_its_slice(serve):
    server = serve({"RCPT u1@example.com": "550 no", "RCPT u3@example.com": "451 later"})
    emails = make_emails(5)
    chain.run([e.pk for e in emails])
    assert [stored(e).status for e in emails] == ["sent", "failed", "sent", "deferred", "sent"]
    assert len(server.taken) == 3


def test_a_server_that_is_down_costs_one_attempt_for_the_whole_slice(serve):
    serve({"connect": "421 too busy"})
    emails = make_emails(50)
    chain.run([e.pk for e in emails])
    assert {stored(e).status for e in emails} == {"deferred"}
    assert Attempt.objects.count() == 1
    assert Email.objects.filter(attempt_count=0).count() == 49
