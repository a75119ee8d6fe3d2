import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import django
import pytest
from celery import Celery, current_app
from celery.fixups.django import DjangoWorkerFixup
from django.core.checks import run_checks
from django.core.mail.backends.locmem import EmailBackend as LocmemBackend

from celery_mailer import checks, conf, schedule
from celery_mailer.backends import EmailBackend
from tests.celeryapp import app as project_app

# Django 6.1 deprecates them, and works with them.
pytestmark = pytest.mark.filterwarnings("ignore:The EMAIL_.* setting is deprecated")

needs_mailers = pytest.mark.skipif(django.VERSION < (6, 1), reason="MAILERS came with Django 6.1")
TIMEOUTS = {"socket_timeout": 5, "socket_connect_timeout": 1}


class OurSubclass(EmailBackend):
    """A project's own queue backend."""


class NotOurs(LocmemBackend):
    pass


SUBCLASS = f"{__name__}.OurSubclass"


@pytest.fixture
def celery_app():
    """A project's Celery app in the place of the tests' own, as the project would have made it."""
    made = []

    def _make(**config):
        app = Celery("proj", set_as_current=False)
        app.conf.update({"broker_url": "memory://", "CELERY_DB_REUSE_MAX": 500, **config})
        app.set_current()
        made.append(app)
        return app

    yield _make
    project_app.set_current()
    for app in made:
        app.close()


@pytest.fixture
def mailers(settings):
    def _mailers(**entries):
        settings.MAILERS = {"smtp": {"BACKEND": conf.SMTP_BACKEND}, **entries}

    return _mailers


def ids(found):
    return [message.id.removeprefix("celery_mailer.") for message in found]


def only(found, number):
    """The one message of ``found``, which has this id; it is whole: it says what to do."""
    (message,) = found
    assert message.id == f"celery_mailer.{number}"
    assert message.msg
    assert message.hint
    return message


# Silent when all is right.


def test_the_test_projects_own_set_up_is_right(settings):
    settings.CELERY_MAILER = {}
    assert checks.check_settings() + checks.check_way_out() + checks.check_celery() == []


def test_redis_with_timeouts_and_reused_connections_is_right(celery_app):
    celery_app(broker_url="redis://127.0.0.1/0", broker_transport_options=TIMEOUTS)
    assert checks.check_celery() == []


@pytest.mark.django_db
def test_django_runs_the_checks(settings):
    settings.CELERY_MAILER = {"BATCHSIZE": 5}
    (found,) = [m for m in run_checks() if m.id.startswith("celery_mailer.")]
    assert found.id == "celery_mailer.E001"


# E001: the settings.


def test_a_fault_in_the_settings_is_an_error_with_its_key_and_hint(settings):
    settings.CELERY_MAILER = {"BATCHSIZE": 5}
    message = only(checks.check_settings(), "E001")
    assert message.msg == "CELERY_MAILER['BATCHSIZE'] is not a known key."
    assert message.hint == "Did you mean 'BATCH_SIZE'?"


def test_each_fault_in_the_settings_is_an_error_of_its_own(settings):
    settings.CELERY_MAILER = {"BATCHSIZE": 5, "LEASE": 3}
    assert ids(checks.check_settings()) == ["E001", "E001"]


def test_a_queue_backend_that_points_at_itself_is_an_error(settings):
    settings.CELERY_MAILER = {"PROVIDERS": {"default": {"BACKEND": conf.QUEUE_BACKEND}}}
    assert "leads back to the queue" in only(checks.check_settings(), "E001").msg


def test_with_faulty_settings_the_other_checks_hold_their_peace(settings, celery_app):
    celery_app(CELERY_DB_REUSE_MAX=None)
    settings.CELERY_MAILER = {"BATCHSIZE": 5}
    assert checks.check_way_out() + checks.check_celery() == []


# E003 to E005: the classes behind the settings.


def test_a_backend_that_cannot_be_imported_is_an_error(settings):
    settings.CELERY_MAILER = {"PROVIDERS": {"ses": {"BACKEND": "no.such.Backend"}}}
    message = only(checks.check_way_out(), "E003")
    assert message.msg == "CELERY_MAILER['PROVIDERS']['ses']: no.such.Backend cannot be imported."
    assert message.hint == "No module named 'no'."


def test_a_backend_path_that_is_no_path_is_an_error(settings):
    settings.CELERY_MAILER = {"PROVIDERS": {"ses": {"BACKEND": "ses"}}}
    only(checks.check_way_out(), "E003")


def test_a_provider_that_is_a_subclass_of_the_queue_backend_is_an_error(settings):
    settings.CELERY_MAILER = {"PROVIDERS": {"default": {"BACKEND": SUBCLASS}}}
    assert "leads back to the queue" in only(checks.check_way_out(), "E004").msg


