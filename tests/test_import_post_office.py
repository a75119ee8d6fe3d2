"""``mailer_import_post_office``: what django-post_office has, taken over."""

import json
from datetime import timedelta
from io import StringIO

import pytest
from django.core.files.storage import Storage, default_storage
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

from celery_mailer import chain, conf, signals
from celery_mailer.admin.timeline import timeline
from celery_mailer.models import Attachment, Attempt, Content, Email, EmailTemplate, Enclosure
from celery_mailer.models.transitions import WAKE, move
from celery_mailer.post_office import importing
from celery_mailer.post_office.settings_lines import settings_lines
from tests import post_office
from tests.conftest import leave_the_outbox
from tests.post_office import FAILED, QUEUED, REQUEUED, SENT, attach, insert, log, mail, template

pytestmark = pytest.mark.django_db

# Columns of an attachment whose file holds b"abc", and what is said of it.
DAMAGED = [
    pytest.param({"headers": {"Content-Transfer-Encoding": "base64"}}, "is no base64: Incorrect padding"),
    pytest.param({"headers": ["Content-ID", "<logo>"]}, "has headers that are no JSON object"),
    pytest.param({"file": "../outside.bin"}, "has a path outside of the storage"),
]


@pytest.fixture(scope="module", autouse=True)
def tables(django_db_setup, django_db_blocker):
    """For the module: MariaDB commits when a table is made, and with it what the test has done."""
    with django_db_blocker.unblock():
        post_office.drop_tables()
        post_office.create_tables()
        yield
        post_office.drop_tables()


def run(*arguments):
    out = StringIO()
    call_command("mailer_import_post_office", *arguments, stdout=out, stderr=StringIO())
    return out.getvalue()


def report(*arguments):
    return json.loads(run("--json", *arguments))


def taken(**values):
    """The one email of which that was said, imported."""
    insert("email", [mail(1, **values)])
    run()
    return Email.objects.get()


def deliver():
    """Everything that is due, sent in this process."""
    due = list(Email.objects.filter(due_at__lte=timezone.now()).values_list("pk", flat=True))
    move(due, WAKE, due_at=timezone.now())
    chain.run(due)


def everything():
    """All that an import makes, in a form to compare."""
    return [
        list(Email.objects.order_by("pk").values()),
        list(Content.objects.order_by("pk").values()),
        list(Attempt.objects.order_by("pk").values()),
        list(Enclosure.objects.order_by("email_id", "position").values("email_id", "attachment_id", "name")),
        list(EmailTemplate.objects.order_by("pk").values()),
        list(Attachment.objects.order_by("pk").values("pk", "path", "size")),
    ]


@pytest.fixture
def many(monkeypatch):
    """Forty emails in all states, with logs and a shared file, taken in batches of seven."""
    monkeypatch.setattr(importing, "BATCH", 7)
    insert("email", [mail(i, status=i % 4, priority=i % 3) for i in range(1, 41)])
    insert("log", [log(i, status=i % 4 and FAILED) for i in range(1, 41) if i % 4 != QUEUED])
    insert("emailtemplate", [template(1), template(2, name="", language="de", default_template_id=1)])
    attach(1, b"terms", *range(1, 41))


class TestStates:
    @pytest.mark.parametrize(
        ("status", "ours"), [(SENT, "sent"), (FAILED, "failed"), (QUEUED, "queued"), (REQUEUED, "deferred")]
    )
    def test_each_status_has_one_of_ours(self, status, ours):
        assert taken(status=status).status == ours

    def test_what_nobody_knows_of_is_uncertain(self):
        email = taken(status=None, priority=3)
        assert (email.status, email.due_at) == ("uncertain", None)
        assert "did not note" in email.decisions.get().detail

    def test_what_has_expired_while_waiting_is_expired(self):
        assert taken(expires_at=timezone.now() - timedelta(hours=1)).status == "expired"

    def test_what_waits_is_due_at_once(self):
        assert taken().due_at <= timezone.now()

    def test_what_is_scheduled_is_due_then(self):
        later = timezone.now() + timedelta(days=3)
        email = taken(scheduled_time=later)
        assert email.due_at == email.scheduled_at == later

    def test_what_has_waited_for_long_is_not_given_up_at_its_first_failure(self, settings):
        settings.CELERY_MAILER = {"PROVIDERS": {"default": {"URL": "simulator://"}}}
        leave_the_outbox(settings)
        email = taken(to="defer@simulator.test", created=timezone.now() - timedelta(days=20))
        deliver()
        email.refresh_from_db()
        assert email.status == "deferred"

    def test_retries_count_as_they_did_there(self):
        assert taken(status=REQUEUED, number_of_retries=2).attempt_count == 2

    def test_now_is_retried_in_the_high_lane(self):
        assert taken(priority=3).priority == 2

    def test_no_signal_is_sent_for_what_is_imported(self, django_capture_on_commit_callbacks):
        heard = []
        signals.email_queued.connect(heard.append, weak=False, dispatch_uid="heard")
        with django_capture_on_commit_callbacks(execute=True):
            taken()
        signals.email_queued.disconnect(dispatch_uid="heard")
        assert heard == []


