"""django-post_office's functions, argument for argument; the behaviours are those of its own suite."""

import hashlib
import inspect
from datetime import timedelta

import pytest
from django.core import mail as django_mail
from django.core.exceptions import ValidationError
from django.core.files.base import ContentFile
from django.core.mail.backends.base import BaseEmailBackend
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from celery_mailer import chain, mail
from celery_mailer.exceptions import InvalidEmail
from celery_mailer.models import Batch, Content, Email
from celery_mailer.signals import email_queued
from celery_mailer.values import Priority
from tests.conftest import leave_the_outbox
from tests.factories import stored

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)
TO = "a@b.example"
PROVIDERS = {"default": {"BACKEND": "django.core.mail.backends.locmem.EmailBackend"}}

# django-post_office 3.12, mail.send: names, order and defaults.
POST_OFFICE = {
    "recipients": None,
    "sender": None,
    "template": None,
    "context": None,
    "subject": "",
    "message": "",
    "html_message": "",
    "scheduled_time": None,
    "expires_at": None,
    "headers": None,
    "priority": None,
    "attachments": None,
    "render_on_delivery": False,
    "log_level": None,
    "commit": True,
    "cc": None,
    "bcc": None,
    "language": "",
    "backend": "",
}


class Unreachable(BaseEmailBackend):
    def send_messages(self, email_messages):
        raise ConnectionRefusedError("nobody listens")


@pytest.fixture
def commit(django_capture_on_commit_callbacks):
    """``with commit():`` is a transaction that commits at its end."""
    return lambda: django_capture_on_commit_callbacks(execute=True)


@pytest.fixture
def started(monkeypatch):
    """What was published: (ids, priority) for each chain."""
    calls = []

    def start(ids, priority):
        if ids:
            calls.append((list(ids), priority))
        return True

    monkeypatch.setattr(chain, "start", start)
    return calls


@pytest.fixture
def queued():
    """The lists of emails that ``email_queued`` told of."""
    calls = []

    def receiver(sender, emails, **kwargs):
        assert sender is Email
        calls.append(emails)

    email_queued.connect(receiver)
    yield calls
    email_queued.disconnect(receiver)


def content(email):
    return Content.objects.get(pk=email.pk)


# The signature.


def test_the_arguments_are_post_offices_in_its_order_with_its_defaults():
    parameters = inspect.signature(mail.send).parameters.values()
    ours = {p.name: p.default for p in parameters if p.kind != p.VAR_KEYWORD}
    assert list(ours.items()) == list(POST_OFFICE.items())


def test_every_argument_may_be_given_by_position(started):
    later = timezone.now() + HOUR
    email = mail.send(
        [TO], "s@b.example", None, None, "Subject", "Text", "<p>", later, later + HOUR, {"X-A": "1"}, "high",
        None, False, None, True, ["c@b.example"], ["d@b.example"], "de", "default",
    )  # fmt: skip
    assert (email.to, email.cc, email.bcc) == ([TO], ["c@b.example"], ["d@b.example"])
    assert (email.priority, email.provider) == (Priority.HIGH, "default")
    assert (email.scheduled_at, email.expires_at) == (later, later + HOUR)
    words = content(email)
    assert (words.from_email, words.subject, words.text, words.html) == (
        "s@b.example",
        "Subject",
        "Text",
        "<p>",
    )
    assert (words.headers, words.language) == ({"X-A": "1"}, "de")


def test_what_every_door_knows_is_known_here_too():
    email = mail.send(
        TO,
        subject="s",
        reply_to="r@b.example",
        stream="marketing",
        idempotency_key="k",
        tags=["t"],
        metadata={"a": 1},
        sensitive=True,
    )
    words = content(email)
    assert email.stream == "marketing"
    assert email.idempotency_key == hashlib.sha256(b"k").hexdigest()
    assert (words.reply_to, words.tags, words.metadata) == (["r@b.example"], ["t"], {"a": 1})
    assert words.sensitive