def test_a_subclass_of_the_queue_backend_as_email_backend_is_an_error_without_providers(settings):
    if hasattr(settings, "MAILERS"):
        del settings.MAILERS
    settings.EMAIL_BACKEND = SUBCLASS
    only(checks.check_way_out(), "E004")


def test_a_provider_of_the_projects_own_is_right(settings):
    settings.CELERY_MAILER = {"PROVIDERS": {"default": {"BACKEND": f"{__name__}.NotOurs"}}}
    assert checks.check_way_out() == []


@needs_mailers
@pytest.mark.parametrize("backend", [conf.QUEUE_BACKEND, SUBCLASS])
def test_a_mailer_that_queues_and_names_who_sends_is_right(mailers, settings, backend):
    mailers(default={"BACKEND": backend, "OPTIONS": {"using": "smtp"}})
    settings.CELERY_MAILER = {"PROVIDERS": {"smtp": {"USING": "smtp"}}}
    assert checks.check_way_out() == []


@needs_mailers
@pytest.mark.parametrize(
    ("options", "fault"),
    [({}, "missing"), ({"using": "default"}, "this mailer itself"), ({"using": "smpt"}, "no provider")],
)
@pytest.mark.parametrize("backend", [conf.QUEUE_BACKEND, SUBCLASS])
def test_a_mailer_that_queues_must_name_who_sends(mailers, settings, backend, options, fault):
    mailers(default={"BACKEND": backend, "OPTIONS": options})
    settings.CELERY_MAILER = {"PROVIDERS": {"smtp": {"USING": "smtp"}}}
    message = only(checks.check_way_out(), "E005")
    assert message.msg == f"MAILERS['default']: OPTIONS['using'] is {fault}."
    assert message.hint == "Name the provider that really sends: smtp."


@needs_mailers
def test_a_provider_by_an_alias_of_a_subclass_of_the_queue_backend_is_an_error(mailers, settings):
    mailers(default={"BACKEND": SUBCLASS, "OPTIONS": {"using": "smtp"}})
    settings.CELERY_MAILER = {"PROVIDERS": {"smtp": {"USING": "smtp"}, "other": {"USING": "default"}}}
    assert "['other']" in only(checks.check_way_out(), "E004").msg


@needs_mailers
def test_a_mailer_that_django_cannot_import_is_left_to_django(mailers, settings):
    mailers(broken={"BACKEND": "no.such.Backend"})
    settings.CELERY_MAILER = {"PROVIDERS": {"smtp": {"USING": "smtp"}}}
    assert checks.check_way_out() == []


# Which app is looked at.


def test_the_app_that_is_looked_at_is_the_projects():
    assert current_app._get_current_object() is project_app


def test_the_projects_app_is_looked_at_from_any_thread(celery_app):
    # ``runserver`` runs the checks in a thread of its own, where no app was ever made the current one.
    found = []
    thread = threading.Thread(target=lambda: found.append(current_app.main))
    thread.start()
    thread.join()
    assert found == ["tests"]


def test_a_process_that_has_not_loaded_the_projects_app_is_warned_of(monkeypatch):
    fallback = Celery("default", fixups=[], set_as_current=False)
    monkeypatch.setattr(checks, "current_app", fallback)
    assert "__init__.py" in only(checks.check_celery(), "W005").hint


def test_a_projects_app_that_is_called_default_is_an_app(monkeypatch):
    app = Celery("default", set_as_current=False)
    app.conf.update({"broker_url": "memory://", "CELERY_DB_REUSE_MAX": 500})
    monkeypatch.setattr(checks, "current_app", app)
    assert checks.check_celery() == []


# W001: beat.


@pytest.fixture
def without_beat(monkeypatch):
    monkeypatch.setattr(checks.apps, "is_installed", lambda name: name != "django_celery_beat")


def test_without_beat_nothing_would_ever_be_dispatched(celery_app, without_beat):
    celery_app()
    message = only(checks.check_celery(), "W001")
    assert "django_celery_beat" in message.hint
    assert "celery_mailer.schedule.beat_schedule()" in message.hint


def test_the_plain_scheduler_with_our_entries_is_right(celery_app, without_beat):
    celery_app(beat_schedule=schedule.beat_schedule())
    assert checks.check_celery() == []


def test_the_plain_scheduler_with_other_entries_only_is_not(celery_app, without_beat):
    celery_app(beat_schedule={"other": {"task": "proj.other", "schedule": 5}})
    only(checks.check_celery(), "W001")


# W002 and W003: Redis.