class TestHistory:
    def test_each_log_row_is_an_attempt(self):
        insert("email", [mail(1, status=SENT)])
        insert("log", [log(1, status=FAILED, exception_type="OSError", message="no"), log(1)])
        run()
        email = Email.objects.get()
        assert [(a.outcome, a.text) for a in email.attempts.order_by("pk")] == [
            ("deferred", "OSError: no"),
            ("accepted", ""),
        ]
        assert email.attempt_count == 2

    def test_the_last_failure_of_what_has_failed_is_a_rejection(self):
        insert("email", [mail(1, status=FAILED)])
        insert("log", [log(1, status=FAILED, exception_type="E", message="no") for i in (1, 2)])
        run()
        assert [a.outcome for a in Attempt.objects.order_by("pk")] == ["deferred", "rejected"]

    def test_an_attempt_names_the_backend_as_it_is_called_there(self):
        insert("email", [mail(1, status=SENT), mail(2, status=SENT, backend_alias="ses")])
        insert("log", [log(1), log(2)])
        run()
        assert set(Attempt.objects.values_list("provider", flat=True)) == {"default", "ses"}

    def test_a_batch_that_timed_out_is_uncertain(self):
        insert("email", [mail(1, status=REQUEUED)])
        insert("log", [log(1, status=FAILED, exception_type="TimeoutError")])
        run()
        assert Attempt.objects.get().outcome == "uncertain"

    def test_it_ended_when_its_last_attempt_did(self):
        now = timezone.now()
        insert("email", [mail(1, status=SENT, last_updated=now - timedelta(hours=2))])
        insert("log", [log(1, date=now - timedelta(hours=1))])
        run()
        assert Email.objects.get().finished_at == now - timedelta(hours=1)

    def test_it_stays_as_it_was_sent(self):
        email = taken(status=SENT, subject="Tom &amp; Jerry", message="a &lt; b")
        assert (email.content.subject, email.content.text) == ("Tom &amp; Jerry", "a &lt; b")

    def test_what_the_next_cleanup_would_delete_is_left_out(self):
        long_ago = timezone.now() - timedelta(days=91)
        insert("email", [mail(1, status=SENT, created=long_ago, last_updated=long_ago)])
        assert report()["too_old"] == 1
        assert not Email.objects.exists()

    def test_events_of_esps_are_counted_and_left_out(self):
        insert("email", [mail(1, status=SENT)])
        insert("log", [log(1), log(1, status=70)])
        assert report()["events_left_out"] == 1
        assert Attempt.objects.count() == 1


