"""44 behaviours of django-post_office: B, its users rely on it; X, it fails there, and must not here.

The numbers are the list's. 39 and 40 are the admin's, and stand with its tests.
"""

import re
import time
from contextlib import suppress
from datetime import date, timedelta
from email.message import MIMEPart
from email.mime.image import MIMEImage
from io import BytesIO, StringIO

import django
import pytest
from django.core import mail as django_mail
from django.core.exceptions import ValidationError
from django.core.files.base import ContentFile
from django.core.files.images import ImageFile
from django.core.files.storage import FileSystemStorage
from django.core.mail import EmailMessage, EmailMultiAlternatives, send_mail
from django.core.mail.backends.base import BaseEmailBackend
from django.core.management import call_command
from django.db import InterfaceError, OperationalError, connection, transaction
from django.db.models import F
from django.template import Context, Engine, engines
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from kombu.exceptions import OperationalError as BrokerError

from celery_mailer import chain, conf, mail, periodic
from celery_mailer.deliver import slice as deliver_slice
from celery_mailer.deliver.slice import deliver_emails
from celery_mailer.deliver.turn import SECONDS
from celery_mailer.exceptions import InvalidEmail, UnknownProvider
from celery_mailer.log.settle import settle_emails
from celery_mailer.models import Attachment, Email, EmailTemplate, Message
from celery_mailer.models.attachment import storage
from celery_mailer.signals import email_queued
from tests.conftest import leave_the_outbox, smtp_provider
from tests.factories import claim, make_email, stored
from tests.servers import databases
from tests.servers.scripted_smtp import ScriptedSmtp, after, silence, take
from tests.servers.smtp import SmtpServer
from tests.site import Site, wait_until

pytestmark = pytest.mark.django_db(transaction=True)

TO = "recipient@example.com"
FROM = "from@example.com"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
ALL_BYTES = bytes(range(256)) * 40
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
MAILERS = django.VERSION >= (6, 1)
needs_mailers = pytest.mark.skipif(not MAILERS, reason="MAILERS came with Django 6.1")
PUBLISH = chain.start


class Worker:
    """A worker that works off what was published, when the test lets it, the urgent lanes first."""

    def __init__(self):
        self.published = []

    def start(self, ids, priority):
        if ids:
            self.published.append((list(ids), priority))
        return True

    def work(self):
        while self.published:
            urgent = max(self.published, key=lambda published: published[1])
            self.published.remove(urgent)
            chain.run(urgent[0])


@pytest.fixture(autouse=True)
def worker(monkeypatch):
    worker = Worker()
    monkeypatch.setattr(chain, "start", worker.start)
    return worker


@pytest.fixture
def queue(settings, smtp_server):
    """All that Django sends goes to the queue, and from there to ``smtp_server``."""
    settings.CELERY_MAILER = {"PROVIDERS": {"smtp": smtp_provider(smtp_server.port)}}
    if MAILERS:
        settings.MAILERS = {"default": {"BACKEND": conf.QUEUE_BACKEND, "OPTIONS": {"using": "smtp"}}}
    else:
        settings.EMAIL_BACKEND = conf.QUEUE_BACKEND
    return smtp_server


@pytest.fixture
def arrived(smtp_server, worker):
    """What arrives at the server once the worker has done its work, as messages."""

    def arrived():
        worker.work()
        return [received.message for received in smtp_server.received]

    return arrived


@pytest.fixture
def clock(monkeypatch):
    """``clock.pass_(duration)`` moves the time on."""

    class Clock:
        ahead = timedelta(0)

        def pass_(self, duration):
            self.ahead += duration

    clock, now = Clock(), timezone.now
    monkeypatch.setattr(timezone, "now", lambda: now() + clock.ahead)
    return clock


class Raising(BaseEmailBackend):
    """A server that is not there."""

    def send_messages(self, email_messages):
        raise ConnectionRefusedError(111, "nobody listens")


@pytest.fixture
def down(settings):
    """``down(…)`` has a provider that is not there, and more settings."""

    def down(**more):
        leave_the_outbox(settings)
        settings.CELERY_MAILER = {"PROVIDERS": {"default": {"BACKEND": f"{__name__}.Raising"}}, **more}

    return down


@pytest.fixture
def template():
    def template(name="welcome", **words):
        return EmailTemplate.objects.create(name=name, **words)

    return template


def part(message, kind):
    return message.get_body((kind,)).get_content().strip()


def types(message):
    return [part.get_content_type() for part in message.walk()]


def django_message(kind=EmailMultiAlternatives, **arguments):
    return kind(**{"subject": "s", "body": "Text", "from_email": FROM, "to": [TO], **arguments})


# The backend.


def test_case_01_djangos_mail_is_one_queued_row_and_nothing_is_sent_inline(queue):
    """B django `send_mail` with our backend stores one queued row and sends nothing inline."""
    assert send_mail("s", "m", FROM, [TO]) == 1
    assert Email.objects.get().status == "queued"
    assert queue.received == []


def test_case_02_the_row_is_equal_to_the_message(queue):
    """B same row has from/to/cc/bcc/subject/body/headers equal to the EmailMessage."""
    message = django_message(cc=["c@example.com"], bcc=["b@example.com"], headers={"X-One": "1"})
    message.send()
    email = Email.objects.select_related("content").get()
    assert (email.to, email.cc, email.bcc) == (message.to, message.cc, message.bcc)
    words = email.content
    assert (words.from_email, words.subject, words.text) == (FROM, message.subject, message.body)
    assert words.headers == message.extra_headers


def test_case_03_text_and_html_are_kept_and_delivered_as_alternatives(queue, arrived):
    """B `attach_alternative(html)` keeps text and html; delivered as multipart/alternative."""
    message = django_message(body="Text")
    message.attach_alternative("<p>HTML</p>", "text/html")
    message.send()
    content = Email.objects.get().content
    assert (content.text, content.html) == ("Text", "<p>HTML</p>")
    (got,) = arrived()
    assert types(got) == ["multipart/alternative", "text/plain", "text/html"]
    assert (part(got, "plain"), part(got, "html")) == ("Text", "<p>HTML</p>")


def test_case_04_html_alone_is_a_single_html_part(queue, arrived):
    """B html only → single text/html part; text only → text/plain."""
    mail.send(TO, FROM, subject="s", html_message="<p>HTML</p>")
    mail.send(TO, FROM, subject="s", message="Text")
    html, text = arrived()
    assert (types(html), html.get_content().strip()) == (["text/html"], "<p>HTML</p>")
    assert (types(text), text.get_content().strip()) == (["text/plain"], "Text")


def test_case_05_reply_to_is_one_header(queue, arrived):
    """B reply_to list becomes one Reply-To header."""
    django_message(reply_to=["a@example.com", "b@example.com"]).send()
    (got,) = arrived()
    assert got.get_all("Reply-To") == ["a@example.com, b@example.com"]


def test_case_05_an_explicit_reply_to_header_wins(queue, arrived):
    """B explicit Reply-To header wins."""
    django_message(reply_to=["a@example.com"], headers={"Reply-To": "own@example.com"}).send()
    (got,) = arrived()
    assert got.get_all("Reply-To") == ["own@example.com"]


