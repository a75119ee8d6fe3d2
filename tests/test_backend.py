"""The door for what Django itself sends: queued unchanged, or refused, never changed in silence."""

import logging

import django
import pytest
from django.contrib.auth.forms import PasswordResetForm
from django.contrib.auth.models import User
from django.core import mail
from django.core.mail import EmailMessage, EmailMultiAlternatives, mail_admins, send_mail, send_mass_mail
from django.db import transaction
from django.forms import model_to_dict
from django.utils import translation
from django.utils.functional import lazystr

from celery_mailer import conf
from celery_mailer.backends import EmailBackend
from celery_mailer.deliver.message import build
from celery_mailer.exceptions import InvalidEmail, UnknownProvider
from celery_mailer.models import Content, Email, Message
from celery_mailer.render.stage import render_emails
from celery_mailer.values import Priority

pytestmark = [
    pytest.mark.django_db,
    # Django 6.1 deprecates them, and works with them.
    pytest.mark.filterwarnings("ignore:The EMAIL_.* setting is deprecated"),
    pytest.mark.filterwarnings("ignore:The '(fail_silently|auth_user)'.*deprecated"),
    pytest.mark.filterwarnings("ignore:get_connection.. is deprecated"),
]

MAILERS = django.VERSION >= (6, 1)
needs_mailers = pytest.mark.skipif(not MAILERS, reason="MAILERS came with Django 6.1")
SMTP = {"BACKEND": conf.SMTP_BACKEND}
TO = "a@b.example"
SECRET = "hunter2-tops3cret"


@pytest.fixture
def queueing(settings):
    """Everything that Django sends goes through our backend, as a project would set it up."""

    def _queueing(**options):
        if MAILERS:
            mailer = {"BACKEND": conf.QUEUE_BACKEND, "OPTIONS": {"using": "smtp", **options}}
            settings.MAILERS = {"default": mailer, "smtp": SMTP}
        else:
            settings.EMAIL_BACKEND = conf.QUEUE_BACKEND

    _queueing()
    return _queueing


def message(**fields):
    return EmailMessage(**{"subject": "s", "body": "b", "from_email": "s@b.example", "to": [TO], **fields})


def backend(**options):
    return EmailBackend(**options)


def only():
    """The one email that was queued, with its content."""
    email = Email.objects.select_related("content").get()
    return email, email.content


def refusal(*messages, **options):
    with pytest.raises(InvalidEmail) as error:
        backend(**options).send_messages(messages)
    assert not Email.objects.exists()
    return error.value.field


# What Django sends.


def test_send_mail_is_queued_and_nothing_is_sent(queueing):
    assert send_mail("Subject", "Body", "s@b.example", [TO]) == 1
    email, content = only()
    assert (email.status, email.to) == ("queued", [TO])
    assert (content.subject, content.text, content.html) == ("Subject", "Body", "")
    assert content.from_email == "s@b.example"
    assert mail.outbox == []


def test_html_beside_the_text_is_kept(queueing):
    send_mail("Subject", "Body", None, [TO], html_message="<p>Body</p>")
    _, content = only()
    assert (content.text, content.html) == ("Body", "<p>Body</p>")


def test_send_mass_mail_is_queued(queueing):
    assert send_mass_mail([("1", "a", None, ["a@b.example"]), ("2", "b", None, ["c@d.example"])]) == 2
    assert Email.objects.count() == 2


def test_mail_to_the_admins_is_queued(queueing, settings):
    settings.ADMINS = ["x@b.example"] if django.VERSION >= (6, 0) else [("X", "x@b.example")]
    settings.SERVER_EMAIL = "root@localhost"
    mail_admins("Trouble", "Help", html_message="<b>Help</b>")
    email, content = only()
    assert email.to == ["x@b.example"]
    assert (content.subject, content.html) == ("[Django] Trouble", "<b>Help</b>")
    assert content.from_email == "root@localhost"