def test_the_other_doors_names_are_known_here_too():
    later = timezone.now() + HOUR
    email = mail.send(to=[TO], from_email="s@b.example", scheduled_at=later, provider="default")
    assert (email.to, email.scheduled_at, email.provider) == ([TO], later, "default")
    assert content(email).from_email == "s@b.example"


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("recipients", "to"),
        ("sender", "from_email"),
        ("scheduled_time", "scheduled_at"),
        ("backend", "provider"),
    ],
)
def test_an_argument_given_by_both_of_its_names_is_refused(name, other):
    with pytest.raises(InvalidEmail, match=f"{name}: cannot be given together with {other}"):
        mail.send(**{name: "a@b.example", other: "c@d.example"})


def test_an_unknown_argument_is_a_type_error():
    with pytest.raises(TypeError, match="colour"):
        mail.send(TO, colour="red")


# One email.


def test_an_email_is_returned_as_its_row():
    email = mail.send(TO, subject="s", message="m")
    assert isinstance(email, Email)
    assert stored(email) == email
    assert stored(email).status == "queued"


def test_one_recipient_is_a_list_of_one():
    assert mail.send(TO).to == mail.send([TO]).to == [TO]


def test_several_recipients_are_one_email():
    email = mail.send(["a@b.example", "c@d.example"])
    assert Email.objects.count() == 1
    assert email.to == ["a@b.example", "c@d.example"]


@pytest.mark.parametrize("field", ["recipients", "cc", "bcc"])
def test_an_invalid_recipient_is_a_validation_error_and_no_row(field):
    with pytest.raises(ValidationError):
        mail.send(**{"recipients": TO, field: ["nobody"]})
    assert not Email.objects.exists()


def test_an_invalid_sender_is_a_validation_error_and_no_row():
    with pytest.raises(ValidationError):
        mail.send(TO, "nobody")
    assert not Email.objects.exists()


def test_a_name_beside_the_address_is_kept_with_its_comma():
    assert stored(mail.send('"Doe, John" <a@b.example>')).to == ['"Doe, John" <a@b.example>']


@pytest.mark.parametrize("priority", [Priority.LOW, Priority.MEDIUM, Priority.HIGH])
def test_a_priority_may_be_a_name_or_a_number(priority):
    for spelling in (priority, priority.label, int(priority)):
        assert mail.send(TO, priority=spelling).priority == priority


def test_the_default_priority_is_medium():
    assert mail.send(TO).priority == Priority.MEDIUM


def test_an_unknown_priority_is_a_value_error_with_the_known_ones():
    with pytest.raises(ValueError, match="now, high, medium, low"):
        mail.send(TO, priority="urgent")


def test_an_unknown_backend_is_a_value_error():
    with pytest.raises(ValueError, match="provider: 'sess' is unknown"):
        mail.send(TO, backend="sess")


@pytest.mark.parametrize("name", ["subject", "message", "html_message"])
def test_words_beside_a_template_are_a_value_error(name):
    with pytest.raises(ValueError, match=f"{name}: cannot be given together with template"):
        mail.send(TO, template="mail/welcome.html", **{name: "x"})


def test_a_template_takes_its_context():
    email = mail.send(TO, template="mail/welcome.html", context={"name": "Ann"})
    assert (content(email).template, content(email).context) == ("mail/welcome.html", {"name": "Ann"})


def test_scheduled_after_it_expires_is_a_validation_error():
    now = timezone.now()
    with pytest.raises(ValidationError):
        mail.send(TO, scheduled_time=now + 2 * HOUR, expires_at=now + HOUR)


def test_a_mail_may_be_rendered_on_delivery():
    email = mail.send(TO, template="mail/welcome.html", render_on_delivery=True)
    assert content(email).render_on_delivery


def test_what_is_rendered_on_delivery_needs_a_template():
    with pytest.raises(ValueError, match="render_on_delivery: needs a template"):
        mail.send(TO, message="x", render_on_delivery=True)


def test_the_log_level_is_the_settings_unless_it_is_given(settings):
    settings.CELERY_MAILER = {"LOG_LEVEL": 1}
    assert mail.send(TO).log_level == 1
    assert mail.send(TO, log_level=0).log_level == 0


