from datetime import UTC, date, datetime

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone, translation
from hypothesis import given
from hypothesis import strategies as st

from celery_mailer.exceptions import RenderError
from celery_mailer.models import Content, Decision, EmailTemplate, Message
from celery_mailer.models.transitions import CANCEL, move
from celery_mailer.render import stage, templates
from celery_mailer.render.stage import render_emails
from celery_mailer.signals import email_failed
from celery_mailer.sources import Finder
from celery_mailer.values import uuid7
from tests.factories import make_email, make_emails, stored

LOCAL = {"day": date(2026, 3, 7), "amount": 1234.5}


def content(**fields):
    return Content(email_id=uuid7(), from_email="a@b.example", **fields)


def render(content):
    source = Finder().find(content.template, content.language) if content.template else None
    return templates.render(content, source, content.context)[0]


def fault(**fields):
    with pytest.raises(RenderError) as error:
        render(content(**fields))
    return str(error.value)


# Files.


def test_a_template_brings_its_text_and_its_subject_with_it():
    message = render(content(template="mail/welcome.html", context={"name": "Ann"}))
    assert message.subject == "Welcome, Ann!"
    assert message.text == "Hello Ann\n"
    assert message.html == "<p>Hello Ann</p>\n"


def test_a_template_may_have_neither_text_nor_subject():
    message = render(content(template="mail/alone.html", context={"name": "Ann"}))
    assert (message.subject, message.html) == ("", "<p>Alone: Ann</p>")


def test_a_text_that_nobody_gave_is_made_of_the_html():
    assert render(content(template="mail/alone.html", context={"name": "A&B"})).text == "Alone: A&B"
    assert render(content(html="<p>{{ n }}</p>", context={"n": "A&B"})).text == "A&B"


@pytest.mark.django_db
def test_html_that_was_given_alone_and_verbatim_stays_alone():
    email = make_email(subject="s", message="", html_message="<p>x</p>")
    render_emails([email.pk])
    assert not Message.objects.exists()


def test_a_text_template_makes_a_text_mail():
    message = render(content(template="mail/notice.txt", context={"name": "Ann"}))
    assert (message.subject, message.text, message.html) == ("Notice for Ann", "Only text for Ann", "")


def test_a_template_needs_no_context():
    assert render(content(template="mail/welcome.html")).subject == "Welcome, !"


@pytest.mark.parametrize(
    ("name", "subject"),
    [("mail/plain_name", "Subject of no ending"), ("v1.2/welcome", "Subject in a folder with a dot")],
)
def test_a_template_whose_name_has_no_ending_brings_its_subject_too(name, subject):
    message = render(content(template=name, context={"name": "Ann"}))
    assert message.subject == subject
    assert "Ann" in message.html


def test_a_given_subject_and_text_win_over_the_files():
    message = render(content(template="mail/welcome.html", subject="Mine", text="My text"))
    assert (message.subject, message.text) == ("Mine", "My text")
    assert message.html.startswith("<p>Hello")


def test_a_given_subject_beside_a_template_is_one_too_if_there_is_a_context():
    message = render(content(template="mail/welcome.html", subject="Hi {{ name }}", context={"name": "Ann"}))
    assert message.subject == "Hi Ann"


def test_a_given_subject_beside_a_template_is_verbatim_without_a_context():
    assert render(content(template="mail/welcome.html", subject="{{ x }}")).subject == "{{ x }}"


# Sources.


def test_with_a_context_the_sources_are_templates():
    message = render(
        content(subject="Hi {{ n }}", text="T {{ n }}", html="<b>{{ n }}</b>", context={"n": "Ann"})
    )
    assert (message.subject, message.text, message.html) == ("Hi Ann", "T Ann", "<b>Ann</b>")


def test_an_empty_context_is_a_context():
    assert render(content(text="{{ nothing }}{% now 'Y' %}", context={})).text.isdigit()


# Escaping.