@pytest.mark.parametrize(
    "url", ["redis://h/0", "rediss://h/0", "sentinel://a:1;sentinel://b:2", ["redis://a", "redis://b"]]
)
def test_a_visibility_timeout_below_the_lease_is_warned_of(celery_app, url):
    celery_app(broker_url=url, broker_transport_options={**TIMEOUTS, "visibility_timeout": 119})
    message = only(checks.check_celery(), "W002")
    assert "119 s" in message.msg
    assert "120 s" in message.msg


def test_a_visibility_timeout_as_long_as_the_lease_is_right(celery_app):
    celery_app(broker_url="redis://h/0", broker_transport_options={**TIMEOUTS, "visibility_timeout": 120})
    assert checks.check_celery() == []


def test_a_lease_above_kombus_own_visibility_timeout_is_warned_of(celery_app, settings):
    settings.CELERY_MAILER = {"LEASE": timedelta(hours=2)}
    celery_app(broker_url="redis://h/0", broker_transport_options=TIMEOUTS)
    assert "3600 s" in only(checks.check_celery(), "W002").msg


def test_rabbitmq_has_no_visibility_timeout(celery_app):
    celery_app(broker_url="amqp://h", broker_transport_options={"visibility_timeout": 1})
    assert checks.check_celery() == []


@pytest.mark.parametrize(
    "options",
    [{}, {"socket_timeout": 5}, {"socket_connect_timeout": 5}, {**TIMEOUTS, "socket_timeout": None}],
)
def test_redis_without_both_socket_timeouts_is_warned_of(celery_app, options):
    celery_app(broker_url="redis://h/0", broker_transport_options=options)
    assert "socket_timeout" in only(checks.check_celery(), "W003").hint


def test_a_broker_that_celery_does_not_know_is_left_to_celery(celery_app):
    celery_app(broker_url="carrier-pigeon://h")
    assert checks.check_celery() == []


# W004 and W006: database connections.


def test_connections_closed_around_every_task_are_warned_of(celery_app):
    celery_app(CELERY_DB_REUSE_MAX=None)
    assert "CELERY_DB_REUSE_MAX = 500" in only(checks.check_celery(), "W004").hint


def reading(site, namespace):
    """A Celery app that reads ``site`` as it would Django's settings."""
    app = Celery("proj", set_as_current=False)
    app.config_from_object(SimpleNamespace(**site), namespace=namespace)
    return app


@pytest.mark.parametrize("namespace", ["CELERY", None, "TASKS"])
def test_the_setting_has_one_spelling_whatever_the_namespace(monkeypatch, namespace):
    app = reading({"CELERY_DB_REUSE_MAX": 500}, namespace)
    monkeypatch.setattr(checks, "current_app", app)
    assert DjangoWorkerFixup(app).db_reuse_max == 500  # Celery's own reading
    assert checks.check_celery() == []


def test_the_setting_with_the_namespace_twice_does_nothing(monkeypatch):
    app = reading({"CELERY_CELERY_DB_REUSE_MAX": 500}, "CELERY")
    monkeypatch.setattr(checks, "current_app", app)
    assert DjangoWorkerFixup(app).db_reuse_max is None
    only(checks.check_celery(), "W004")


def test_the_setting_may_be_made_on_the_app(monkeypatch):
    app = reading({}, "CELERY")
    app.conf.CELERY_DB_REUSE_MAX = 500
    monkeypatch.setattr(checks, "current_app", app)
    assert DjangoWorkerFixup(app).db_reuse_max == 500
    assert checks.check_celery() == []


@pytest.fixture
def pooled(monkeypatch):
    from django.db import connection

    options = {**connection.settings_dict["OPTIONS"], "pool": True}
    monkeypatch.setitem(connection.settings_dict, "OPTIONS", options)


def test_djangos_connection_pool_under_prefork_is_warned_of(celery_app, pooled):
    celery_app(CELERY_DB_REUSE_MAX=None)
    assert ids(checks.check_celery()) == ["W004", "W006"]


def test_djangos_connection_pool_under_threads_is_not(celery_app, pooled):
    celery_app(CELERY_DB_REUSE_MAX=None, worker_pool="threads")
    assert ids(checks.check_celery()) == ["W004"]


def test_djangos_connection_pool_with_reused_connections_is_not(celery_app, pooled):
    celery_app()
    assert checks.check_celery() == []


# E002: JSON.


@pytest.mark.parametrize("content", [["pickle"], ["yaml", "msgpack"], []])
def test_an_app_that_does_not_accept_json_is_an_error(celery_app, content):
    celery_app(accept_content=content)
    assert "'json'" in only(checks.check_celery(), "E002").hint