@pytest.mark.parametrize("level", [3, -1, "2", True])
def test_a_log_level_that_is_none_is_refused(level):
    with pytest.raises(InvalidEmail, match="log_level: must be 0, 1 or 2"):
        mail.send(TO, log_level=level)


def test_without_commit_nothing_is_written():
    email = mail.send(TO, subject="s", commit=False)
    assert email._state.adding
    assert not Email.objects.exists()


def test_what_was_not_committed_is_queued_once_it_is_saved():
    email = mail.send(TO, subject="s", commit=False)
    email.save()
    assert content(email).subject == "s"
    assert Email.objects.get().due_at <= timezone.now()


@pytest.mark.parametrize(
    ("name", "value"), [("priority", "now"), ("attachments", {"a.txt": ContentFile(b"x")})]
)
def test_what_needs_a_commit_is_refused_without(name, value):
    with pytest.raises(ValueError, match=f"{name}: cannot be"):
        mail.send(TO, commit=False, **{name: value})


@pytest.mark.parametrize("nothing", [None, [], {}, ()])
def test_no_attachments_are_no_attachments(nothing):
    assert mail.send(TO, attachments=nothing).to == [TO]


# Chains.


def test_the_chain_starts_at_commit(commit, started):
    with commit():
        email = mail.send(TO, priority="high")
        assert started == []
    assert started == [([email.pk], Priority.HIGH)]


def test_scheduled_mail_waits_for_the_dispatcher(commit, started):
    with commit():
        mail.send(TO, scheduled_time=timezone.now() + HOUR)
    assert started == []


def test_mail_that_was_scheduled_for_the_past_starts_at_once(commit, started):
    with commit():
        mail.send(TO, scheduled_time=timezone.now() - HOUR)
    assert len(started) == 1


# The signal.


def test_the_project_is_told_after_the_commit(commit, queued, started):
    with commit():
        email = mail.send(TO)
        assert queued == []
    assert queued == [[email]]


def test_the_project_is_not_told_of_what_is_sent_now(commit, queued, settings):
    settings.CELERY_MAILER = {"PROVIDERS": PROVIDERS}
    with commit():
        mail.send(TO, subject="s", message="m", priority="now")
    assert queued == []


def test_the_project_is_told_once_of_many(commit, queued, started):
    with commit():
        emails = mail.send_many([{"recipients": f"u{i}@b.example"} for i in range(5)])
    assert queued == [emails]


def test_the_project_is_not_told_of_a_repetition(commit, queued, started):
    with commit():
        first = mail.send(TO, idempotency_key="k")
    with commit():
        mail.send(TO, idempotency_key="k")
    assert queued == [[first]]


def test_a_receiver_that_raises_hurts_nobody(commit, queued, started):
    def raising(**kwargs):
        raise RuntimeError("a receiver's fault")

    email_queued.connect(raising)
    try:
        with commit():
            email = mail.send(TO)
    finally:
        email_queued.disconnect(raising)
    assert queued == [[email]]
    assert len(started) == 1


# Many.


@pytest.fixture
def many():
    return lambda number: [{"recipients": f"u{i}@b.example", "subject": f"s{i}"} for i in range(number)]


def test_many_emails_come_back_in_the_order_given(many):
    emails = mail.send_many(many(20))
    assert [e.to for e in emails] == [[f"u{i}@b.example"] for i in range(20)]
    assert [content(e).subject for e in emails] == [f"s{i}" for i in range(20)]


def test_many_emails_sort_in_the_order_given(many):
    emails = mail.send_many(many(20))
    assert sorted(e.pk for e in emails) == [e.pk for e in emails]


def test_many_emails_may_come_from_a_generator(many):
    assert len(mail.send_many(kwargs for kwargs in many(3))) == 3


def test_many_emails_are_one_batch(many):
    emails = mail.send_many(many(3))
    batch = Batch.objects.get()
    assert batch.total == 3
    assert {stored(e).batch_id for e in emails} == {batch.pk}


def test_no_emails_are_no_batch():
    assert mail.send_many([]) == []
    assert not Batch.objects.exists()


def test_one_email_alone_is_no_batch():
    assert mail.send(TO).batch is None


