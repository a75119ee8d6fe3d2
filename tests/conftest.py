import inspect

import django
import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from celery_mailer import conf, moment, testing
from celery_mailer.deliver import providers
from celery_mailer.deliver.slice import deliver_emails
from tests.servers.smtp import SmtpServer
from tests.services import promised

pytest_plugins = ["celery_mailer.pytest_plugin"]  # as an installed celery_mailer brings it by itself

# The machine is shared: how long an example takes says nothing about it.
hypothesis_settings.register_profile(
    "suite", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow]
)
hypothesis_settings.load_profile("suite")


def pytest_collection_modifyitems(items):
    """What starts processes of its own runs one after the other, lest they starve each other; and what takes
    long is for where servers were promised, as there somebody has the time."""
    brief = pytest.mark.skip(reason="slow: runs with CELERY_MAILER_SERVICES=required")
    for item in items:
        if "slow" in item.keywords and not promised():
            item.add_marker(brief)
        if "e2e" in item.path.parts or not {"make_site", "demo"}.isdisjoint(item.fixturenames):
            item.add_marker(pytest.mark.xdist_group("processes"))


@pytest.fixture(autouse=True)
def forget():
    """What this process has read of breakers and pauses is another test's."""
    testing.forget()


@pytest.fixture(autouse=True)
def no_moment(monkeypatch):
    """Each call's message leaves at once: a test counts them, or has no server for them."""
    monkeypatch.setattr(moment, "MOMENT", 0)


@pytest.fixture(autouse=True)
def no_hurry(monkeypatch):
    """A slice ends in this process, unless a test says how long it may take: a busy machine stalls."""
    monkeypatch.setitem(inspect.unwrap(deliver_emails).__kwdefaults__, "seconds", 60.0)


@pytest.fixture(autouse=True)
def media(settings, tmp_path):
    """Where attachments are stored in this test."""
    settings.MEDIA_ROOT = tmp_path / "media"
    return settings.MEDIA_ROOT


@pytest.fixture
def smtp_server():
    """A real SMTP server; ``received`` holds what it took."""
    with SmtpServer() as server:
        yield server
        providers.close_all()


@pytest.fixture
def real_smtp(settings, smtp_server):
    """The default provider leads to ``smtp_server``, in spite of the test runner's outbox."""
    settings.CELERY_MAILER = {"PROVIDERS": {"default": smtp_provider(smtp_server.port)}}
    leave_the_outbox(settings)
    providers.close_all()
    yield smtp_server
    providers.close_all()


def leave_the_outbox(settings):
    """Take back what Django's test runner has done to the email backends."""
    if django.VERSION >= (6, 1):
        settings.MAILERS = {"default": {"BACKEND": conf.SMTP_BACKEND, "OPTIONS": {"host": "127.0.0.1"}}}
    else:
        settings.EMAIL_BACKEND = conf.SMTP_BACKEND


def smtp_provider(port, **rules):
    """An entry of ``PROVIDERS`` for the SMTP server on ``port``."""
    return {"BACKEND": conf.SMTP_BACKEND, "OPTIONS": {"host": "127.0.0.1", "port": port}, **rules}