def test_html_is_escaped_and_text_and_subject_are_not():
    message = render(content(template="mail/welcome.html", context={"name": "<O'Neil & Co>"}))
    assert message.subject == "Welcome, <O'Neil & Co>!"
    assert message.text == "Hello <O'Neil & Co>\n"
    assert message.html == "<p>Hello &lt;O&#x27;Neil &amp; Co&gt;</p>\n"


def test_sources_are_escaped_in_the_same_way():
    message = render(content(subject="{{ n }}", text="{{ n }}", html="{{ n }}", context={"n": "a<b"}))
    assert (message.subject, message.text, message.html) == ("a<b", "a<b", "a&lt;b")


def test_what_a_template_extends_and_includes_is_escaped_too():
    message = render(content(template="mail/child.html", context={"name": "<b>"}))
    assert message.html == "<body><i>&lt;b&gt;</i></body>"


# Subjects.


def test_a_subject_is_one_line():
    message = render(
        content(subject="a {{ x }}\n b", text="t", context={"x": "1\r\nBcc: you@b.example\u2028\x0b2"})
    )
    assert message.subject == "a 1 Bcc: you@b.example 2 b"


@given(st.text())
def test_a_subject_is_one_line_whatever_the_context_brings(value):
    try:
        subject = render(content(subject="x {{ v }}", text="t", context={"v": value})).subject
    except RenderError:
        return
    assert subject.splitlines() == [subject]


# Language.


def test_a_template_is_rendered_in_the_emails_language():
    message = render(
        content(
            template="mail/translated.html",
            language="de",
            context={"day": date(2026, 3, 5), "amount": 1234.5},
        )
    )
    assert message.subject == "Dienstag"
    assert message.html == "<p>Montag März 1234,5</p>"


def test_the_language_that_was_active_is_active_again():
    with translation.override("fr"):
        render(content(template="mail/translated.html", language="de"))
        assert translation.get_language() == "fr"


def test_the_workers_language_is_not_the_emails():
    with translation.override("fr"):
        assert render(content(template="mail/translated.html", language="de")).subject == "Dienstag"


@pytest.mark.django_db
def test_the_language_of_the_caller_is_the_emails():
    with translation.override("de"):
        email = make_email(template="mail/translated.html", subject="", message="")
    render_emails([email.pk])
    assert Message.objects.get().subject == "Dienstag"


# Faults.


def test_what_a_template_misses_is_named():
    assert fault(template="mail/bad_include.html") == "the template mail/not_there.html does not exist"


def test_a_text_template_that_misses_something_is_not_taken_for_a_missing_one():
    assert fault(template="mail/bad_text.html") == "the template mail/not_there.txt does not exist"


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("mail/vanished.html", "template: 'mail/vanished.html' does not exist"),
        (
            "mail/bad_syntax.html",
            "Invalid block tag on line 1",
        ),
        (
            "mail/bad_extends.html",
            "'mail/bad_extends.html' needs 'mail/not_there.html', which does not exist",
        ),
    ],
)
def test_a_file_that_became_bad_after_the_call_is_told(template, told):
    email = make_email(template="mail/alone.html", subject="", message="")
    Content.objects.update(template=template)
    render_emails([email.pk])
    assert told in Decision.objects.get(email=email).detail


def test_bad_syntax_in_a_source_is_told():
    assert fault(subject="{% nonsense %}", context={}).startswith("TemplateSyntaxError: Invalid block tag")


def test_a_missing_variable_is_named_and_the_context_is_not_shown():
    told = fault(template="mail/missing_variable.html", context={"name": "hunter2"})
    assert told == "the variable 'missing' does not exist"


def test_what_a_template_raises_is_told():
    assert fault(text="{% widthratio 1 0 x %}{% cycle %}", context={}).startswith("TemplateSyntaxError")


@pytest.mark.parametrize("bad", ["\x00", "\ud800"])
def test_what_no_database_takes_is_a_fault(bad):
    assert "Error" in fault(text="{{ x }}", context={"x": bad})