@pytest.mark.parametrize("mimetype", ["application/pdf", "application/x-own", "image/png"])
def test_case_06_an_attachment_arrives_with_its_bytes_and_its_mimetype(queue, arrived, mimetype):
    """B `attach(name, bytes, mime)` arrives byte-identical; X its mimetype arrives too."""
    message = django_message()
    message.attach("file", ALL_BYTES, mimetype)
    message.send()
    ((attachment,),) = (got.iter_attachments() for got in arrived())
    assert (attachment.get_filename(), attachment.get_content_type()) == ("file", mimetype)
    assert attachment.get_payload(decode=True) == ALL_BYTES


def legacy_image(**disposition):
    image = MIMEImage(PNG)
    image.add_header("Content-ID", "<logo>")
    image.add_header("Content-Disposition", "inline", **disposition)
    return image


def modern_image(**disposition):
    image = MIMEPart()
    image.set_content(PNG, "image", "png", disposition="inline", cid="<logo>", **disposition)
    return image


@pytest.mark.parametrize("named", [{"filename": "logo.png"}, {}], ids=["named", "without filename"])
@pytest.mark.parametrize(
    "image",
    [
        # From Django 6.0 on, attaching the legacy class is deprecated.
        pytest.param(
            legacy_image, marks=pytest.mark.skipif(django.VERSION >= (6, 0), reason="deprecated there")
        ),
        pytest.param(
            modern_image, marks=pytest.mark.skipif(django.VERSION < (6, 0), reason="came with Django 6.0")
        ),
    ],
)
def test_case_07_an_inline_image_arrives_inline_with_its_content_id(queue, arrived, image, named):
    """B MIMEImage inline arrives with Content-ID and disposition inline; X also Django 6 `MIMEPart`, and
    images without filename."""
    message = django_message(body="<img src='cid:logo'>")
    message.content_subtype = "html"
    message.attach(image(**named))
    message.send()
    (got,) = arrived()
    (arrived_image,) = [p for p in got.walk() if p.get_content_type() == "image/png"]
    assert (arrived_image["Content-ID"], arrived_image.get_content_disposition()) == ("<logo>", "inline")
    assert arrived_image.get_filename() == named.get("filename")
    assert arrived_image.get_payload(decode=True) == PNG


def test_case_08_two_attachments_with_one_filename_both_arrive(queue, arrived):
    """X two attachments with one filename both arrive."""
    message = django_message()
    message.attach("a.bin", b"1", "application/octet-stream")
    message.attach("a.bin", b"2", "application/octet-stream")
    message.send()
    ((first, second),) = (got.iter_attachments() for got in arrived())
    assert [first.get_filename(), second.get_filename()] == ["a.bin", "a.bin"]
    assert [first.get_content(), second.get_content()] == [b"1", b"2"]


def test_case_09_the_subtype_html_survives(queue, arrived):
    """X `content_subtype='html'` survives."""
    message = django_message(EmailMessage, body="<p>HTML</p>")
    message.content_subtype = "html"
    message.send()
    (got,) = arrived()
    assert (types(got), got.get_content().strip()) == (["text/html"], "<p>HTML</p>")


def test_case_09_a_calendar_survives(queue, arrived):
    """X text/calendar alternative survives."""
    message = django_message()
    message.attach_alternative("<p>HTML</p>", "text/html")
    message.attach_alternative("BEGIN:VCALENDAR\nEND:VCALENDAR\n", "text/calendar")
    message.send()
    (got,) = arrived()
    assert types(got) == ["multipart/alternative", "text/plain", "text/html", "text/calendar"]
    assert "BEGIN:VCALENDAR" in list(got.walk())[-1].get_content()


def test_case_10_bodies_that_look_like_templates_arrive_verbatim(queue, arrived):
    """X bodies with `{{ }}`, `{% %}`, `{{{` sent through the Django backend arrive verbatim."""
    words = "{{ name }} {% include 'mail/welcome.html' %} {{{ {% nonsense %} {{"
    message = django_message(subject=words, body=words)
    message.attach_alternative(f"<p>{words}</p>", "text/html")
    message.send()
    (got,) = arrived()
    assert got["Subject"] == words
    assert (part(got, "plain"), part(got, "html")) == (words, f"<p>{words}</p>")


# The arguments of mail.send().


def test_case_11_one_recipient_is_a_list_of_one_and_several_are_one_mail(real_smtp, arrived):
    """B `send(recipients=str)` equals list of one; several recipients make ONE mail."""
    assert mail.send(recipients=TO).to == mail.send(recipients=[TO]).to == [TO]
    Email.objects.all().delete()
    mail.send(["a@example.com", "b@example.com"], FROM, subject="s", message="m")
    (got,) = arrived()
    assert got["To"] == "a@example.com, b@example.com"
    assert real_smtp.received[0].recipients == ["a@example.com", "b@example.com"]


@pytest.mark.parametrize("field", ["recipients", "cc", "bcc", "sender"])
def test_case_12_an_invalid_address_is_a_validation_error_and_no_row(field):
    """B invalid recipient/cc/bcc/sender → ValidationError and no row."""
    with pytest.raises(ValidationError):
        mail.send(**{"recipients": TO, field: "invalid"})
    assert not Email.objects.exists()


@pytest.mark.parametrize("field", ["recipients", "cc", "bcc", "sender"])
def test_case_12_an_invalid_address_among_many_is_a_validation_error_and_no_row(field):
    """X same in bulk."""
    with pytest.raises(ValidationError):
        mail.send_many([{"recipients": TO}, {"recipients": TO, field: "invalid"}])
    assert not Email.objects.exists()


def test_case_13_a_name_beside_the_address_is_accepted(real_smtp, arrived):
    """B `Name <a@b>` accepted."""
    mail.send("Name <a@example.com>", "Shop <from@example.com>", subject="s", message="m")
    (got,) = arrived()
    assert (got["To"], got["From"]) == ("Name <a@example.com>", "Shop <from@example.com>")
    assert real_smtp.received[0].recipients == ["a@example.com"]


def test_case_13_a_comma_in_a_name_survives(real_smtp, arrived):
    """X `"Doe, John" <a@b>` survives a DB round trip."""
    who = '"Doe, John" <a@example.com>'
    email = mail.send(who, who, subject="s", message="m", cc=who, bcc=who)
    assert stored(email).to == stored(email).cc == stored(email).bcc == [who]
    (got,) = arrived()
    for header in ("To", "Cc", "From"):
        (address,) = got[header].addresses
        assert (address.display_name, address.addr_spec) == ("Doe, John", "a@example.com")
    assert set(real_smtp.received[0].recipients) == {"a@example.com"}


@pytest.mark.parametrize("words", ["subject", "message", "html_message"])
def test_case_14_words_beside_a_template_are_a_value_error(template, words):
    """B template + subject/message/html_message → ValueError each."""
    template(subject="s")
    with pytest.raises(ValueError, match=words):
        mail.send(TO, template="welcome", **{words: "x"})
    assert not Email.objects.exists()


# Templates.


def test_case_15_a_template_by_name_and_by_instance_give_the_same_mail(real_smtp, arrived, template):
    """B template by name and by instance give the same mail; context rendered in all three parts."""
    row = template(subject="{{ a }}!", content="Text {{ a }}", html_content="<b>{{ a }}</b>")
    for given in ("welcome", row):
        mail.send(TO, FROM, template=given, context={"a": "A"})
    for got in arrived():
        assert (got["Subject"], part(got, "plain"), part(got, "html")) == ("A!", "Text A", "<b>A</b>")
    assert len(real_smtp.received) == 2