@pytest.mark.urls("django.contrib.auth.urls")
def test_a_password_reset_is_queued(queueing, client):
    User.objects.create_user("ann", TO, "old")
    form = PasswordResetForm({"email": TO})
    assert form.is_valid()
    form.save(domain_override="shop.example", from_email="s@b.example")
    email, content = only()
    assert email.to == [TO]
    assert "shop.example" in content.text


def test_every_part_of_a_message_is_kept(queueing):
    sent = EmailMultiAlternatives(
        subject="Subject",
        body="Body",
        from_email='"Doe, John" <s@b.example>',
        to=["a@b.example", "Ann <c@d.example>"],
        cc=["e@f.example"],
        bcc=["g@h.example"],
        reply_to=["r@b.example", "q@b.example"],
        headers={"X-A": "1", "Message-ID": "<mine@b.example>"},
    )
    sent.attach_alternative("<p>Body</p>", "text/html")
    assert sent.send() == 1
    email, content = only()
    assert (email.to, email.cc, email.bcc) == (sent.to, sent.cc, sent.bcc)
    assert email.message_id == "<mine@b.example>"
    assert (content.from_email, content.reply_to) == (sent.from_email, sent.reply_to)
    assert (content.subject, content.text, content.html) == ("Subject", "Body", "<p>Body</p>")
    assert content.headers["X-A"] == "1"


def test_what_goes_out_is_what_came_in(queueing):
    sent = EmailMultiAlternatives(
        "Subject",
        "Body",
        "Jörg <s@b.example>",
        [TO],
        cc=["c@d.example"],
        headers={"X-A": "1", "Message-ID": "<mine@b.example>", "Date": "Mon, 01 Jun 2026 12:00:00 +0000"},
    )
    sent.attach_alternative("<p>Body</p>", "text/html")
    sent.send()
    rebuilt = build(*only()).message()
    original = sent.message()
    assert sorted(h for h in rebuilt.items() if h[0] != "Content-Type") == sorted(
        h for h in original.items() if h[0] != "Content-Type"
    )
    assert [p.get_payload(decode=True) for p in rebuilt.walk()] == [
        p.get_payload(decode=True) for p in original.walk()
    ]


def test_html_alone_is_html():
    html = message(body="<p>Body</p>")
    html.content_subtype = "html"
    assert backend().send_messages([html]) == 1
    _, content = only()
    assert (content.text, content.html) == ("", "<p>Body</p>")


@pytest.mark.parametrize("body", ["{{ x }}", "{% include 'secret.txt' %}", "{# x #}", "{{{", "100 %}"])
def test_a_body_is_never_parsed_as_a_template(body):
    sent = EmailMultiAlternatives(body, body, "s@b.example", [TO])
    sent.attach_alternative(body, "text/html")
    backend().send_messages([sent])
    email, content = only()
    render_emails([email.pk])
    assert not Message.objects.exists()
    assert not content.needs_rendering
    built = build(email, content)
    assert (built.subject, built.body, built.alternatives[0][0]) == (body, body, body)


def test_lazy_words_are_resolved():
    backend().send_messages([message(subject=lazystr("lazy"), body=lazystr("lazier"))])
    _, content = only()
    assert (content.subject, content.text) == ("lazy", "lazier")


def test_an_email_belongs_to_the_callers_transaction(queueing):
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        send_mail("Subject", "Body", None, [TO])
        raise ZeroDivisionError
    assert not Email.objects.exists()


# What it returns.


def test_it_returns_how_many_it_queued_as_a_number():
    count = backend().send_messages([message(), message()])
    assert (count, type(count)) == (2, int)


@pytest.mark.parametrize("nothing", [[], (), None])
def test_nothing_to_send_is_zero(nothing):
    assert backend().send_messages(nothing) == 0


def test_a_message_to_nobody_is_left_out():
    assert backend().send_messages([message(to=[]), message(), message(to=[], cc=[""])]) == 1
    assert Email.objects.count() == 1