class TestRepairs:
    def test_a_name_with_a_comma_is_one_recipient(self):
        email = taken(to='"Doe, John" <john@example.com>, ada@example.com')
        assert email.to == ['"Doe, John" <john@example.com>', "ada@example.com"]

    def test_subject_and_text_are_not_escaped(self):
        content = taken(subject="Tom &amp; Jerry", message="a &lt; b", html_message="<p>&amp;</p>").content
        assert (content.subject, content.text, content.html) == ("Tom & Jerry", "a < b", "<p>&amp;</p>")

    def test_what_looks_like_a_template_goes_out_as_it_is(self, real_smtp):
        taken(message="{{ name }} {% include 'x' %}")
        deliver()
        assert "{{ name }} {% include 'x' %}" in real_smtp.received[0].message.get_content()

    def test_headers_that_contradict_the_email_are_left_out(self):
        email = taken(headers={"Bcc": "spy@example.com", "Subject": "no", "X-Own": "yes"})
        assert email.content.headers == {"X-Own": "yes"}

    def test_the_report_counts_what_was_mended(self):
        insert("email", [mail(1, subject="a &amp; b"), mail(2, to="Doe, J <j@example.com>"), mail(3)])
        assert report()["repaired"] == {"subject": 1, "to": 1}

    def test_what_cannot_be_sent_has_failed_and_says_why(self):
        insert("email", [mail(1, to="nonsense")])
        assert report()["unsendable"] == ["email 1: to[0]: is not a valid email address"]
        email = Email.objects.get()
        assert (email.status, email.reason) == ("failed", "import")
        assert email.decisions.get().detail == "to[0]: is not a valid email address"

    def test_no_recipients_is_an_end(self):
        assert taken(to="").status == "failed"

    def test_the_timeline_says_where_it_comes_from(self):
        titles = [str(entry.title) for entry in timeline(taken(to=""))]
        assert titles == ["Queued", "Taken over from django-post_office"]


class TestDelivery:
    def test_it_has_what_it_had_there(self, real_smtp):
        taken(
            to="ada@example.com, Bob <bob@example.com>",
            cc="cc@example.com",
            bcc="bcc@example.com",
            html_message="<p>hello</p>",
            headers={"Reply-To": "answers@example.com", "X-Order": 17},
            message_id="<17@example.com>",
        )
        deliver()
        (received,) = real_smtp.received
        message = received.message
        assert sorted(received.recipients) == [f"{n}@example.com" for n in ("ada", "bcc", "bob", "cc")]
        assert [message[name] for name in ("Message-ID", "Reply-To", "X-Order", "To", "Cc", "Bcc")] == [
            "<17@example.com>",
            "answers@example.com",
            "17",
            "ada@example.com, Bob <bob@example.com>",
            "cc@example.com",
            None,
        ]
        assert [part.get_content_type() for part in message.walk()] == [
            "multipart/alternative",
            "text/plain",
            "text/html",
        ]

    def test_a_template_is_rendered_on_delivery_in_its_language(self, real_smtp):
        german = template(2, name="", language="de", default_template_id=1, subject="Hallo {{ name }}")
        insert("emailtemplate", [template(1), german])
        taken(template_id=2, context={"name": "Zoë & Co"}, subject="", message="")
        deliver()
        assert real_smtp.received[0].message["Subject"] == "Hallo Zoë & Co"

    def test_a_template_without_a_context_is_rendered_too(self, real_smtp):
        insert("emailtemplate", [template(1, subject="Hello")])
        taken(template_id=1, context='""', subject="", message="")
        deliver()
        assert real_smtp.received[0].message["Subject"] == "Hello"

    def test_a_file_of_the_same_name_does_not_hide_the_template(self, real_smtp):
        insert("emailtemplate", [template(1, name="mail/welcome.html", subject="From the table")])
        taken(template_id=1, context={"name": "Ada"}, subject="", message="")
        deliver()
        assert real_smtp.received[0].message["Subject"] == "From the table"

    def test_words_that_were_rendered_there_are_not_rendered_again(self, real_smtp):
        insert("emailtemplate", [template(1)])
        taken(template_id=1, subject="Hello {{ Ada }}")
        deliver()
        assert real_smtp.received[0].message["Subject"] == "Hello {{ Ada }}"

    def test_a_context_that_cannot_be_read_is_a_failure_that_says_so(self):
        insert("emailtemplate", [template(1)])
        assert (
            taken(template_id=1, context="[1]").decisions.get().detail == "context: cannot be read: TypeError"
        )