def test_case_16_the_language_picks_the_translation_which_has_its_templates_name(
    real_smtp, arrived, template
):
    """B language picks the translation; translation created via the default template inherits its name."""
    row = template(subject="Hello")
    assert row.translated_templates.create(language="id", subject="Halo").name == "welcome"
    mail.send(TO, template="welcome", language="id")
    mail.send(TO, template=row, language="id")
    mail.send(TO, template="welcome")
    assert [got["Subject"] for got in arrived()] == ["Halo", "Halo", "Hello"]


def test_case_16_a_missing_translation_falls_back(real_smtp, arrived, template):
    """X optional fallback: with it."""
    template(subject="Hello").translated_templates.create(language="de", subject="Hallo")
    mail.send(TO, template="welcome", language="id")
    mail.send(TO, template="welcome", language="de-at")
    assert [got["Subject"] for got in arrived()] == ["Hello", "Hallo"]


def test_case_16_a_missing_translation_is_an_error_without_fallback(settings, template):
    """X optional fallback: without it."""
    settings.CELERY_MAILER = {"LANGUAGE_FALLBACK": False}
    template(subject="Hello").translated_templates.create(language="de", subject="Hallo")
    with pytest.raises(ValueError, match="language: 'welcome' is not there in 'id'"):
        mail.send(TO, template="welcome", language="id")


def test_case_16_a_translation_is_rendered_in_its_own_locale(real_smtp, arrived, template):
    """X translation rendered in its own locale."""
    words = "{{ day|date:'F' }} {% load i18n %}{% get_current_language as code %}{{ code }}"
    template(subject=words).translated_templates.create(language="id", subject=words)
    mail.send(TO, template="welcome", language="id", context={"day": date(2026, 3, 7)})
    (got,) = arrived()
    assert got["Subject"] == "Maret id"


def test_case_17_html_is_escaped_and_subject_and_text_are_not(real_smtp, arrived, template):
    """X subject and plain text are not HTML-escaped; html is."""
    words = "{{ name }}"
    template(subject=words, content=words, html_content=words)
    mail.send(TO, template="welcome", context={"name": "<A> & 'B'"})
    mail.send(TO, subject=words, message=words, html_message=words, context={"name": "<A> & 'B'"})
    for got in arrived():
        assert got["Subject"] == part(got, "plain") == "<A> & 'B'"
        assert part(got, "html") == "&lt;A&gt; &amp; &#x27;B&#x27;"
    assert len(real_smtp.received) == 2


@pytest.mark.parametrize("field", ["subject", "content", "html_content"])
def test_case_18_a_template_with_bad_syntax_is_rejected_on_save(template, field):
    """B template with bad syntax is rejected on save."""
    row = template()
    setattr(row, field, "{% if %}")
    with pytest.raises(ValidationError):
        row.save()
    with pytest.raises(ValidationError):
        template(name="other", **{field: "{{ name|nonsense }}"})
    assert not EmailTemplate.objects.exclude(subject="", content="", html_content="").exists()


def test_case_19_an_edited_template_or_translation_is_used_at_once(real_smtp, arrived, template):
    """B edited default template is used at once; X edited translation too."""
    row = template(subject="Hello")
    translation = row.translated_templates.create(language="id", subject="Halo")
    for language in ("", "id"):
        mail.send(TO, template="welcome", language=language)
    row.subject, translation.subject = "Hi", "Hai"
    row.save()
    translation.save()
    for language in ("", "id"):
        mail.send(TO, template="welcome", language=language)
    assert [got["Subject"] for got in arrived()] == ["Hello", "Halo", "Hi", "Hai"]


def test_case_19_no_two_templates_are_taken_for_each_other(real_smtp, arrived, template):
    """X no cache-key collisions."""
    names = ["a b", "a-b", "A-B", "a_b", "a", "a:id", "aid", "ä", "a" * 200, "a" * 199 + "b"]
    if connection.vendor == "mysql":  # whose usual collation takes these for others, and refuses them
        names = [name for name in names if name not in ("A-B", "ä")]
    for i, name in enumerate(names):
        template(name=name, subject=f"{i}")
    EmailTemplate.objects.get(name="a").translated_templates.create(language="id", subject="id of a")
    for name in names:
        mail.send(TO, template=name)
    mail.send(TO, template="a", language="id")
    assert [got["Subject"] for got in arrived()] == [f"{i}" for i in range(len(names))] + ["id of a"]


@pytest.mark.parametrize(
    "name", ["a" * 255, "mail", "mail/welcome.html/x"], ids=["long", "folder", "below a file"]
)
def test_case_19_a_templates_name_need_not_be_one_that_a_file_could_have(real_smtp, arrived, template, name):
    """X no cache-key collisions: nor with files, which are looked for under the same name."""
    template(name=name, subject="Hello")  # "mail" is a folder among the tests' templates
    mail.send(TO, template=name)
    assert [got["Subject"] for got in arrived()] == ["Hello"]


# Priorities.


def test_case_20_priorities_have_names_in_an_order_and_a_default(settings):
    """B priority names map low<medium<high<now; default from settings."""
    low, medium, high = (mail.send(TO, priority=name).priority for name in ("low", "medium", "high"))
    now = make_email(priority="now").priority
    assert low < medium < high < now
    assert mail.send(TO).priority == medium
    settings.CELERY_MAILER = {"DEFAULT_PRIORITY": "low"}
    assert mail.send(TO).priority == low


def test_case_20_an_unknown_priority_is_a_value_error_that_lists_the_names():
    """B unknown name → ValueError listing the names."""
    with pytest.raises(ValueError, match="now, high, medium, low"):
        mail.send(TO, priority="urgent")


def test_case_21_now_is_delivered_before_send_returns(real_smtp):
    """B `now` is delivered before return."""
    email = mail.send(TO, FROM, subject="s", message="m", priority="now")
    assert len(real_smtp.received) == 1
    assert (email.status, email.attempts.count()) == ("sent", 1)


def test_case_21_a_failure_of_now_is_retried_by_the_policy(settings, smtp_server, down, worker, clock):
    """X its failure is retried per policy."""
    down(RETRY={"WAIT": "fixed", "MIN": 15 * MINUTE})
    email = mail.send(TO, FROM, subject="s", message="m", priority="now")
    assert email.status == "deferred"
    assert 14 * MINUTE < email.due_at - timezone.now() <= 15 * MINUTE
    settings.CELERY_MAILER = {"PROVIDERS": {"default": smtp_provider(smtp_server.port)}}
    clock.pass_(15 * MINUTE)
    periodic.dispatch()
    worker.work()
    assert stored(email).status == "sent"
    assert len(smtp_server.received) == 1


def test_case_21_a_rolled_back_transaction_sends_nothing(real_smtp, worker):
    """X rolled-back transaction sends nothing."""
    for priority in ("now", "high"):
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            mail.send(TO, FROM, subject="s", message="m", priority=priority)
            raise ZeroDivisionError
    worker.work()
    assert real_smtp.received == []
    assert not Email.objects.exists()


def test_case_22_high_leaves_before_low_when_both_wait(real_smtp, arrived, worker):
    """B high priority leaves before low when both wait."""
    for priority in ("low", "high", "medium"):
        mail.send(TO, FROM, subject=priority, message="m", priority=priority)
    worker.published.clear()
    Email.objects.update(due_at=timezone.now())
    periodic.dispatch()
    assert [priority for _, priority in worker.published] == [2, 1, 0]
    assert [got["Subject"] for got in arrived()] == ["high", "medium", "low"]


