"""Which provider an alias leads to, how long it lives; and Django's backends as providers."""

import gc
import io
import json
import smtplib
import threading
import time
from datetime import timedelta
from types import SimpleNamespace

import django
import pytest
from celery.exceptions import SoftTimeLimitExceeded
from django.conf import settings
from django.core import mail
from django.core.mail import EmailMessage
from django.core.mail.backends import console, dummy, locmem
from django.core.mail.backends.base import BaseEmailBackend
from django.core.mail.backends.smtp import EmailBackend as SmtpBackend

from celery_mailer import conf
from celery_mailer.deliver import providers
from celery_mailer.deliver.providers import wear
from celery_mailer.deliver.providers.django_backend import DjangoBackendProvider
from celery_mailer.deliver.providers.smtp import STEP_TIMEOUT, SmtpProvider
from celery_mailer.exceptions import UnknownProvider
from celery_mailer.options import Provider
from celery_mailer.values import Kind, Outcome, Phase
from tests.conftest import leave_the_outbox
from tests.servers.scripted_smtp import ScriptedSmtp

needs_mailers = pytest.mark.skipif(django.VERSION < (6, 1), reason="MAILERS came with Django 6.1")
needs_email_settings = pytest.mark.skipif(
    django.VERSION >= (6, 1), reason="the test project has MAILERS there, which exclude EMAIL_*"
)
DUMMY = "django.core.mail.backends.dummy.EmailBackend"


@pytest.fixture(autouse=True)
def nothing_open():
    providers.close_all()
    yield
    providers.close_all()


@pytest.fixture
def configure(settings):
    """Sets ``PROVIDERS``, and lets them count in spite of the test runner's outbox."""

    def set_(**entries):
        settings.CELERY_MAILER = {"PROVIDERS": entries}
        leave_the_outbox(settings)

    return set_


def smtp(server, **options):
    return {"BACKEND": conf.SMTP_BACKEND, "OPTIONS": {"host": "127.0.0.1", "port": server.port, **options}}


def message(**arguments):
    return EmailMessage(**{"subject": "s", "body": "b", "to": ["a@example.com"], **arguments})


def send(provider):
    assert provider.open(5) is None
    return provider.send(message(), ["a@example.com"], 5)


def in_a_thread(function):
    results = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join(20)
    return results[0]


# The registry
def test_a_thread_has_one_provider_for_an_alias(configure):
    configure(default={"BACKEND": DUMMY}, other={"BACKEND": DUMMY})
    assert providers.get("default") is providers.get("default")
    assert providers.get("default") is not providers.get("other")


def test_another_thread_has_a_provider_of_its_own(configure):
    configure(default={"BACKEND": DUMMY})
    assert in_a_thread(lambda: providers.get("default")) is not providers.get("default")


def test_an_unknown_alias_is_an_error_that_names_it(configure):
    configure(default={"BACKEND": DUMMY})
    with pytest.raises(UnknownProvider, match="'newsletter'"):
        providers.get("newsletter")


def test_djangos_smtp_backend_becomes_an_smtp_provider(configure):
    configure(default={"BACKEND": conf.SMTP_BACKEND, "OPTIONS": {"host": "mail.example.com", "timeout": 3}})
    provider = providers.get("default")
    assert isinstance(provider, SmtpProvider)
    assert (provider.alias, provider._backend.host, provider._clock.step) == (
        "default",
        "mail.example.com",
        3,
    )


def test_any_other_backend_becomes_a_provider_too(configure, tmp_path):
    backend = "django.core.mail.backends.filebased.EmailBackend"
    configure(default={"BACKEND": backend, "OPTIONS": {"file_path": tmp_path}})
    assert send(providers.get("default")).summary.outcome == Outcome.ACCEPTED
    assert b"Subject: s" in next(tmp_path.iterdir()).read_bytes()


class Signing(SmtpBackend):
    """A project's backend that changes what is sent."""

    def _send(self, email_message):
        email_message.extra_headers["X-Signed"] = "yes"
        return super()._send(email_message)


class Staging(SmtpBackend):
    """A project's backend that leads all mail to one address."""

    def send_messages(self, email_messages):
        for message in email_messages:
            message.to = ["staging@example.com"]
        return super().send_messages(email_messages)


class Token(SmtpBackend):
    """A project's backend that only opens the connection in its own way."""

    def open(self):
        return super().open()


@pytest.mark.parametrize("kind", [Signing, Staging])
def test_a_backend_that_sends_in_its_own_way_is_not_gone_round(configure, kind):
    with ScriptedSmtp() as server:
        configure(default={**smtp(server), "BACKEND": f"{__name__}.{kind.__name__}"})
        assert send(providers.get("default")).summary.outcome == Outcome.ACCEPTED
        providers.close_all()
        changed = (server.taken[0].recipients, server.taken[0].message["X-Signed"])
        assert changed == ((["a@example.com"], "yes") if kind is Signing else (["staging@example.com"], None))