class TestAttachments:
    def test_one_file_stays_one_file(self):
        insert("email", [mail(i) for i in (1, 2, 3)])
        attach(1, b"terms", 1, 2)
        attach(2, b"terms", 3)
        run()
        kept = Attachment.objects.get()
        with default_storage.open(kept.path) as file:
            assert file.read() == b"terms"
        assert Enclosure.objects.filter(attachment=kept).count() == 3

    def test_it_arrives_as_it_was(self, real_smtp):
        insert("email", [mail(1)])
        attach(1, b"\x00\xff", 1, name="a.pdf", mimetype="application/pdf")
        run()
        deliver()
        (part,) = real_smtp.received[0].message.iter_attachments()
        assert (part.get_filename(), part.get_content_type()) == ("a.pdf", "application/pdf")
        assert part.get_content() == b"\x00\xff"

    def test_an_inline_part_keeps_its_content_id(self, real_smtp):
        insert("email", [mail(1, html_message="<img src='cid:logo'>")])
        headers = {
            "Content-Type": "image/png",
            "Content-Transfer-Encoding": "base64",
            "Content-ID": "<logo>",
            "Content-Disposition": "inline",
        }
        attach(1, b"iVBORw==\n", 1, mimetype="image/png", headers=headers)
        run()
        deliver()
        (part,) = [p for p in real_smtp.received[0].message.walk() if p["Content-ID"]]
        assert (part["Content-ID"], part.get_content_disposition()) == ("<logo>", "inline")
        assert part.get_payload(decode=True) == b"\x89PNG"

    def test_a_waiting_email_does_not_leave_without_a_file_that_is_lost(self):
        insert("email", [mail(1)])
        attach(1, None, 1, name="a.pdf")
        assert report()["files_lost"] == 1
        email = Email.objects.get()
        assert email.status == "failed"
        assert email.decisions.get().detail == "attachments: the file of a.pdf is not in the storage"

    @pytest.mark.parametrize(("values", "fault"), DAMAGED)
    def test_a_waiting_email_does_not_leave_without_a_file_that_is_damaged(self, values, fault):
        insert("email", [mail(1), mail(2)])
        attach(1, b"abc", 1, name="a.pdf", **values)
        assert report()["unsendable"] == [f"email 1: attachments: the file of a.pdf {fault}"]
        assert [email.status for email in Email.objects.order_by("pk")] == ["failed", "queued"]

    @pytest.mark.parametrize(("values", "fault"), DAMAGED)
    def test_a_dry_run_finds_a_file_that_is_damaged(self, values, fault):
        insert("email", [mail(1), mail(2)])
        attach(1, b"abc", 1, **values)
        dry = report("--dry-run")
        assert report() == {**dry, "dry_run": False}

    def test_a_file_that_cannot_be_read_now_ends_the_import_and_no_email(self, monkeypatch):
        def refuse(*args):
            raise PermissionError(13, "Permission denied", "a.pdf")

        insert("email", [mail(1)])
        attach(1, b"abc", 1)
        with (
            monkeypatch.context() as patched,
            pytest.raises(CommandError, match="Permission denied"),
        ):
            patched.setattr(Storage, "open", refuse)
            run()
        assert report()["emails"] == {"queued": 1}

    def test_an_attachment_without_a_row_is_lost(self):
        insert("email", [mail(1), mail(2)])
        insert("attachment_emails", [{"attachment_id": 7, "email_id": 1}])
        fault = "attachments: the file of attachment 7 is not in the storage"
        assert report()["unsendable"] == [f"email 1: {fault}"]
        assert Email.objects.count() == 2

    def test_each_file_that_is_lost_is_named(self):
        insert("email", [mail(1)])
        attach(1, None, 1, name="a.pdf")
        attach(2, b"abc", 1, name="b.pdf", headers=[1])
        assert report()["files_lost"] == 2
        assert Email.objects.get().decisions.get().detail == (
            "attachments: the file of a.pdf is not in the storage;"
            " the file of b.pdf has headers that are no JSON object"
        )

    @pytest.mark.parametrize(("values", "fault"), DAMAGED)
    def test_history_does_without_a_file_that_is_damaged(self, values, fault):
        insert("email", [mail(1, status=SENT)])
        attach(1, b"abc", 1, **values)
        assert report()["files_lost"] == 1
        assert (Email.objects.get().status, Enclosure.objects.count()) == ("sent", 0)

    def test_history_does_without_a_file_that_is_lost(self):
        insert("email", [mail(1, status=SENT)])
        attach(1, None, 1)
        run()
        assert Email.objects.get().status == "sent"