def test_case_22_a_high_mail_is_not_held_up_by_a_low_batch(settings):
    """X a high mail is not held up by a low batch (< 1 s)."""
    with SmtpServer(delay=0.3) as slow:  # so that the batch alone would take half a minute
        settings.CELERY_MAILER = {"PROVIDERS": {"default": smtp_provider(slow.port)}}
        leave_the_outbox(settings)
        low = mail.send_many([{"recipients": TO, "subject": "low", "priority": "low"}] * 100)
        high = mail.send(TO, subject="high", priority="high")
        started = time.monotonic()
        # The worst case: the one worker there is has just begun with the batch when the high mail comes.
        rest = deliver_emails([e.pk for e in low], seconds=SECONDS)
        chain.run([high.pk])
        waited = time.monotonic() - started
        subjects = [received.message["Subject"] for received in slow.received]
    assert subjects[-1] == "high"
    assert waited < 15  # about a second where nothing else runs, and never what the batch takes
    assert len(rest) == 100 - (len(subjects) - 1) > 80


# Times.


@pytest.mark.parametrize("door", ["chain", "dispatcher"])
def test_case_23_scheduled_mail_is_not_sent_before_its_time_and_is_after(real_smtp, worker, clock, door):
    """B future scheduled_time is not sent before, is sent after."""
    email = mail.send(TO, FROM, subject="s", message="m", scheduled_time=timezone.now() + HOUR)
    go = {"chain": lambda: chain.run([email.pk]), "dispatcher": lambda: (periodic.dispatch(), worker.work())}
    clock.pass_(59 * MINUTE)
    go[door]()
    assert (stored(email).status, real_smtp.received) == ("queued", [])
    clock.pass_(MINUTE)
    go[door]()
    assert (stored(email).status, len(real_smtp.received)) == ("sent", 1)


def test_case_24_expired_mail_is_not_sent_and_is_final(real_smtp, worker, clock):
    """B expired mail is not sent; X ends in a terminal status."""
    email = mail.send(TO, FROM, subject="s", message="m", expires_at=timezone.now() + HOUR)
    clock.pass_(HOUR)
    worker.work()
    assert (stored(email).status, real_smtp.received) == ("expired", [])
    assert stored(email).finished_at is not None
    clock.pass_(DAY)
    periodic.dispatch()
    assert worker.published == []


def test_case_24_mail_that_is_scheduled_for_after_it_expires_is_refused():
    """B scheduled > expires → ValidationError."""
    now = timezone.now()
    with pytest.raises(ValidationError):
        mail.send(TO, scheduled_time=now + 2 * HOUR, expires_at=now + HOUR)
    assert not Email.objects.exists()


# Retries and what is logged of them.


def test_case_25_a_failure_is_retried_after_the_interval_and_then_failed(down, worker, clock):
    """B failure with MAX_RETRIES=2: requeued, +interval, retry, requeued, then failed; not tried before its
    time; counters 1, 2."""
    down(RETRY={"MAX_ATTEMPTS": 3, "WAIT": "fixed", "MIN": 15 * MINUTE})
    email = mail.send(TO, FROM, subject="s", message="m")
    for count in (1, 2):
        worker.work()
        row = stored(email)
        assert (row.status, row.attempt_count, row.attempts.count()) == ("deferred", count, count)
        assert round((row.due_at - timezone.now()) / MINUTE) == 15
        clock.pass_(14 * MINUTE)
        assert periodic.dispatch() == {"dispatched": 0}
        chain.run([email.pk])  # a message that comes too early, as brokers repeat them
        assert stored(email).attempts.count() == count
        clock.pass_(MINUTE)
        assert periodic.dispatch() == {"dispatched": 1}
    worker.work()
    assert (stored(email).status, stored(email).attempts.count()) == ("failed", 3)
    clock.pass_(30 * DAY)
    assert periodic.dispatch() == {"dispatched": 0}


def test_case_26_each_attempt_is_logged_with_the_exceptions_type_and_text(down, worker, clock):
    """B each attempt logged with exception type and text."""
    down(RETRY={"MAX_ATTEMPTS": 2})
    email = mail.send(TO, FROM, subject="s", message="m")
    worker.work()
    clock.pass_(DAY)
    periodic.dispatch()
    worker.work()
    texts = [attempt.text for attempt in email.attempts.all()]
    assert len(texts) == 2
    for text in texts:
        assert "ConnectionRefusedError" in text
        assert "nobody listens" in text


@pytest.mark.parametrize(("level", "kept"), [(0, []), (1, ["deferred"]), (2, ["deferred", "accepted"])])
@pytest.mark.parametrize("given", ["settings", "call"])
def test_case_26_the_log_level_says_which_attempts_are_kept(
    settings, smtp_server, down, worker, clock, level, kept, given
):
    """B LOG_LEVEL 0/1/2 semantics (the call overrides it too)."""
    chosen = level if given == "settings" else 2 - level
    down(LOG_LEVEL=chosen)
    own = {} if given == "settings" else {"log_level": level}
    email = mail.send(TO, FROM, subject="s", message="m", **own)
    worker.work()
    settings.CELERY_MAILER = {
        "LOG_LEVEL": chosen,
        "PROVIDERS": {"default": smtp_provider(smtp_server.port)},
    }
    clock.pass_(DAY)
    periodic.dispatch()
    worker.work()
    assert stored(email).status == "sent"
    assert [a.outcome for a in email.attempts.order_by("pk")] == kept


@pytest.mark.parametrize(("level", "kept"), [(0, []), (1, ["deferred"]), (2, ["deferred", "accepted"])])
def test_case_26_the_command_overrides_the_log_level(settings, smtp_server, down, clock, level, kept):
    """B the CLI overrides LOG_LEVEL too."""
    down(LOG_LEVEL=2 - level)
    email = mail.send(TO, FROM, subject="s", message="m")
    call_command("send_queued_mail", "--log-level", str(level), stdout=StringIO())
    settings.CELERY_MAILER = {"PROVIDERS": {"default": smtp_provider(smtp_server.port)}}
    clock.pass_(DAY)
    call_command("send_queued_mail", "-l", str(level), stdout=StringIO())
    assert stored(email).status == "sent"
    assert [a.outcome for a in email.attempts.order_by("pk")] == kept


def test_case_27_one_bad_mail_or_template_does_not_stop_the_others(real_smtp, arrived, template):
    """B one bad mail/template in a batch does not stop the others."""
    bad = template(name="bad", subject="fine")
    EmailTemplate.objects.filter(pk=bad.pk).update(subject="{% include 'nowhere.html' %}")
    template(subject="fine")
    files = {"a.txt": ContentFile(b"lost")}
    emails = mail.send_many(
        [
            {"recipients": TO, "template": "welcome"},
            {"recipients": TO, "template": "bad"},
            {"recipients": TO, "subject": "lost file", "attachments": files},
            {"recipients": TO, "template": "welcome"},
        ]
    )
    storage().delete(Attachment.objects.get().path)
    assert [got["Subject"] for got in arrived()] == ["fine", "fine"]
    assert [stored(e).status for e in emails] == ["sent", "failed", "failed", "sent"]