def test_a_project_without_djangos_template_engine_is_told(settings):
    settings.TEMPLATES = []
    assert fault(text="x", context={}).startswith(
        "InvalidTemplateEngineError: Could not find config for 'django'"
    )


def test_a_worker_that_is_out_of_time_is_no_fault_of_the_template(monkeypatch):
    def slow(*arguments):
        raise SoftTimeLimitExceeded

    monkeypatch.setattr(templates, "compiled", slow)
    with pytest.raises(SoftTimeLimitExceeded):
        render(content(text="x", context={}))


# Time zone and language.


@pytest.mark.django_db
def test_times_are_those_of_the_callers_time_zone():
    with timezone.override("Asia/Tokyo"):
        email = make_email(
            subject="{{ at|date:'H:i' }}", context={"at": datetime(2026, 1, 1, 12, tzinfo=UTC)}
        )
    with timezone.override("America/Lima"):
        render_emails([email.pk])
    assert Message.objects.get().subject == "21:00"


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("language", "expected"),
    [
        ("id", "Sabtu 7 Maret 2026 1.234,50 ltr"),
        ("de", "Samstag 7. März 2026 1.234,50 ltr"),
        ("ar", "السبت 7 مارس، 2026 1234,50 rtl"),
    ],
)
def test_a_worker_writes_the_language_of_the_email(language, expected):
    email = make_email(template="mail/local.html", language=language, context=LOCAL, subject="", message="")
    with translation.override("en"):
        render_emails([email.pk])
    assert Message.objects.get().html.strip() == f'<html dir="{expected[-3:]}">{expected[:-4]}</html>'


# Rendered on delivery.


@pytest.mark.django_db
def test_what_is_rendered_on_delivery_is_written_from_the_template_as_it_is_then():
    row = EmailTemplate.objects.create(name="hello", subject="Hello")
    email = make_email(template="hello", render_on_delivery=True, subject="", message="")
    row.subject = "Changed"
    row.save()
    render_emails([email.pk])
    assert stored(email).rendered.subject == "Changed"
    assert stored(email).content.template_version == row.version()


@pytest.mark.django_db
def test_what_is_rendered_on_delivery_takes_a_translation_that_came_later():
    row = EmailTemplate.objects.create(name="hello", subject="Hello")
    email = make_email(template="hello", render_on_delivery=True, language="id", subject="", message="")
    row.translated_templates.create(language="id", subject="Halo")
    render_emails([email.pk])
    assert stored(email).rendered.subject == "Halo"


@pytest.mark.django_db
def test_nothing_rendered_is_kept_of_what_is_rendered_on_delivery():
    email = make_email(
        template="mail/alone.html", render_on_delivery=True, context={"name": "A"}, subject="", message=""
    )
    render_emails([email.pk])
    move([email.pk], CANCEL)
    assert not Message.objects.exists()
    assert (stored(email).content.dropped, stored(email).content.context) == (True, None)


@pytest.mark.django_db
def test_a_template_that_is_gone_at_delivery_fails_the_email_and_says_so():
    EmailTemplate.objects.create(name="hello", subject="Hello")
    email = make_email(template="hello", render_on_delivery=True, subject="", message="")
    EmailTemplate.objects.all().delete()
    render_emails([email.pk])
    assert stored(email).status == "failed"
    assert Decision.objects.get().detail == "template: 'hello' does not exist"


# The stage.


@pytest.mark.django_db
def test_the_stage_leaves_a_message_behind():
    email = make_email(template="mail/welcome.html", context={"name": "Ann"}, subject="", message="")
    render_emails([email.pk])
    message = Message.objects.get()
    assert (message.email_id, message.subject) == (email.pk, "Welcome, Ann!")
    assert stored(email).status == "queued"


@pytest.mark.django_db
def test_verbatim_emails_need_no_message():
    email = make_email(subject="{{ x }}", message="{% include 'secret' %}")
    render_emails([email.pk])
    assert not Message.objects.exists()