def test_empty_addresses_are_left_out_as_django_does():
    backend().send_messages([message(to=["", TO, None], cc=[""])])
    email, _ = only()
    assert (email.to, email.cc) == ([TO], [])


def test_one_call_inserts_all_its_messages_at_once(django_assert_max_num_queries):
    with django_assert_max_num_queries(4):  # with the savepoint around them
        backend().send_messages([message() for _ in range(20)])
    assert Email.objects.count() == 20


# What it cannot carry is refused.


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"to": ["nobody"]}, "to[0]"),
        ({"subject": "a\nBcc: x@y.example"}, "subject"),
        ({"headers": {"Bcc": "x@y.example"}}, "headers['Bcc']"),
        ({"headers": {"X-A": "1\nBcc: x@y.example"}}, "headers['X-A']"),
        ({"from_email": "nobody"}, "from_email"),
    ],
)
def test_a_faulty_message_is_refused(fields, field):
    assert refusal(message(**fields)) == field


def test_one_faulty_message_and_none_is_queued():
    refusal(message(), message(to=["nobody"]), message())


# In silence.


def test_in_silence_a_faulty_message_is_not_counted():
    assert backend(fail_silently=True).send_messages([message(to=["nobody"])]) == 0


def test_in_silence_the_others_are_queued():
    count = backend(fail_silently=True).send_messages([message(), message(to=["nobody"]), message()])
    assert (count, type(count)) == (2, int)
    assert Email.objects.count() == 2


def test_silence_is_logged_without_the_address(caplog):
    with caplog.at_level(logging.WARNING, "celery_mailer"):
        backend(fail_silently=True).send_messages([message(to=["secret nobody"])])
    assert "to[0]: is not a valid email address" in caplog.text
    assert "secret" not in caplog.text


def test_django_hands_its_silence_on(queueing):
    assert send_mail("a\nb", "Body", None, [TO], fail_silently=True) == 0


# Credentials.


def test_credentials_are_taken_and_never_stored(queueing):
    with_secrets = {"auth_user": SECRET, "auth_password": SECRET}
    assert send_mail("Subject", "Body", None, [TO], **with_secrets) == 1
    email, content = only()
    assert SECRET not in repr(model_to_dict(email)) + repr(model_to_dict(content))
    assert SECRET not in repr(vars(email)) + repr(vars(content))


def test_credentials_are_not_kept_on_the_backend():
    assert SECRET not in repr(vars(backend(username=SECRET, password=SECRET)))


# Options.


def test_the_options_apply_to_every_message(settings):
    settings.CELERY_MAILER = {"PROVIDERS": {"default": SMTP, "bulk": SMTP}, "STREAMS": {"digest": {}}}
    backend(using="bulk", priority="low", stream="digest").send_messages([message(), message()])
    found = Email.objects.values_list("provider", "priority", "stream")
    assert list(found) == [("bulk", Priority.LOW, "digest")] * 2


def test_without_options_the_defaults_apply(settings):
    settings.CELERY_MAILER = {"PROVIDERS": {"default": SMTP}}
    backend().send_messages([message()])
    email, _ = only()
    assert (email.provider, email.priority, email.stream) == ("", Priority.MEDIUM, "transactional")


def test_an_unknown_provider_is_refused_when_the_backend_is_made(settings):
    settings.CELERY_MAILER = {"PROVIDERS": {"default": SMTP}}
    with pytest.raises(UnknownProvider, match="There is no provider 'bulk'"):
        backend(using="bulk")


@needs_mailers
def test_a_mailer_names_who_sends(queueing):
    message().send(using="default")
    assert only()[0].provider == "smtp"


@needs_mailers
def test_a_mailer_may_have_options(queueing):
    queueing(priority="high", stream="marketing")
    message().send()
    email, _ = only()
    assert (email.priority, email.stream) == (Priority.HIGH, "marketing")