def test_case_28_one_slow_mail_does_not_fail_or_delay_the_others(settings, worker):
    """X one slow mail does not fail or delay the others."""
    with ScriptedSmtp({"RCPT slow@example.com": [after(1), "250 fine"]}) as server:
        settings.CELERY_MAILER = {"PROVIDERS": {"default": smtp_provider(server.port)}}
        leave_the_outbox(settings)
        names = ["a", "slow", "b", "c", "d"]
        emails = mail.send_many(
            {"recipients": f"{name}@example.com", "subject": name, "message": "m"} for name in names
        )
        ids = [e.pk for e in emails]
        started = time.monotonic()
        rest = deliver_emails(ids, seconds=SECONDS)
        # Its own second is all that it costs: what it was in the way of is free for any worker.
        assert time.monotonic() - started < 15
        gone = {message.message["Subject"] for message in server.taken}
        assert {name for name, e in zip(names, emails, strict=True) if e.pk in rest} == set(names) - gone
        assert {stored(e).status for e in emails if e.pk in rest} <= {"queued"}
        deliver_emails(rest, seconds=60)
        settle_emails(ids)
        taken = [message.message["Subject"] for message in server.taken]
    assert [stored(e).status for e in emails] == ["sent"] * 5
    assert sorted(taken) == sorted(names)


@pytest.mark.parametrize(("stream", "status"), [("transactional", "deferred"), ("marketing", "uncertain")])
def test_case_28_a_mail_is_never_both_delivered_and_failed_by_timeout(settings, worker, stream, status):
    """X a mail is never both delivered and `failed` by timeout."""
    with ScriptedSmtp({"dot": [take, silence]}, {}) as server:
        settings.CELERY_MAILER = {
            "PROVIDERS": {"default": smtp_provider(server.port)},
            "LEASE": timedelta(seconds=6),
            "TRACKING": {"BASE_URL": "https://mail.example.com"},
        }
        leave_the_outbox(settings)
        email = mail.send(TO, FROM, subject="s", message="m", stream=stream)
        worker.work()
        assert len(server.taken) == 1
    assert stored(email).status == status
    # What nobody can know is said so, whether it is tried again or not.
    assert [a.outcome for a in email.attempts.all()] == ["uncertain"]
    assert "uncertain" in [decision.status for decision in email.decisions.all()]


# Backends.


class Elsewhere(BaseEmailBackend):
    sent = []

    def send_messages(self, email_messages):
        self.sent += email_messages
        return len(email_messages)


class Unopened(Elsewhere):
    def open(self):
        raise OSError("no such host")


@pytest.fixture
def backends(settings, smtp_server):
    settings.CELERY_MAILER = {
        "PROVIDERS": {
            "default": smtp_provider(smtp_server.port),
            "elsewhere": {"BACKEND": f"{__name__}.Elsewhere"},
            "unopened": {"BACKEND": f"{__name__}.Unopened"},
        }
    }
    leave_the_outbox(settings)
    Elsewhere.sent.clear()


def test_case_29_a_backends_alias_routes(backends, smtp_server, worker):
    """B backend alias routes."""
    mail.send(TO, subject="s", backend="elsewhere")
    mail.send(TO, subject="s", backend="default")
    worker.work()
    assert (len(Elsewhere.sent), len(smtp_server.received)) == (1, 1)


def test_case_29_an_unknown_alias_is_a_value_error_at_once(backends):
    """B unknown alias → ValueError at send."""
    with pytest.raises(ValueError, match="nowhere"):
        mail.send(TO, subject="s", backend="nowhere")
    assert not Email.objects.exists()


def test_case_29_an_error_in_opening_a_connection_is_a_failed_attempt(backends, worker):
    """B error in opening a connection is logged as a failed attempt."""
    email = mail.send(TO, subject="s", backend="unopened")
    worker.work()
    (attempt,) = email.attempts.all()
    assert (attempt.provider, attempt.outcome, attempt.text) == (
        "unopened",
        "deferred",
        "OSError: no such host",
    )
    assert stored(email).status == "deferred"


def test_case_30_override_recipients_redirects_all_and_does_not_persist(settings, real_smtp, worker):
    """B OVERRIDE_RECIPIENTS redirects and does not persist; X covers cc and bcc."""
    settings.CELERY_MAILER = settings.CELERY_MAILER | {"OVERRIDE_RECIPIENTS": ["staging@example.com"]}
    email = mail.send(TO, FROM, subject="s", message="m", cc=["c@example.com"], bcc=["b@example.com"])
    worker.work()
    (received,) = real_smtp.received
    assert received.recipients == ["staging@example.com"]
    assert (received.message["To"], received.message["Cc"]) == ("staging@example.com", None)
    row = stored(email)
    assert (row.status, row.to, row.cc, row.bcc) == ("sent", [TO], ["c@example.com"], ["b@example.com"])


def test_case_31_the_stored_message_id_is_the_one_that_arrives(settings, real_smtp, arrived):
    """B MESSAGE_ID_ENABLED stores the id and the delivered header equals it, with the FQDN setting."""
    settings.CELERY_MAILER = settings.CELERY_MAILER | {"MESSAGE_ID_FQDN": "mail.example.com"}
    email = mail.send(TO, FROM, subject="s", message="m")
    (got,) = arrived()
    assert got["Message-ID"] == stored(email).message_id
    assert re.fullmatch(r"<[^@<>]+@mail\.example\.com>", stored(email).message_id)


# Attachments.


def test_case_32_attachments_come_from_a_path_a_file_or_a_dict_with_its_mimetype(
    real_smtp, arrived, tmp_path
):
    """B attachments from path, ContentFile, dict with mimetype."""
    (tmp_path / "there.bin").write_bytes(b"path")
    mail.send(
        TO,
        FROM,
        subject="s",
        message="m",
        attachments={
            "path.bin": str(tmp_path / "there.bin"),
            "file.bin": ContentFile(b"file"),
            "dict.bin": {"file": ContentFile(b"dict"), "mimetype": "application/x-own"},
        },
    )
    ((path, file, own),) = (got.iter_attachments() for got in arrived())
    assert [p.get_filename() for p in (path, file, own)] == ["path.bin", "file.bin", "dict.bin"]
    assert [p.get_content() for p in (path, file, own)] == [b"path", b"file", b"dict"]
    assert own.get_content_type() == "application/x-own"


def test_case_32_one_attachment_is_shared_by_several_emails(real_smtp, arrived, media):
    """B one attachment shared by several emails."""
    for _ in range(3):
        mail.send(TO, FROM, subject="s", message="m", attachments={"a.bin": ContentFile(ALL_BYTES)})
    assert len([path for path in media.rglob("*") if path.is_file()]) == 1
    assert [next(got.iter_attachments()).get_content() for got in arrived()] == [ALL_BYTES] * 3


def test_case_32_the_storage_is_honoured(settings, real_smtp, arrived, tmp_path, media):
    """B FILE_STORAGE honoured."""
    folder = tmp_path / "own"
    backend = "django.core.files.storage.FileSystemStorage"
    settings.STORAGES = {**settings.STORAGES, "own": {"BACKEND": backend, "OPTIONS": {"location": folder}}}
    settings.CELERY_MAILER = settings.CELERY_MAILER | {"ATTACHMENTS": {"STORAGE": "own"}}
    mail.send(TO, FROM, subject="s", message="m", attachments={"a.bin": ContentFile(ALL_BYTES)})
    assert len([path for path in folder.rglob("*") if path.is_file()]) == 1
    assert not media.exists()
    (got,) = arrived()
    assert next(got.iter_attachments()).get_content() == ALL_BYTES


def test_case_33_a_mail_is_not_there_for_others_before_its_attachment_is(
    real_smtp, arrived, worker, monkeypatch
):
    """X mail with an attachment, drained concurrently, never leaves without it."""
    inside, save = [], FileSystemStorage.save

    def saving(*args, **kwargs):
        # What nobody but this transaction can see, nobody can take; and no worker has been told.
        inside.append((connection.in_atomic_block, list(worker.published)))
        return save(*args, **kwargs)

    monkeypatch.setattr(FileSystemStorage, "save", saving)
    mail.send(TO, FROM, subject="s", message="m", attachments={"a.bin": ContentFile(ALL_BYTES)})
    assert inside == [(True, [])]
    (got,) = arrived()
    assert next(got.iter_attachments()).get_content() == ALL_BYTES