@pytest.mark.parametrize("priority", ["now", Priority.NOW])
def test_many_emails_cannot_be_sent_now(many, priority):
    with pytest.raises(ValueError, match="'now'"):
        mail.send_many([*many(2), {"recipients": TO, "priority": priority}])
    assert not Email.objects.exists()


def test_many_emails_cannot_be_sent_now_by_default_either(many, settings):
    settings.CELERY_MAILER = {"DEFAULT_PRIORITY": "now"}
    with pytest.raises(ValueError, match="'now'"):
        mail.send_many(many(2))


def test_many_emails_start_one_chain_for_each_priority(many, commit, started):
    kwargs_list = [{**k, "priority": "high" if i % 2 else "low"} for i, k in enumerate(many(6))]
    with commit():
        emails = mail.send_many(kwargs_list)
    assert started == [
        ([e.pk for e in emails[1::2]], Priority.HIGH),
        ([e.pk for e in emails[::2]], Priority.LOW),
    ]


def test_many_emails_cost_as_many_queries_as_few(many, monkeypatch, started):
    # What a statement of this SQLite may hold is not what is measured here.
    monkeypatch.setattr(connection.ops, "bulk_batch_size", lambda fields, objs: len(objs) or 1)
    counts = []
    for number in (3, 300):
        with transaction.atomic(), CaptureQueriesContext(connection) as queries:
            mail.send_many(many(number))
        counts.append(len([q for q in queries if "SAVEPOINT" not in q["sql"]]))
    assert counts == [3, 3]


# Now.


@pytest.fixture
def outbox(settings):
    """Django's outbox as the only way out."""
    settings.CELERY_MAILER = {"PROVIDERS": PROVIDERS}
    django_mail.outbox = []
    return django_mail.outbox


@pytest.mark.django_db(transaction=True)
def test_now_is_sent_before_it_returns(outbox):
    email = mail.send(TO, subject="s", message="m", priority="now")
    assert email.status == "sent"
    assert stored(email).status == "sent"
    assert [m.to for m in outbox] == [[TO]]


@pytest.mark.django_db(transaction=True)
def test_now_inside_a_transaction_is_at_its_commit(outbox):
    with transaction.atomic():
        email = mail.send(TO, subject="s", message="m", priority="now")
        assert outbox == []
    assert len(outbox) == 1
    assert email.status == "sent"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("priority", ["now", "high"])
def test_rolled_back_it_never_existed(outbox, queued, started, priority):
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        mail.send(TO, subject="s", message="m", priority=priority)
        raise ZeroDivisionError
    assert (outbox, queued, started) == ([], [], [])
    assert not Email.objects.exists()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("priority", ["now", "high"])
def test_a_rolled_back_savepoint_takes_its_mail_with_it(outbox, queued, started, priority):
    with transaction.atomic(), pytest.raises(ZeroDivisionError), transaction.atomic():
        mail.send(TO, subject="s", message="m", priority=priority)
        raise ZeroDivisionError
    assert (outbox, queued, started) == ([], [], [])
    assert not Email.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_now_renders_its_template(outbox):
    mail.send(TO, template="mail/welcome.html", context={"name": "Ann"}, priority="now")
    (message,) = outbox
    assert (message.subject, message.body) == ("Welcome, Ann!", "Hello Ann\n")


@pytest.mark.django_db(transaction=True)
def test_now_with_a_faulty_template_has_failed_and_does_not_raise(outbox):
    email = mail.send(TO, template="mail/bad_include.html", priority="now")
    assert (email.status, email.reason) == ("failed", "render")
    assert outbox == []


@pytest.mark.django_db(transaction=True)
def test_now_with_a_provider_that_is_down_is_deferred_and_does_not_raise(settings):
    leave_the_outbox(settings)
    settings.CELERY_MAILER = {"PROVIDERS": {"down": {"BACKEND": f"{__name__}.Unreachable"}}}
    email = mail.send(TO, subject="s", message="m", priority="now")
    assert (email.status, email.reason) == ("deferred", "connection")
    assert email.due_at > timezone.now()