def test_a_backend_that_sends_in_its_own_way_does_not_wait_for_ever(configure):
    options = {"host": "mail.example.com"}
    configure(default={"BACKEND": f"{__name__}.Signing", "OPTIONS": options})
    assert providers.get("default")._backend.timeout == STEP_TIMEOUT


def test_a_backend_that_only_opens_in_its_own_way_is_an_smtp_provider(configure):
    configure(default={"BACKEND": f"{__name__}.Token", "OPTIONS": {"host": "mail.example.com"}})
    assert isinstance(providers.get("default"), SmtpProvider)


def test_the_rules_of_the_connection_come_from_the_settings(configure):
    with ScriptedSmtp() as server:
        configure(default={**smtp(server), "MAX_MESSAGES_PER_CONNECTION": 1})
        send(providers.get("default"))
        send(providers.get("default"))
        providers.close_all()
        assert len(server.sessions) == 2


def test_a_backend_that_cannot_be_made_is_an_error(configure):
    configure(default={"BACKEND": "no.such.Backend"})
    with pytest.raises(ImportError):
        providers.get("default")


def test_changed_settings_make_a_new_provider_and_close_the_old(configure):
    with ScriptedSmtp() as server:
        configure(default=smtp(server))
        send(providers.get("default"))
        configure(default={"BACKEND": DUMMY})
        assert isinstance(providers.get("default"), DjangoBackendProvider)
        server.wait_for(lambda s: s.sessions[0].ended)
        assert server.sessions[0].verbs()[-1] == "QUIT"


def test_close_all_closes_the_connections_of_every_thread(configure):
    sent, closed = threading.Event(), threading.Event()

    def other():
        send(providers.get("default"))
        sent.set()
        closed.wait(20)

    with ScriptedSmtp() as server:
        configure(default=smtp(server))
        thread = threading.Thread(target=other)
        thread.start()
        send(providers.get("default"))
        assert sent.wait(20)
        providers.close_all()
        server.wait_for(lambda s: [one.ended for one in s.sessions] == [True, True])
        closed.set()
        thread.join(20)


def test_after_close_all_a_provider_connects_again(configure):
    with ScriptedSmtp() as server:
        configure(default=smtp(server))
        send(providers.get("default"))
        providers.close_all()
        assert send(providers.get("default")).summary.outcome == Outcome.ACCEPTED
        providers.close_all()


def test_a_thread_that_ends_closes_its_connections(configure):
    with ScriptedSmtp() as server:
        configure(default=smtp(server))
        in_a_thread(lambda: send(providers.get("default")))
        gc.collect()
        server.wait_for(lambda s: s.sessions[0].ended)
        assert server.sessions[0].verbs()[-1] == "QUIT"


def test_a_thread_that_ends_leaves_nothing_behind(configure):
    configure(default={"BACKEND": DUMMY})
    providers.get("default")
    before = len(providers._everywhere)
    in_a_thread(lambda: providers.get("default").alias)
    gc.collect()
    assert len(providers._everywhere) == before


# The provider of an email that names none
def test_the_default_provider_is_the_one_of_that_name(configure):
    configure(other={"BACKEND": DUMMY}, default={"BACKEND": DUMMY})
    assert conf.get().default_provider() == "default"


def test_without_that_name_the_default_provider_is_the_first(configure):
    configure(first={"BACKEND": DUMMY}, second={"BACKEND": DUMMY})
    assert conf.get().default_provider() == "first"


# Where settings come from
@needs_email_settings
def test_without_providers_the_email_settings_are_the_default(settings):
    settings.CELERY_MAILER = {}
    settings.EMAIL_BACKEND = conf.SMTP_BACKEND
    settings.EMAIL_HOST, settings.EMAIL_PORT, settings.EMAIL_TIMEOUT = "mail.example.com", 2525, 7
    settings.EMAIL_HOST_USER, settings.EMAIL_HOST_PASSWORD, settings.EMAIL_USE_TLS = "u", "p", True
    backend = providers.get("default")._backend
    assert (backend.host, backend.port, backend.timeout) == ("mail.example.com", 2525, 7)
    assert (backend.username, backend.password, backend.use_tls) == ("u", "p", True)


@needs_email_settings
def test_what_an_entry_leaves_open_comes_from_the_email_settings(configure, settings):
    configure(default={"BACKEND": conf.SMTP_BACKEND, "OPTIONS": {"port": 2525}})
    settings.EMAIL_HOST, settings.EMAIL_PORT, settings.EMAIL_HOST_USER = "mail.example.com", 25, "u"
    backend = providers.get("default")._backend
    assert (backend.host, backend.port, backend.username) == ("mail.example.com", 2525, "u")