def test_case_33_a_mail_whose_attachment_cannot_be_stored_does_not_leave(real_smtp, worker, monkeypatch):
    """X never leaves without it."""

    def full(self, *args, **kwargs):
        raise OSError("no space left")

    monkeypatch.setattr(FileSystemStorage, "save", full)
    with pytest.raises(OSError, match="no space left"):
        mail.send(TO, FROM, subject="s", message="m", attachments={"a.bin": ContentFile(ALL_BYTES)})
    periodic.dispatch()
    worker.work()
    assert (Email.objects.count(), real_smtp.received) == (0, [])


# Rendering on delivery.


def test_case_34_what_is_rendered_on_delivery_is_not_stored(real_smtp, arrived, template):
    """B render_on_delivery stores no body, uses the template at delivery."""
    row = template(subject="{{ a }} old", content="old", html_content="old")
    email = mail.send(TO, FROM, template="welcome", context={"a": "A"}, render_on_delivery=True)
    row.subject = row.content = row.html_content = "{{ a }} new"
    row.save()
    assert (email.content.subject, email.content.text, email.content.html) == ("", "", "")
    (got,) = arrived()
    assert (got["Subject"], part(got, "plain"), part(got, "html")) == ("A new", "A new", "A new")
    content = stored(email).content
    assert (content.subject, content.text, content.html) == ("", "", "")
    assert not Message.objects.exists()


def test_case_34_rendering_on_delivery_needs_no_context(real_smtp, arrived, template):
    """X works without context."""
    template(subject="Hello {{ a }}")
    mail.send(TO, FROM, template="welcome", render_on_delivery=True)
    (got,) = arrived()
    assert got["Subject"].strip() == "Hello"


def test_case_34_rendering_on_delivery_needs_a_template():
    """X without template is an error."""
    with pytest.raises(ValueError, match="needs a template"):
        mail.send(TO, FROM, message="m", render_on_delivery=True)


# Many.


@pytest.fixture
def told():
    """The lists of emails that ``email_queued`` told of."""
    calls = []

    def receiver(sender, emails, **kwargs):
        calls.append(emails)

    email_queued.connect(receiver)
    yield calls
    email_queued.disconnect(receiver)


def test_case_35_many_emails_cost_as_many_queries_as_few(template):
    """B send_many(N) ≤ constant queries."""
    template(subject="{{ a }}", content="{{ a }}")
    mail.send_many([{"recipients": TO, "template": "welcome"}])  # its version is there from now on
    costs = []
    for number in (2, 40):
        kwargs = [{"recipients": f"u{i}@example.com", "template": "welcome"} for i in range(number)]
        with CaptureQueriesContext(connection) as queries:
            mail.send_many(kwargs)
        costs.append(len(queries))
    assert costs[0] == costs[1]


def test_case_35_many_emails_are_told_of_once_and_returned(told):
    """B signal once with N emails, returns them."""
    emails = mail.send_many([{"recipients": f"u{i}@example.com"} for i in range(20)])
    assert [e.to for e in emails] == [[f"u{i}@example.com"] for i in range(20)]
    assert told == [emails]
    assert set(emails) == set(Email.objects.all())


def test_case_35_many_emails_cannot_be_sent_now():
    """B refuses `now`."""
    with pytest.raises(ValueError, match="now"):
        mail.send_many([{"recipients": TO}, {"recipients": TO, "priority": "now"}])
    assert not Email.objects.exists()


def test_case_36_the_signal_is_sent_once_per_call_with_the_list_and_not_for_now(told, queue):
    """B `email_queued` fires once per enqueue with the list, not for `now`."""
    email = mail.send(TO, subject="s")
    assert told == [[email]]
    mail.send(TO, subject="s", priority="now")
    assert told == [[email]]
    send_mail("s", "m", FROM, [TO])
    assert [len(emails) for emails in told] == [1, 1]


def test_case_36_the_task_is_published_only_after_the_commit(told, worker):
    """B under atomic the task is dispatched only after commit; X not lost on rollback."""
    with transaction.atomic():
        email = mail.send(TO, subject="s")
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            mail.send(TO, subject="rolled back")
            raise ZeroDivisionError
        assert (worker.published, told) == ([], [])
    assert [ids for ids, _ in worker.published] == [[email.pk]]
    assert told == [[email]]


def test_case_36_a_broker_that_is_down_loses_nothing(real_smtp, worker, monkeypatch):
    """X not lost on broker down (beat recovers)."""

    def down(*args):
        raise BrokerError("nobody listens")

    with monkeypatch.context() as patch:
        patch.setattr(chain, "start", PUBLISH)
        patch.setattr(chain, "publish", down)
        email = mail.send(TO, FROM, subject="s", message="m")
    assert stored(email).status == "queued"
    assert periodic.dispatch() == {"dispatched": 1}
    worker.work()
    assert (stored(email).status, len(real_smtp.received)) == ("sent", 1)


# Cleaning up.


def final(ago, **arguments):
    """An email that was sent ``ago``."""
    email = make_email(**arguments)
    chain.run([email.pk])
    Email.objects.filter(pk=email.pk).update(
        finished_at=timezone.now() - ago, created_at=F("created_at") - ago
    )
    return email


def test_case_37_cleaning_up_deletes_what_is_older_and_keeps_what_is_newer(settings):
    """B cleanup deletes older than N days, keeps newer."""
    settings.CELERY_MAILER = {"RETENTION": 30 * DAY}
    newer = final(29 * DAY)
    final(31 * DAY)
    assert periodic.cleanup()["emails_deleted"] == 1
    assert Email.objects.get() == newer


def test_case_37_cleaning_up_never_deletes_unsent_mail(settings, down, worker):
    """X never deletes unsent mail."""
    down(RETENTION=DAY)
    make_email()
    make_email(scheduled_at=timezone.now() + 365 * DAY)
    mail.send(TO, subject="deferred")
    worker.work()
    doubtful = make_email()
    Email.objects.filter(pk=doubtful.pk).update(status="uncertain", due_at=None)
    claim([make_email()])
    Email.objects.update(created_at=timezone.now() - 365 * DAY)
    assert periodic.cleanup()["emails_deleted"] == 0
    assert sorted(Email.objects.values_list("status", flat=True)) == [
        "deferred",
        "queued",
        "queued",
        "sending",
        "uncertain",
    ]


def test_case_37_files_go_with_the_last_email_that_has_them_even_if_they_are_gone(settings, media):
    """B orphan files; survives an already missing file."""
    settings.CELERY_MAILER = {"RETENTION": 30 * DAY}
    for name in (b"gone", b"orphan"):
        final(31 * DAY, attachments={"a.bin": ContentFile(name)})
    kept = final(DAY, attachments={"a.bin": ContentFile(b"kept")})
    gone, *_ = Attachment.objects.filter(size=4).exclude(enclosures__email=kept)
    storage().delete(gone.path)
    Attachment.objects.update(used_at=timezone.now() - 31 * DAY)
    assert periodic.cleanup()["files_deleted"] == 2
    with storage().open(Attachment.objects.get().path) as file:
        assert file.read() == b"kept"