@pytest.mark.django_db
def test_rendering_twice_is_rendering_once(monkeypatch):
    email = make_email(template="mail/welcome.html", subject="", message="")
    render_emails([email.pk])
    monkeypatch.setattr(stage, "render", lambda *arguments: pytest.fail("rendered again"))
    render_emails([email.pk])
    assert Message.objects.count() == 1


@pytest.mark.django_db
def test_two_workers_that_render_at_once_leave_one_message(monkeypatch):
    email = make_email(template="mail/welcome.html", subject="", message="")

    def meanwhile(content, source, context):
        Message.objects.create(email_id=content.pk, subject="the other's")
        return templates.render(content, source, context)

    monkeypatch.setattr(stage, "render", meanwhile)
    render_emails([email.pk])
    assert Message.objects.get().subject == "the other's"


@pytest.mark.django_db
def test_rows_in_a_context_are_those_of_the_moment_of_rendering():
    user = User.objects.create(username="then")
    email = make_email(subject="{{ user.username }}", context={"user": user, "all": User.objects.all()})
    User.objects.update(username="now")
    render_emails([email.pk])
    assert Message.objects.get().subject == "now"


@pytest.mark.django_db
def test_a_row_that_was_deleted_fails_the_email_and_is_named():
    user = User.objects.create(username="gone")
    email, other = (
        make_email(subject="{{ user }}", context={"user": user}),
        make_email(subject="s", context={}),
    )
    pk = user.pk
    user.delete()
    render_emails([email.pk, other.pk])
    assert (stored(email).status, stored(email).reason) == ("failed", "render")
    assert Decision.objects.get().detail == f"context['user']: auth.user {pk} does not exist any more"
    assert stored(other).status == "queued"


@pytest.mark.django_db
def test_what_is_no_longer_queued_is_not_rendered():
    email = make_email(template="mail/welcome.html", subject="", message="")
    move([email.pk], CANCEL)
    render_emails([email.pk])
    assert not Message.objects.exists()


@pytest.mark.django_db
def test_a_template_fault_is_the_emails_end_with_the_fault_in_a_decision():
    email = make_email(template="mail/bad_include.html", subject="", message="")
    render_emails([email.pk])
    email = stored(email)
    assert (email.status, email.reason) == ("failed", "render")
    assert email.finished_at is not None
    decision = Decision.objects.get(email=email)
    assert (decision.move, decision.reason) == ("broken", "render")
    assert decision.detail == "the template mail/not_there.html does not exist"


@pytest.mark.django_db
def test_a_template_fault_is_signalled(django_capture_on_commit_callbacks):
    failed = []

    def receiver(emails, **kwargs):
        failed.extend((e.pk, e.reason) for e in emails)

    email = make_email(template="mail/bad_include.html", subject="", message="")
    email_failed.connect(receiver)
    try:
        with django_capture_on_commit_callbacks(execute=True):
            render_emails([email.pk])
    finally:
        email_failed.disconnect(receiver)
    assert failed == [(email.pk, "render")]


@pytest.mark.django_db
@pytest.mark.parametrize("bad", ["mail/bad_include.html", "mail/bad_text.html"])
def test_one_bad_template_does_not_stop_the_others(bad):
    good = make_email(template="mail/welcome.html", subject="", message="")
    broken = make_email(template=bad, subject="", message="")
    also_good = make_email(template="mail/alone.html", subject="", message="")
    render_emails([good.pk, broken.pk, also_good.pk])
    assert set(Message.objects.values_list("pk", flat=True)) == {good.pk, also_good.pk}
    assert [stored(e).status for e in (good, broken, also_good)] == ["queued", "failed", "queued"]


@pytest.mark.django_db
def test_a_slice_is_rendered_with_two_queries():
    emails = make_emails(30, template="mail/welcome.html", subject="", message="")
    with transaction.atomic(), CaptureQueriesContext(connection) as queries:
        render_emails([e.pk for e in emails])
    assert len([q for q in queries if "SAVEPOINT" not in q["sql"]]) == 2