@needs_email_settings
def test_the_projects_login_is_not_shown_to_another_host(configure, settings):
    configure(default={"BACKEND": conf.SMTP_BACKEND, "OPTIONS": {"host": "other.example.com"}})
    settings.EMAIL_HOST_USER, settings.EMAIL_HOST_PASSWORD = "u", "p"
    backend = providers.get("default")._backend
    assert (backend.username, backend.password) == ("", "")


@needs_mailers
def test_without_providers_every_mailer_is_one(settings):
    options = {"host": "mail.example.com", "timeout": 7}
    settings.CELERY_MAILER = {}
    settings.MAILERS = {"default": {"BACKEND": DUMMY}, "ses": {"OPTIONS": options}}
    assert isinstance(providers.get("default"), DjangoBackendProvider)
    assert (providers.get("ses")._backend.host, providers.get("ses")._clock.step) == ("mail.example.com", 7)


@needs_mailers
def test_a_provider_may_use_a_mailer_under_another_name(settings):
    settings.CELERY_MAILER = {"PROVIDERS": {"fast": {"USING": "ses"}}}
    settings.MAILERS = {"default": {"BACKEND": DUMMY}, "ses": {"OPTIONS": {"host": "mail.example.com"}}}
    assert (providers.get("fast").alias, providers.get("fast")._backend.alias) == ("fast", "ses")


@needs_mailers
def test_a_changed_mailer_makes_a_new_provider(settings):
    settings.MAILERS = {"default": {"BACKEND": DUMMY}}
    settings.CELERY_MAILER = {"PROVIDERS": {"default": {"USING": "default"}}}
    first = providers.get("default")
    settings.MAILERS = {"default": {"OPTIONS": {"host": "mail.example.com"}}}
    assert isinstance(first, DjangoBackendProvider)
    assert isinstance(providers.get("default"), SmtpProvider)


@needs_email_settings
def test_under_the_test_runner_everything_goes_to_its_outbox(settings):
    settings.CELERY_MAILER = {
        "PROVIDERS": {"default": {"BACKEND": conf.SMTP_BACKEND, "OPTIONS": {"host": "mail.example.com"}}}
    }
    assert send(providers.get("default")).summary.outcome == Outcome.ACCEPTED
    assert [m.subject for m in mail.outbox] == ["s"]


@needs_email_settings
def test_a_provider_made_before_the_test_runner_came_is_not_used(configure):
    configure(default={"BACKEND": DUMMY})
    providers.get("default")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings, "EMAIL_BACKEND", conf.LOCMEM_BACKEND)  # no signal, as the runner does it
        send(providers.get("default"))
    assert len(mail.outbox) == 1


@needs_mailers
def test_under_the_test_runner_every_mailer_leads_to_its_outbox(settings):
    settings.CELERY_MAILER = {}
    assert send(providers.get("smtp")).summary.outcome == Outcome.ACCEPTED
    assert [m.subject for m in mail.outbox] == ["s"]


# Django's backends
class Backend(BaseEmailBackend):
    """Does in ``send_messages`` what it is told to, and keeps what it was given."""

    def __init__(self, *, raises=None, returns=1, on_open=None, on_close=None):
        super().__init__()
        self.raises, self.returns, self.on_open, self.on_close = raises, returns, on_open, on_close
        self.given, self.closed = [], 0

    def open(self):
        if self.on_open is not None:
            raise self.on_open

    def send_messages(self, messages):
        self.given += messages
        if self.raises is not None:
            raise self.raises
        return self.returns

    def close(self):
        self.closed += 1
        if self.on_close is not None:
            raise self.on_close


def provider_for(backend, **rules):
    return DjangoBackendProvider("test", backend, Provider(**rules))


def hand_over(backend, *recipients, **arguments):
    return provider_for(backend).send(message(**arguments), list(recipients or ["a@example.com"]), 5)


@pytest.mark.parametrize("backend", [locmem, dummy], ids=["locmem", "dummy"])
def test_djangos_own_backends_accept(backend):
    assert send(provider_for(backend.EmailBackend())).summary.outcome == Outcome.ACCEPTED


def test_the_console_backend_writes_and_accepts():
    out = io.StringIO()
    result = send(provider_for(console.EmailBackend(stream=out)))
    assert result.summary.outcome == Outcome.ACCEPTED
    assert "Subject: s" in out.getvalue()


RETURNS = [
    (1, Outcome.ACCEPTED, Kind.NONE),
    (True, Outcome.ACCEPTED, Kind.NONE),
    ([object()], Outcome.ACCEPTED, Kind.NONE),
    (0, Outcome.DEFERRED, Kind.TEMPORARY),
    (False, Outcome.DEFERRED, Kind.TEMPORARY),
    (None, Outcome.UNCERTAIN, Kind.NO_ANSWER),
]