def cleaned_up(*flags):
    """What ``cleanup_mail`` says of emails and of attachments."""
    out = StringIO()
    call_command("cleanup_mail", *flags, stdout=out)
    said = re.fullmatch(r"Deleted (\d+) mails created before .* and (\d+) attachments\.\n", out.getvalue())
    return int(said[1]), int(said[2])


def test_case_37_the_command_deletes_what_is_older_and_keeps_what_is_newer():
    """B cleanup deletes older than N days, keeps newer; of all batches."""
    newer = final(29 * DAY)
    for _ in range(3):
        final(31 * DAY)
    assert cleaned_up("--days", "30", "--batch-size", "2") == (3, 0)
    assert Email.objects.get() == newer


def test_case_37_the_command_never_deletes_unsent_mail(down, worker):
    """X never deletes unsent mail."""
    down()
    make_email(scheduled_at=timezone.now() + 365 * DAY)
    mail.send(TO, subject="deferred")
    worker.work()
    doubtful = make_email()
    Email.objects.filter(pk=doubtful.pk).update(status="uncertain", due_at=None)
    claim([make_email()])
    Email.objects.update(created_at=timezone.now() - 365 * DAY)
    assert cleaned_up() == (0, 0)
    assert Email.objects.count() == 4


@pytest.mark.parametrize(("flags", "deleted"), [((), 0), (("--delete-attachments",), 2), (("-da",), 2)])
def test_case_37_the_command_deletes_orphaned_files_only_with_the_flag(flags, deleted):
    """B orphan files only with the flag; survives a missing file."""
    for name in (b"gone", b"orphan"):
        final(91 * DAY, attachments={"a.bin": ContentFile(name)})
    kept = final(DAY, attachments={"a.bin": ContentFile(b"kept")})
    gone, *_ = Attachment.objects.filter(size=4).exclude(enclosures__email=kept)
    storage().delete(gone.path)
    Attachment.objects.update(used_at=timezone.now() - 31 * DAY)
    assert cleaned_up(*flags) == (2, deleted)
    assert Attachment.objects.count() == 3 - deleted
    with storage().open(Attachment.objects.get(enclosures__email=kept).path) as file:
        assert file.read() == b"kept"


@pytest.fixture
def make_site(tmp_path, smtp_server):
    """An installation of processes of its own, without a broker."""
    sites = []

    def make(url=None, mailer="{}"):
        url = url or f"sqlite:///{tmp_path / 'db.sqlite3'}"
        sites.append(Site(url, "memory://", smtp_server.port, mailer))
        sites[-1].migrate()
        return sites[-1]

    yield make
    for site in sites:
        site.close()


@pytest.mark.mariadb
def test_case_37_cleaning_up_works_on_mysql(make_site):
    """X works on MySQL."""
    with databases.mariadb() as url:
        site = make_site(url, "{'RETENTION': timedelta(days=30), 'BATCH_SIZE': 5}")
        result = site.run("""
            from django.core.files.base import ContentFile
            from django.utils import timezone
            from celery_mailer import chain, mail, periodic
            from celery_mailer.models import Attachment, Email
            chain.start = lambda ids, priority: chain.run(ids) or True
            for i in range(20):
                files = {"a.bin": ContentFile(f"{i}".encode())}
                mail.send("a@example.com", subject="s", message="m", attachments=files)
            old = [e.pk for e in Email.objects.all()[:15]]
            Email.objects.filter(pk__in=old).update(finished_at=timezone.now() - timedelta(days=31))
            Attachment.objects.update(used_at=timezone.now() - timedelta(days=31))
            counts = periodic.cleanup()
            result = [counts["emails_deleted"], counts["files_deleted"],
                      Email.objects.count(), Attachment.objects.count()]
        """)
    assert result == [15, 15, 5, 5]


# Inline images.


@pytest.fixture
def static(settings, tmp_path):
    folder = tmp_path / "static"
    (folder / "img").mkdir(parents=True)
    (folder / "img" / "logo.png").write_bytes(PNG)
    settings.STATIC_URL = "/static/"
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "django.contrib.staticfiles"]
    settings.STATICFILES_DIRS = [folder]
    return folder


HTML = '{% load celery_mailer %}<img src="{% inline_image image %}">'


@pytest.mark.parametrize("given", ["img/logo.png", "absolute"])
def test_case_38_an_inline_image_is_a_related_part_that_the_html_shows(
    real_smtp, arrived, static, template, given
):
    """B inline_image: file, absolute path → cid + related image part."""
    template(subject="s", html_content=HTML)
    path = str(static / "img" / "logo.png") if given == "absolute" else given
    mail.send(TO, FROM, template="welcome", context={"image": path})
    (got,) = arrived()
    (cid,) = re.findall(r'<img src="cid:([^"]+)">', part(got, "html"))
    (related,) = [p for p in got.walk() if p.get_content_type() == "multipart/related"]
    (image,) = related.iter_attachments()
    assert (image["Content-ID"], image.get_content_disposition()) == (f"<{cid}>", "inline")
    assert (image.get_content_type(), image.get_content()) == ("image/png", PNG)


def test_case_38_an_image_file_is_shown_too(settings, queue, arrived):
    """B ImageFile → cid + related image part."""
    backend = "celery_mailer.render.backend.EmailTemplates"
    settings.TEMPLATES = [*settings.TEMPLATES, {"NAME": "post_office", "BACKEND": backend, "DIRS": []}]
    inline = engines["post_office"].from_string(HTML)
    message = django_message()
    html = inline.render({"image": ImageFile(BytesIO(PNG), name="own.png")})
    message.attach_alternative(html, "text/html")
    inline.attach_related(message)
    message.send()
    (got,) = arrived()
    (cid,) = re.findall(r'<img src="cid:([^"]+)">', part(got, "html"))
    (related,) = [p for p in got.walk() if p.get_content_type() == "multipart/related"]
    (image,) = related.iter_attachments()
    assert (image["Content-ID"], image.get_content_disposition()) == (f"<{cid}>", "inline")
    assert (image.get_filename(), image.get_content()) == ("own.png", PNG)


def test_case_38_with_debug_a_missing_file_raises(static):
    """B DEBUG missing file raises."""
    libraries = {"celery_mailer": "celery_mailer.templatetags.celery_mailer"}
    context = Context({"image": "img/nowhere.png"})
    with pytest.raises(FileNotFoundError):
        Engine(debug=True, libraries=libraries).from_string(HTML).render(context)
    assert Engine(debug=False, libraries=libraries).from_string(HTML).render(context) == '<img src="">'


# Templates in the admin (39 and the form of 40 are tested there).


def test_case_40_a_language_is_there_once(template):
    """B duplicate translation language rejected."""
    row = template(subject="Hello")
    row.translated_templates.create(language="id", subject="Halo")
    with pytest.raises(ValidationError):
        EmailTemplate(default_template=row, language="id", subject="Hai").full_clean()


def test_case_40_translations_of_a_renamed_template_are_found(real_smtp, arrived, template):
    """B renaming a template keeps translations reachable."""
    row = template(subject="Hello")
    row.translated_templates.create(language="id", subject="Halo")
    row.name = "renamed"
    row.save()
    mail.send(TO, template="renamed", language="id")
    (got,) = arrived()
    assert got["Subject"] == "Halo"


# Crashes.

MANY = """
    from celery_mailer import chain, mail
    chain.start = lambda ids, priority: True
    mail.send_many(
        dict(recipients=f"u{{i}}@example.com", subject="s", message="m") for i in range({number})
    )
"""