@needs_mailers
def test_a_mailer_must_name_who_sends(settings):
    settings.MAILERS = {"default": {"BACKEND": conf.QUEUE_BACKEND}, "smtp": SMTP}
    with pytest.raises(UnknownProvider, match=r"MAILERS\['default'\]: OPTIONS must have 'using'"):
        message().send()


@needs_mailers
def test_a_mailer_that_names_itself_is_refused(settings):
    mailer = {"BACKEND": conf.QUEUE_BACKEND, "OPTIONS": {"using": "default"}}
    settings.MAILERS = {"default": mailer, "smtp": SMTP}
    with pytest.raises(UnknownProvider, match="names this mailer itself"):
        message().send()


@needs_mailers
@pytest.mark.parametrize("using", ["nobody", "other_queue"])
def test_a_mailer_that_names_nobody_who_sends_is_refused(settings, using):
    settings.MAILERS = {
        "default": {"BACKEND": conf.QUEUE_BACKEND, "OPTIONS": {"using": using}},
        "other_queue": {"BACKEND": conf.QUEUE_BACKEND, "OPTIONS": {"using": "smtp"}},
        "smtp": SMTP,
    }
    with pytest.raises(UnknownProvider, match=f"There is no provider '{using}'"):
        message().send()


@needs_mailers
def test_an_unknown_option_is_refused_as_by_every_mailer(settings):
    settings.MAILERS = {
        "default": {"BACKEND": conf.QUEUE_BACKEND, "OPTIONS": {"using": "smtp", "prioritty": "low"}},
        "smtp": SMTP,
    }
    with pytest.raises(mail.InvalidMailer, match="prioritty"):
        message().send()


@needs_mailers
def test_what_is_given_to_a_connection_by_hand_is_taken_as_before(queueing):
    connection = mail.get_connection(fail_silently=True, timeout=5)
    assert connection.send_messages([message()]) == 1


# Anymail's attributes.


def test_tags_and_metadata_are_kept():
    sent = message()
    sent.tags, sent.metadata = ["welcome"], {"order": 5}
    backend().send_messages([sent])
    _, content = only()
    assert (content.tags, content.metadata) == (["welcome"], {"order": 5})


class UNSET:
    """As in Anymail: a class that stands for what was not given."""


def test_anymails_marker_for_nothing_is_nothing():
    sent = message()
    for name in ("tags", "metadata", "merge_data", "template_id", "send_at", "track_opens"):
        setattr(sent, name, UNSET)
    assert backend().send_messages([sent]) == 1


def test_the_language_is_the_callers():
    with translation.override("de"):
        backend().send_messages([message()])
    assert Content.objects.get().language == "de"


@pytest.mark.django_db
class TestWhatAMessageAsksOfTheQueue:
    def queued(self, message):
        EmailBackend(**({"alias": "queue", "using": "default"} if MAILERS else {})).send_messages([message])
        return Email.objects.get()

    def test_by_an_attribute(self):
        message = EmailMessage("s", "m", to=["a@example.com"])
        message.celery_mailer = {"priority": "high", "stream": "marketing", "provider": "default"}
        email = self.queued(message)
        assert (email.priority, email.stream, email.provider) == (2, "marketing", "default")

    def test_by_headers_which_are_taken_off(self):
        headers = {"x-mailer-priority": "low", "X-Mailer-Scheduled-At": "2099-01-01T10:00:00Z", "X-Kept": "1"}
        email = self.queued(EmailMessage("s", "m", to=["a@example.com"], headers=headers))
        assert (email.priority, email.scheduled_at.year) == (0, 2099)
        assert email.content.headers == {"X-Kept": "1"}

    def test_what_is_unknown_is_refused_by_name(self):
        message = EmailMessage("s", "m", to=["a@example.com"])
        message.celery_mailer = {"prioritty": "high"}
        with pytest.raises(InvalidEmail, match="prioritty"):
            self.queued(message)