@pytest.mark.parametrize(("returned", "outcome", "kind"), RETURNS, ids=lambda v: str(v)[:9])
def test_what_a_backend_counts_is_taken_at_its_word(returned, outcome, kind):
    result = hand_over(Backend(returns=returned))
    assert (result.summary.outcome, result.summary.kind, result.usable) == (outcome, kind, True)


RAISED = [
    (smtplib.SMTPAuthenticationError(535, b"no"), Outcome.DEFERRED, Kind.PROVIDER, False),
    (ConnectionRefusedError(), Outcome.DEFERRED, Kind.CONNECTION, False),
    (smtplib.SMTPDataError(554, b"spam"), Outcome.REJECTED, Kind.CONTENT, True),
    (ValueError("header"), Outcome.REJECTED, Kind.MESSAGE, True),
    (json.JSONDecodeError("", "", 0), Outcome.UNCERTAIN, Kind.NO_ANSWER, True),
    (TimeoutError(), Outcome.UNCERTAIN, Kind.NO_ANSWER, True),
    (RuntimeError("secret"), Outcome.UNCERTAIN, Kind.NO_ANSWER, True),
]


@pytest.mark.parametrize(("error", "outcome", "kind", "usable"), RAISED, ids=lambda v: type(v).__name__)
def test_what_a_backend_raises_is_an_answer(error, outcome, kind, usable):
    result = hand_over(Backend(raises=error))
    assert (result.summary.outcome, result.summary.kind, result.usable) == (outcome, kind, usable)
    assert "secret" not in result.summary.text


def test_a_message_that_cannot_be_written_is_rejected():
    result = hand_over(locmem.EmailBackend(), subject="a\nb")
    assert (result.summary.outcome, result.summary.kind) == (Outcome.REJECTED, Kind.MESSAGE)


def test_a_backend_that_raised_is_closed():
    backend = Backend(raises=RuntimeError(), on_close=RuntimeError())
    hand_over(backend)
    assert backend.closed == 1


def test_a_backend_that_does_not_open_cannot_be_used():
    provider = provider_for(Backend(on_open=ConnectionRefusedError()))
    reply = provider.open(5)
    assert (reply.outcome, reply.kind, reply.phase) == (Outcome.DEFERRED, Kind.CONNECTION, Phase.CONNECT)


def test_what_is_not_known_of_opening_is_the_providers_fault():
    reply = provider_for(Backend(on_open=RuntimeError("secret"))).open(5)
    assert (reply.outcome, reply.kind, reply.text) == (Outcome.DEFERRED, Kind.PROVIDER, "RuntimeError")


def test_a_time_limit_while_opening_passes_through():
    with pytest.raises(SoftTimeLimitExceeded):
        provider_for(Backend(on_open=SoftTimeLimitExceeded())).open(5)


def test_a_time_limit_while_sending_passes_through_and_closes_the_backend():
    backend = Backend(raises=SoftTimeLimitExceeded())
    with pytest.raises(SoftTimeLimitExceeded):
        hand_over(backend)
    assert backend.closed == 1


def test_on_a_retry_those_who_have_it_are_not_named():
    backend = Backend()
    result = hand_over(
        backend,
        "b@example.com",
        "c@xn--bcher-kva.example",
        to=["Ann <a@example.com>", "Bob <b@example.com>"],
        cc=["c@bücher.example"],
        bcc=["d@example.com"],
    )
    (given,) = backend.given
    assert (given.to, given.cc, given.bcc) == (["Bob <b@example.com>"], ["c@bücher.example"], [])
    assert set(result.recipients) == {"b@example.com", "c@xn--bcher-kva.example"}


def test_a_backend_in_use_stays_open():
    backend = Backend()
    provider = provider_for(backend)
    send(provider)
    closed = backend.closed
    send(provider)
    assert backend.closed == closed


@pytest.mark.parametrize(
    ("rules", "seconds"),
    [({"max_messages_per_connection": 1}, 0), ({}, 6), ({"max_connection_age": timedelta(seconds=1)}, 2)],
    ids=["worn", "idle", "old"],
)
def test_a_backend_is_opened_anew_when_it_is(monkeypatch, rules, seconds):
    backend = Backend()
    provider = provider_for(backend, **rules)
    send(provider)
    closed, later = backend.closed, time.monotonic() + seconds
    monkeypatch.setattr(wear, "time", SimpleNamespace(monotonic=lambda: later))
    send(provider)
    assert backend.closed == closed + 1


def test_after_a_fork_a_backend_is_not_closed():
    # It may say goodbye in the parent's session.
    backend = Backend()
    provider_for(backend).abandon()
    assert backend.closed == 0