def test_case_41_a_worker_killed_in_the_middle_loses_nothing_and_repeats_at_most_once(make_site, smtp_server):
    """X kill -9 the worker mid-run, restart: each mail delivered at most once more, never lost; count vs
    post_office's 60 of 100 doubled."""
    site = make_site()
    site.run(MANY.format(number=100))
    smtp_server.delay = 0.02
    worker = site.start("""
        from celery_mailer import chain
        from celery_mailer.models import Email
        chain.run(list(Email.objects.values_list("pk", flat=True)))
    """)
    wait_until("half of the mails", lambda: len(smtp_server.received) >= 50, every=0.01)
    worker.kill()
    assert len(smtp_server.received) < 100
    statuses = site.run("""
        from django.utils import timezone
        from celery_mailer import chain, periodic
        from celery_mailer.models import Email
        chain.start = lambda ids, priority: chain.run(ids) or True
        past = timezone.now() - timedelta(hours=1)
        Email.objects.filter(status="sending").update(lease_until=past)  # it is an hour later
        periodic.rescue()
        Email.objects.filter(due_at__isnull=False).update(due_at=past)
        periodic.dispatch()
        result = sorted(set(Email.objects.values_list("status", flat=True)))
    """)
    assert statuses == ["sent"]
    counts = smtp_server.counts()
    assert len(counts) == 100
    assert set(counts.values()) <= {1, 2}
    assert sum(counts.values()) - 100 <= deliver_slice.WINDOW


def test_case_42_two_workers_deliver_500_mails_exactly_once(make_site, smtp_server):
    """X two workers/hosts, 500 mails: exactly 500 deliveries."""
    race(make_site(), 2, smtp_server)


@pytest.mark.slow
@pytest.mark.postgres
def test_case_42_eight_workers_deliver_500_mails_exactly_once(make_site, smtp_server):
    """X eight workers/hosts, 500 mails: exactly 500 deliveries."""
    with databases.postgres() as url:
        race(make_site(url), 8, smtp_server)


def race(site, number, smtp_server):
    """That many processes go for the same 500 mails, at the same moment."""
    site.run(MANY.format(number=500))
    ready = site.folder / "ready"
    ready.mkdir()
    code = f"""
        import os, time
        from pathlib import Path
        from celery_mailer.deliver.slice import deliver_emails
        from celery_mailer.log.settle import settle_emails
        from celery_mailer.models import Email
        ids = list(Email.objects.values_list("pk", flat=True))
        Path({str(ready)!r}, str(os.getpid())).touch()
        while not Path({str(ready)!r}, "go").exists():
            time.sleep(0.01)
        for at in range(0, 500, 100):
            rest = ids[at:at + 100]
            while rest:
                rest = deliver_emails(rest)
            settle_emails(ids[at:at + 100])
    """
    workers = [site.start(code) for _ in range(number)]
    wait_until("the workers are ready", lambda: len(list(ready.iterdir())) == number, 60)
    (ready / "go").touch()
    assert [worker.popen.wait(100) for worker in workers] == [0] * number, site.logs()
    counts = smtp_server.counts()
    assert (len(counts), set(counts.values())) == (500, {1})
    assert site.statuses() == {"sent": 500}


@pytest.mark.parametrize("error", [OperationalError, InterfaceError])
def test_case_43_a_database_error_after_the_server_took_a_mail_doubles_nothing(
    real_smtp, worker, monkeypatch, clock, error
):
    """X DB error after SMTP accept: at most the one mail in flight is doubled, not a batch of 100."""
    failures = [error("the server went away")] * 2
    write = deliver_slice.record

    def failing(facts):
        if failures:
            raise failures.pop()
        write(facts)

    monkeypatch.setattr(deliver_slice, "record", failing)
    mail.send_many({"recipients": f"u{i}@example.com", "subject": "s"} for i in range(100))
    worker.work()
    recover(clock, worker)
    counts = real_smtp.counts()
    assert (len(counts), failures) == (100, [])
    assert sum(counts.values()) == 100


def test_case_43_a_database_that_stays_away_after_the_server_took_a_mail_doubles_one_at_most(
    settings, real_smtp, worker, clock
):
    """X DB error after SMTP accept: at most the one mail in flight is doubled, not a batch of 100."""
    settings.CELERY_MAILER = settings.CELERY_MAILER | {"LEASE": timedelta(seconds=1)}

    asked = []

    def away(execute, *args):
        if len(real_smtp.received) >= 50:
            asked.append(time.monotonic())
            if asked[-1] < asked[0] + 2:
                raise OperationalError("the server went away")
        return execute(*args)

    mail.send_many({"recipients": f"u{i}@example.com", "subject": "s"} for i in range(100))
    with connection.execute_wrapper(away), suppress(OperationalError):
        worker.work()
    assert asked
    recover(clock, worker)
    counts = real_smtp.counts()
    assert len(counts) == 100
    assert sum(counts.values()) <= 101


def recover(clock, worker):
    """What beat does in the next days."""
    for _ in range(10):
        clock.pass_(6 * HOUR)
        periodic.rescue()
        periodic.settle()
        periodic.dispatch()
        worker.work()


# Recipients, and Django 6.1.


def test_case_44_no_recipients_is_refused_at_once():
    """B no recipients is terminal without retry: at the door."""
    with pytest.raises(InvalidEmail, match="is empty"):
        mail.send([], FROM, subject="s")
    assert not Email.objects.exists()


def test_case_44_an_email_that_has_lost_its_recipients_has_failed(real_smtp, worker, clock):
    """B no recipients is terminal without retry."""
    email = mail.send(TO, FROM, subject="s")
    Email.objects.update(to=[])
    worker.work()
    assert (stored(email).status, stored(email).reason) == ("failed", "no_recipients")
    assert (real_smtp.received, email.attempts.count()) == ([], 0)
    clock.pass_(30 * DAY)
    assert periodic.dispatch() == {"dispatched": 0}


@needs_mailers
def test_case_44_an_alias_of_mailers_routes(settings, smtp_server, arrived):
    """B Django 6.1 `MAILERS`: alias routing, no deprecation warning (each warning here is an error)."""
    real = {
        "BACKEND": conf.SMTP_BACKEND,
        "OPTIONS": {"host": "127.0.0.1", "port": smtp_server.port},
    }
    queue = {"BACKEND": conf.QUEUE_BACKEND, "OPTIONS": {"using": "real"}}
    settings.MAILERS = {"default": queue, "real": real, "bulk": queue}
    send_mail("s", "m", FROM, [TO])
    send_mail("s", "m", FROM, [TO], using="bulk")
    assert django_mail.mailers["bulk"].send_messages([django_message()]) == 1
    assert {e.provider for e in Email.objects.all()} == {"real"}
    assert len(arrived()) == 3


@needs_mailers
def test_case_44_a_mailer_that_queues_to_itself_is_rejected_with_a_clear_error(settings):
    """B self-reference rejected with a clear error."""
    settings.MAILERS = {
        "default": {"BACKEND": conf.QUEUE_BACKEND, "OPTIONS": {"using": "default"}},
        "real": {"BACKEND": conf.SMTP_BACKEND},
    }
    with pytest.raises(UnknownProvider, match="'using' names this mailer itself"):
        send_mail("s", "m", FROM, [TO])


def test_the_list_is_complete():
    """Every number has a test; 39 is the admin's."""
    numbers = {int(m[1]) for name in globals() if (m := re.match(r"test_case_(\d\d)_", name))}
    assert set(range(1, 45)) - numbers == {39}