@pytest.mark.parametrize("content", [["json"], ["application/json"], {"json", "pickle"}, None])
def test_an_app_that_accepts_json_among_others_is_right(celery_app, content):
    celery_app(accept_content=content)
    assert checks.check_celery() == []


# In a process of its own: as ``manage.py check`` does it.


def manage(tmp_path, source, *argv):
    (tmp_path / "site_settings.py").write_text("from tests.settings import *\n" + source)
    root = Path(__file__).parent.parent
    return subprocess.run(
        [sys.executable, "-m", "django", *argv, "--settings", "site_settings"],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{tmp_path}:{root}", "PATH": ""},
        capture_output=True,
        text=True,
    )


def test_a_project_with_faulty_settings_starts_far_enough_to_be_told(tmp_path):
    done = manage(tmp_path, "CELERY_MAILER = {'BATCHSIZE': 5}\n", "check")
    assert done.returncode == 1
    assert "celery_mailer.E001" in done.stderr
    assert "Did you mean 'BATCH_SIZE'?" in done.stderr


def test_a_project_whose_app_is_in_use_before_ours_is_ready_is_told_too(tmp_path):
    source = "CELERY_MAILER = {'BATCHSIZE': 5}\nINSTALLED_APPS = ['eager', *INSTALLED_APPS]\n"
    (tmp_path / "eager").mkdir()
    (tmp_path / "eager/__init__.py").write_text("")
    (tmp_path / "eager/apps.py").write_text(
        "from django.apps import AppConfig\n"
        "class EagerConfig(AppConfig):\n"
        "    name = 'eager'\n"
        "    def ready(self):\n"
        "        from tests.celeryapp import app\n"
        "        app.finalize()\n"
    )
    assert "celery_mailer.E001" in manage(tmp_path, source, "check").stderr


def test_a_sound_project_has_nothing_to_be_told(tmp_path):
    done = manage(tmp_path, "", "check")
    assert (done.returncode, done.stderr) == (0, "")


MOUNTED = pytest.mark.urls("tests.webhook_urls")


def test_without_anymails_webhooks_no_secret_is_asked_for():
    assert checks.check_webhooks() == []


def test_a_project_without_urls_has_no_webhooks(settings):
    settings.ROOT_URLCONF = None
    assert checks.check_webhooks() == []


@MOUNTED
def test_webhooks_without_a_secret_are_an_error():
    (error,) = checks.check_webhooks()
    assert error.id == "celery_mailer.E007"


@MOUNTED
@pytest.mark.parametrize(
    ("name", "value"),
    [("ANYMAIL", {"WEBHOOK_SECRET": "user:password"}), ("ANYMAIL_WEBHOOK_SECRET", ["user:password"])],
)
def test_webhooks_with_a_secret_are_right(settings, name, value):
    setattr(settings, name, value)
    assert checks.check_webhooks() == []


@MOUNTED
def test_mailguns_webhooks_without_their_key_are_warned_of(settings):
    settings.ANYMAIL = {"WEBHOOK_SECRET": "user:password"}
    mailgun = {"BACKEND": "anymail.backends.mailgun.EmailBackend", "OPTIONS": {"api_key": "k"}}
    settings.CELERY_MAILER = {"PROVIDERS": {"default": mailgun}}
    (warning,) = checks.check_webhooks()
    assert warning.id == "celery_mailer.W008"
    settings.ANYMAIL = {**settings.ANYMAIL, "MAILGUN_WEBHOOK_SIGNING_KEY": "k"}
    assert checks.check_webhooks() == []


# Tracking.


def test_a_consent_that_cannot_be_imported_is_an_error(settings):
    settings.CELERY_MAILER = {"TRACKING": {"CONSENT": "shop.nowhere.consent"}}
    (found,) = checks.check_tracking()
    assert (found.id, "shop.nowhere.consent" in found.msg) == ("celery_mailer.E008", True)


def test_a_consent_that_cannot_be_called_is_an_error(settings):
    settings.CELERY_MAILER = {"TRACKING": {"CONSENT": "tests.settings.USE_TZ"}}
    assert [found.id for found in checks.check_tracking()] == ["celery_mailer.E008"]


def test_a_public_address_without_the_pages_is_an_error(settings):
    settings.ROOT_URLCONF = "celery_mailer.urls"
    assert [found.id for found in checks.check_tracking()] == ["celery_mailer.E009"]


def test_a_public_address_with_the_pages_is_right(settings):
    settings.CELERY_MAILER = {"TRACKING": {"BASE_URL": "https://m.example.com", "CONSENT": "builtins.len"}}
    assert checks.check_tracking() == []
