"""The test kit: what projects use in their own tests."""

import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from django.core import mail as django_mail
from django.db import transaction
from django.test import TestCase
from django.utils import timezone

from celery_mailer import chain, mail, signals, testing
from celery_mailer.exceptions import InvalidEmail
from celery_mailer.models import Email, EmailTemplate
from celery_mailer.testing import assert_email, assert_no_email, emails, provider_fails, run_chains, run_due
from tests.factories import make_email

ROOT = Path(__file__).parent.parent


def send(**arguments):
    return mail.send("ada@example.com", "shop@example.com", **{"subject": "s", "message": "m", **arguments})


class InOneTransaction(TestCase):
    """As most tests of a project are."""

    def test_what_is_queued_in_the_block_is_sent_at_its_end(self):
        with run_chains():
            email = send()
            assert django_mail.outbox == []
        email.refresh_from_db()
        assert email.status == "sent"
        assert [m.to for m in django_mail.outbox] == [["ada@example.com"]]

    def test_what_was_rolled_back_is_not_sent(self):
        with run_chains(), pytest.raises(ZeroDivisionError), transaction.atomic():
            send()
            raise ZeroDivisionError
        assert django_mail.outbox == []

    def test_each_block_sends_what_was_queued_in_it(self):
        before = send()
        for number in (1, 2):
            with run_chains():
                send()
            assert len(django_mail.outbox) == number
        before.refresh_from_db()
        assert before.status == "queued"

    def test_what_a_receiver_queues_in_the_block_is_sent_too(self):
        def follow_up(emails, **more):
            if emails[0].content.subject != "thanks":
                send(subject="thanks")

        signals.email_sent.connect(follow_up, dispatch_uid="follow up")
        self.addCleanup(signals.email_sent.disconnect, dispatch_uid="follow up")
        with run_chains():
            send()
        assert [m.subject for m in django_mail.outbox] == ["s", "thanks"]

    def test_signals_are_sent_in_the_block(self):
        heard = []
        signals.email_sent.connect(
            lambda emails, **more: heard.extend(emails), weak=False, dispatch_uid="heard"
        )
        self.addCleanup(signals.email_sent.disconnect, dispatch_uid="heard")
        with run_chains():
            email = send()
        assert heard == [email]

    def test_without_the_block_nothing_is_sent(self):
        send()
        assert django_mail.outbox == []


@pytest.mark.django_db(transaction=True)
def test_in_a_test_that_commits_each_commit_sends(mailoutbox):
    with run_chains():
        send()
        assert len(mailoutbox) == 1


def test_after_the_block_chains_are_published_again(db):
    published = chain.start
    with run_chains():
        assert chain.start is not published
    assert chain.start is published


class TestFailures:
    @pytest.mark.parametrize(
        ("phase", "code", "status", "reason"),
        [
            ("connect", None, "deferred", "connection"),
            ("login", 535, "deferred", "provider"),
            ("mail", 550, "failed", "sender"),
            ("rcpt", 450, "deferred", "temporary"),
            ("rcpt", 550, "failed", "recipient"),
            ("data", 554, "failed", "content"),
            ("body", None, "deferred", "connection"),
        ],
    )
    def test_a_provider_fails_where_it_is_told_to(self, mailer, phase, code, status, reason):
        with run_chains(), provider_fails(phase, code):
            send()
        assert_email(status=status, reason=reason)
        assert django_mail.outbox == []

    def test_a_line_that_breaks_after_the_dot_leaves_a_doubt(self, mailer):
        with run_chains(), provider_fails("dot"):
            send(stream="marketing")
        assert_email(status="uncertain")

    def test_only_the_provider_named_fails(self, mailer):
        with run_chains(), provider_fails("connect", alias="another"):
            send()
        assert_email(status="sent")

    def test_an_unknown_phase_is_an_error(self):
        with pytest.raises(ValueError, match="'handshake' is not a valid Phase"), provider_fails("handshake"):
            pass

    def test_the_breaker_has_forgotten_it_afterwards(self, mailer):
        for _ in range(20):
            with run_chains(), provider_fails("connect"):
                send()
        assert testing.breakers._tallies == {}


class TestDue:
    def test_a_retry_is_sent_when_it_is_due(self, mailer):
        with run_chains(), provider_fails("rcpt", 450):
            email = send()
        email.refresh_from_db()
        assert run_due() == 0
        assert run_due(at=email.due_at) == 1
        assert_email(status="sent")

    def test_scheduled_mail_is_sent_at_its_time(self, mailer):
        later = timezone.now() + timedelta(days=1)
        with run_chains():
            send(scheduled_time=later)
        assert (run_due(), run_due(at=later)) == (0, 1)
        assert len(django_mail.outbox) == 1

    def test_what_has_expired_by_then_is_not_sent(self, mailer):
        now = timezone.now()
        with run_chains():
            send(scheduled_time=now + timedelta(days=1), expires_at=now + timedelta(days=2))
        run_due(at=now + timedelta(days=3))
        assert_email(status="expired")