class TestTemplates:
    def test_translations_come_under_the_name_of_the_default(self):
        german = template(2, name="old name", language="de", default_template_id=3)
        insert("emailtemplate", [german, template(3, name="welcome", description="the first")])
        run()
        default, german = EmailTemplate.objects.order_by("language")
        assert (default.name, default.description) == ("welcome", "the first")
        assert (german.name, german.default_template) == ("welcome", default)
        assert default.versions.count() == 1

    def test_one_that_is_here_already_stays_as_it_is(self):
        EmailTemplate.objects.create(name="template 1", subject="Edited")
        insert("emailtemplate", [template(1)])
        assert report()["templates_known"] == 1
        assert EmailTemplate.objects.get().subject == "Edited"

    def test_two_of_one_name_both_come(self):
        insert("emailtemplate", [template(1, name="same"), template(2, name="same")])
        assert report()["faults"] == ["same: not the only one; it is now 'same (2)'"]
        run()
        assert sorted(EmailTemplate.objects.values_list("name", flat=True)) == ["same", "same (2)"]

    def test_a_language_is_spelled_as_here(self):
        insert("emailtemplate", [template(1, language="pt_BR")])
        run()
        assert EmailTemplate.objects.get().language == "pt-br"

    @pytest.mark.parametrize("tag", ["{% load post_office %}", "{%load i18n post_office%}"])
    def test_one_that_loads_django_post_offices_tags_has_the_setting_named(self, tag):
        insert("emailtemplate", [template(1, html_content=f"{tag}<p>")])
        assert "    'POST_OFFICE_TAGS': True," in report()["settings"]

    def test_one_with_a_fault_comes_and_is_reported(self):
        insert("emailtemplate", [template(1, subject="{% nonsense %}")])
        (fault,) = report()["faults"]
        assert "nonsense" in fault
        assert EmailTemplate.objects.get().subject == "{% nonsense %}"


class TestAgain:
    def test_a_second_run_changes_nothing(self, many):
        run()
        before = everything(), [post_office.rows(table) for table in post_office.TABLES]
        second = report()
        assert (everything(), [post_office.rows(table) for table in post_office.TABLES]) == before
        assert (second["known"], second["emails"]) == (40, {})

    def test_one_that_was_interrupted_goes_on(self, many, monkeypatch):
        calls = []

        def fail(using, ids, at):
            calls.append(ids)
            if len(calls) == 3:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(importing.tables, "take_over", fail)
            run()
        assert Email.objects.count() == 14
        assert report()["known"] == 14
        assert Email.objects.count() == 40

    def test_what_was_delivered_and_cleaned_up_here_does_not_come_back(self):
        insert("email", [mail(1)])
        run()
        Email.objects.all().delete()
        assert report()["known"] == 1
        assert not Email.objects.exists()

    @pytest.mark.parametrize("status", [SENT, FAILED, None])
    def test_history_that_was_cleaned_up_here_does_not_come_back(self, status):
        yesterday = timezone.now() - timedelta(days=1)
        insert("email", [mail(1, status=status, created=yesterday, last_updated=yesterday)])
        run()
        Email.objects.filter(finished_at=None).update(finished_at=yesterday)  # a person has decided
        call_command("mailer_cleanup", days=0, stdout=StringIO())
        assert not Email.objects.exists()
        again = report()
        assert (again["known"], again["emails"]) == (1, {})
        assert not Email.objects.exists()

    def test_what_was_too_old_is_not_marked_as_taken(self):
        long_ago = timezone.now() - timedelta(days=91)
        insert("email", [mail(1, status=SENT, created=long_ago, last_updated=long_ago)])
        run()
        assert not post_office.rows("log")

    def test_post_office_leaves_alone_what_is_ours(self):
        insert("email", [mail(1), mail(2, status=REQUEUED), mail(3, status=SENT)])
        run()
        status = list(post_office.TABLES["email"]).index("status")
        assert [row[status] for row in post_office.rows("email")] == [FAILED, FAILED, SENT]
        kind = list(post_office.TABLES["log"]).index("exception_type")
        assert [row[kind] for row in post_office.rows("log")] == ["TakenOver"] * 3

    def test_what_was_sent_there_stays_sent_in_its_log(self):
        insert("email", [mail(1, status=SENT), mail(2, status=FAILED), mail(3, status=None)])
        run()
        status = list(post_office.TABLES["log"]).index("status")
        assert [row[status] for row in post_office.rows("log")] == [SENT, FAILED, FAILED]

    def test_a_dry_run_says_the_same_and_changes_nothing(self, many):
        there = [post_office.rows(table) for table in post_office.TABLES]
        dry = report("--dry-run")
        assert [post_office.rows(table) for table in post_office.TABLES] == there
        assert not any(everything())
        assert report() == {**dry, "dry_run": False}


class TestCommand:
    def test_an_older_versions_tables_are_read(self):
        if connection.vendor == "mysql":
            pytest.skip("MariaDB commits when a table is made")
        post_office.drop_tables()
        post_office.create_tables(first_version=True)
        later = {name for names in post_office.LATER.values() for name in names}
        insert("email", [{n: v for n, v in mail(1).items() if n not in later}])
        insert("emailtemplate", [{n: v for n, v in template(1).items() if n not in later}])
        run()
        assert Email.objects.get().status == "queued"
        assert EmailTemplate.objects.get().language == ""

    def test_without_the_tables_it_says_so(self, monkeypatch):
        monkeypatch.setattr(importing.tables, "missing", lambda using: ["post_office_email"])
        with pytest.raises(CommandError, match="has no table post_office_email"):
            run()

    def test_a_backend_that_no_provider_is_named_after_stops_it_first(self, settings):
        settings.POST_OFFICE = {"BACKENDS": {"ses": "anymail.backends.amazon_ses.EmailBackend"}}
        insert("email", [mail(1, backend_alias="ses"), mail(2)])
        with pytest.raises(CommandError, match=r"(?s)wait for ses.*'PROVIDERS': {'ses'"):
            run()
        assert not Email.objects.exists()

    def test_the_default_mailers_alias_is_whatever_the_routes_say(self, settings):
        settings.POST_OFFICE = {"DEFAULT_MAILER": "smtp"}
        assert taken(backend_alias="smtp").provider == ""

    def test_it_prints_what_it_did_and_the_settings(self, many):
        printed = run()
        assert "emails queued: 10" in printed
        assert "attachments: 40" in printed
        assert "CELERY_MAILER = {" in printed

    def test_no_address_is_printed(self):
        insert("email", [mail(1, to="secret person at example.com")])
        assert "secret" not in run() + json.dumps(report())

    def test_many_faults_are_cut_short(self):
        insert("email", [mail(i, to="x") for i in range(1, 31)])
        assert "Not sendable: and 10 more; --json has them all" in run()


class TestSettings:
    def test_the_lines_are_settings_without_faults(self, settings):
        given = {
            "BACKENDS": {
                "default": "django.core.mail.backends.smtp.EmailBackend",
                "queue": "post_office.EmailBackend",
            },
            "BATCH_SIZE": 50,
            "DEFAULT_PRIORITY": "low",
            "MAX_RETRIES": 4,
            "RETRY_INTERVAL": timedelta(hours=8),
            "OVERRIDE_RECIPIENTS": ["staging@example.com"],
            "MESSAGE_ID_FQDN": "example.com",
            "LOG_LEVEL": 1,
            "FILE_STORAGE": "default",
            "THREADS_PER_PROCESS": 5,
            "CELERY_ENABLED": True,
        }
        names = {"timedelta": timedelta}
        exec("\n".join(settings_lines(given, tags=True)), names)
        settings.CELERY_MAILER = names["CELERY_MAILER"]
        assert conf.problems() == ()
        ours = conf.get()
        assert list(ours.providers) == ["default"]
        assert (ours.retry.max_attempts, ours.retry.wait, ours.retry.min) == (5, "fixed", timedelta(hours=8))
        assert (ours.batch_size, ours.default_priority, ours.log_level) == (50, "low", 1)
        assert (ours.attachments.storage, ours.post_office_tags) == ("default", True)

    def test_what_has_no_counterpart_is_named_with_the_reason(self):
        (line, *_) = settings_lines({"THREADS_PER_PROCESS": 5})
        assert line == "# THREADS_PER_PROCESS: celery worker --concurrency"