class TestLooking:
    def test_by_recipient_in_any_spelling(self, db):
        make_email(to="Ada <ada@example.com>", bcc="bob@EXAMPLE.com")
        make_email(to="eve@example.com")
        assert len(emails(to="ada@example.com")) == len(emails(to="Bob@example.com")) == 1

    @pytest.mark.parametrize("name", ["mail/welcome.html", "welcome.html", "welcome", "mail/welcome"])
    def test_by_template_as_it_was_given(self, db, name):
        make_email(template="mail/welcome.html", subject="", message="", context={"name": "Ada"})
        make_email()
        assert assert_email(template=name).content.template == "mail/welcome.html"

    def test_half_a_name_is_another_template(self, db):
        make_email(template="mail/welcome.html", subject="", message="", context={"name": "Ada"})
        assert_no_email(template="come.html")

    def test_by_a_template_of_the_database_and_its_language(self, db):
        template = EmailTemplate.objects.create(name="receipt", subject="x")
        template.translated_templates.create(language="de", subject="y")
        make_email(template=template, language="de", subject="", message="")
        assert_email(template=template, language="de")
        assert_no_email(template=template, language="en")

    @pytest.mark.parametrize("subject", ["Hello {{ name }}", "Hello Ada"])
    def test_by_subject_as_it_was_given_and_as_it_was_rendered(self, mailer, subject):
        with run_chains():
            send(subject="Hello {{ name }}", context={"name": "Ada"}, html_message="<p>m</p>")
        assert_email(subject=subject)
        assert_no_email(subject="Hello")

    def test_by_stream_subject_and_tags(self, db):
        make_email(stream="marketing", subject="News", tags=["june"])
        assert_email(stream="marketing", subject="News", tags=["june"])
        assert_no_email(stream="transactional")

    def test_none_is_an_error_that_lists_what_is_there(self, db):
        make_email(to="eve@example.com", subject="Hi")
        with pytest.raises(
            AssertionError, match=r"(?s)0 emails, not one.*eve@example.com: 'Hi', en-us, transac"
        ):
            assert_email(to="ada@example.com")

    def test_two_are_an_error(self, db):
        make_email()
        make_email()
        with pytest.raises(AssertionError, match="2 emails, not one"):
            assert_email()

    def test_one_that_should_not_be_there_is_an_error(self, db):
        make_email(subject="Hi")
        with pytest.raises(AssertionError, match="1 emails with"):
            assert_no_email(subject="Hi")

    def test_nothing_at_all_is_said(self, db):
        with pytest.raises(AssertionError, match="There are none"):
            assert_email()


class TestSnapshots:
    def test_a_rendered_template_is_subject_text_and_html(self, db):
        EmailTemplate.objects.create(
            name="r", subject="Hi {{ n }}", content="T {{ n }}", html_content="<p>{{ n }}</p>"
        )
        said = testing.rendered("r", {"n": "Tom & Co"})
        assert said == "Subject: Hi Tom & Co\n\n--- text\nT Tom & Co\n\n--- html\n<p>Tom &amp; Co</p>\n"

    def test_a_template_that_does_not_exist_is_an_error(self, db):
        with pytest.raises(InvalidEmail, match="does not exist"):
            testing.rendered("nowhere.html")

    def test_a_snapshot_is_compared(self, tmp_path):
        path = tmp_path / "deep" / "a.txt"
        with pytest.raises(AssertionError, match="no snapshot"):
            testing.assert_snapshot("a\n", path)
        testing.assert_snapshot("a\n", path, update=True)
        testing.assert_snapshot("a\n", path)
        with pytest.raises(AssertionError, match=r"(?s)something else.*-a.*\+b"):
            testing.assert_snapshot("b\n", path)


def pytest_in(folder, code, *options):
    (folder / "test_it.py").write_text(code)
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "celery_mailer.pytest_plugin", *options, "test_it.py"]
    env = {"PYTHONPATH": f"{ROOT}", "PATH": "/usr/bin:/bin", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


def test_the_plugin_costs_a_project_without_django_nothing(tmp_path):
    code = "import sys\n\ndef test_it():\n    assert not {'django', 'celery'} & set(sys.modules)\n"
    assert pytest_in(tmp_path, code)[0] == 0


def test_the_plugins_snapshots_are_written_when_asked_for(tmp_path):
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "hello.txt").write_text("Hello {{ name }}")
    (tmp_path / "conf_of_it.py").write_text(
        "INSTALLED_APPS = ['celery_mailer']\nUSE_TZ = True\n"
        "DATABASES = {'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': ':memory:'}}\n"
        "TEMPLATES = [{'BACKEND': 'django.template.backends.django.DjangoTemplates', 'DIRS': ['t']}]\n"
    )
    code = "def test_it(mail_snapshot):\n    mail_snapshot('hello.txt', {'name': 'Ada'})\n"
    options = ["-p", "pytest_django.plugin", "--ds=conf_of_it", "-o", "pythonpath=."]
    status, said = pytest_in(tmp_path, code, *options)
    assert (status, "There is no snapshot" in said) == (1, True), said
    assert pytest_in(tmp_path, code, *options, "--update-mail-snapshots")[0] == 0
    assert "Hello Ada" in (tmp_path / "snapshots" / "test_it" / "test_it.1.txt").read_text()
    assert pytest_in(tmp_path, code, *options)[0] == 0


def test_the_plugin_is_declared_under_the_name_of_its_module():
    declared = '"celery_mailer.pytest_plugin" = "celery_mailer.pytest_plugin"'
    assert declared in (ROOT / "pyproject.toml").read_text()


def test_the_fixture_is_the_kit(mailer):
    assert mailer is testing
    assert Email.objects.count() == 0
