"""System checks: what is wrong with the settings, and what would silently never work. Ids are stable."""

from collections.abc import Iterator, Sequence
from typing import Any

from celery import current_app
from django.apps import apps
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, router
from django.urls import get_resolver
from django.utils.module_loading import import_string

from celery_mailer import conf, routing, tokens
from celery_mailer.backends import EmailBackend
from celery_mailer.broker import is_redis
from celery_mailer.contract import database_faults, file_faults
from celery_mailer.deliver.providers import sends_as_django, takes_return_path
from celery_mailer.models import EmailTemplate

REDIS_VISIBILITY_TIMEOUT = 3600  # kombu's, when none is set


@register(Tags.compatibility)
def check_settings(**kwargs: Any) -> list[CheckMessage]:
    """E001: a key, type, alias or combination in ``CELERY_MAILER`` is wrong."""
    return [Error(f"{p.path} {p.fault}", hint=p.hint, id="celery_mailer.E001") for p in conf.problems()]


@register(Tags.compatibility)
def check_way_out(**kwargs: Any) -> list[CheckMessage]:
    """What the providers' and the queueing mailers' classes say, once they can be imported."""
    return [] if conf.problems() else [*_providers(), *_queueing_mailers()]


@register(Tags.compatibility)
def check_celery(**kwargs: Any) -> list[CheckMessage]:
    """What the Celery app and the broker need for the promises to hold."""
    if conf.problems():
        return []
    if current_app.main == "default" and not getattr(current_app, "fixups", None):
        # Celery has made this app up, because there was none to be found.
        return [_no_app()]
    return [*_beat(), *_visibility_timeout(), *_socket_timeouts(), *_database_connections(), *_serializer()]


@register(Tags.templates)
def check_file_templates(**kwargs: Any) -> list[CheckMessage]:
    """E006: a file template has bad syntax, or cannot be rendered with its samples."""
    if conf.problems():
        return []
    try:
        return [Error(f"The template {fault}", id="celery_mailer.E006") for fault in file_faults()]
    except ImproperlyConfigured as error:  # TEMPLATES itself
        return [Error(f"CELERY_MAILER['TEMPLATE_ENGINE']: {error}", id="celery_mailer.E006")]


@register(Tags.database)
def check_database_templates(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """W007: a database template cannot be rendered; asked for by ``check --database``, and by ``migrate``."""
    using = router.db_for_read(EmailTemplate)
    if conf.problems() or using not in (databases or ()):
        return []
    if EmailTemplate._meta.db_table not in connections[using].introspection.table_names():
        return []
    return [Warning(f"The template {fault}", id="celery_mailer.W007") for fault in database_faults()]


@register(Tags.security)
def check_webhooks(**kwargs: Any) -> list[CheckMessage]:
    """What Anymail's webhook views need, where they are mounted, so that nobody can forge an event."""
    mounted = conf.has_urls() and "anymail" in get_resolver().app_dict
    return [*_webhook_secret(), *_mailgun_key()] if mounted and not conf.problems() else []


def _webhook_secret() -> Iterator[CheckMessage]:
    if not conf.anymail_setting("WEBHOOK_SECRET"):
        yield Error(
            "Anybody can forge events: Anymail's webhook views are mounted without a secret. With some ESPs "
            "a signature is not enough: that of Amazon SES is not checked, Mailgun's leaves out the body.",
            hint="Set ANYMAIL['WEBHOOK_SECRET'] to 'user:password', and name the views as https://user:password@...",
            id="celery_mailer.E007",
        )


def _mailgun_key() -> Iterator[CheckMessage]:
    paths = [conf.backend_path(provider) for provider in conf.get().providers.values()]
    if any(p.startswith("anymail.backends.mailgun.") for p in paths) and not conf.anymail_setting(
        "MAILGUN_WEBHOOK_SIGNING_KEY"
    ):
        yield Warning(
            "Mailgun signs its events with a key that is not the API's, which Anymail takes without it: "
            "all of them may be refused.",
            hint="Set ANYMAIL['MAILGUN_WEBHOOK_SIGNING_KEY'].",
            id="celery_mailer.W008",
        )


@register(Tags.urls)
def check_tracking(**kwargs: Any) -> list[CheckMessage]:
    """What TRACKING names, and must be there."""
    return [] if conf.problems() else [*_consent(), *_pages()]


def _consent() -> Iterator[CheckMessage]:
    path = conf.get().tracking.consent
    try:
        found = path is None or callable(import_string(path))
    except ImportError:
        found = False
    if not found:
        yield Error(
            f"CELERY_MAILER['TRACKING']['CONSENT']: {path} is no callable that can be imported.",
            hint="Name one that takes an address and a stream; without it, nothing is tracked.",
            id="celery_mailer.E008",
        )


def _pages() -> Iterator[CheckMessage]:
    if conf.get().tracking.base_url is not None and tokens.prefix(tokens.Purpose.UNSUBSCRIBE) is None:
        yield Error(
            "CELERY_MAILER['TRACKING']['BASE_URL'] is set, but the pages of celery_mailer are nowhere.",
            hint="Add path('mail/', include('celery_mailer.urls')) to your ROOT_URLCONF.",
            id="celery_mailer.E009",
        )


def _providers() -> Iterator[CheckMessage]:
    for alias, provider in conf.get().providers.items():
        name, path = f"CELERY_MAILER['PROVIDERS'][{alias!r}]", conf.backend_path(provider)
        try:
            backend = import_string(path)
        except (ImportError, ImproperlyConfigured) as error:
            yield Error(
                f"{name}: {path} cannot be imported.", hint=f"{error}.".strip(), id="celery_mailer.E003"
            )
            continue
        if _queues(backend):
            yield Error(
                f"{name}: {path} leads back to the queue.",
                hint="Name the backend that really sends.",
                id="celery_mailer.E004",
            )
        if provider.dkim.domain is not None and not sends_as_django(backend):
            yield Error(
                f"{name}: DKIM signs what Django's SMTP backend sends, and {path} sends in its own way.",
                hint="Let the provider sign, or the backend; and take 'DKIM' out.",
                id="celery_mailer.E001",
            )
        if provider.return_path is not None and not takes_return_path(backend):
            yield Error(
                f"{name}: {path} is not told a return path, so 'RETURN_PATH' has no effect.",
                hint="Take it out; an ESP tells of bounces by its webhooks.",
                id="celery_mailer.E001",
            )


def _queueing_mailers() -> Iterator[CheckMessage]:
    """Django 6.1's aliases over our backend: each must name the provider that sends, and not itself."""
    for alias, mailer in conf.mailers().items():
        try:
            queues = _queues(import_string(mailer.get("BACKEND", conf.SMTP_BACKEND)))
        except ImportError:
            continue  # Django says so
        using = mailer.get("OPTIONS", {}).get("using")
        if queues and (using == alias or using not in conf.get().providers):
            known = ", ".join(a for a in conf.get().providers if a != alias)
            yield Error(
                f"MAILERS[{alias!r}]: OPTIONS['using'] is {_fault(alias, using)}.",
                hint=f"Name the provider that really sends: {known}.",
                id="celery_mailer.E005",
            )


def _fault(alias: str, using: Any) -> str:
    if using is None:
        return "missing"
    return "this mailer itself" if using == alias else "no provider"


def _queues(backend: Any) -> bool:
    return isinstance(backend, type) and issubclass(backend, EmailBackend)


def _no_app() -> CheckMessage:
    return Warning(
        "No Celery app is loaded in this process: its messages would go to Celery's default, "
        "amqp://guest@localhost.",
        hint="Import your Celery app in the __init__.py of your project's package.",
        id="celery_mailer.W005",
    )


def _beat() -> Iterator[CheckMessage]:
    scheduled = {entry.get("task") for entry in (current_app.conf.beat_schedule or {}).values()}
    if not apps.is_installed("django_celery_beat") and routing.DISPATCH not in scheduled:
        yield Warning(
            "Nothing will ever run the dispatcher: retries and scheduled mail will wait for ever, "
            "and so will what lost its message.",
            hint="Add 'django_celery_beat' to INSTALLED_APPS, or the entries of "
            "celery_mailer.schedule.beat_schedule() to app.conf.beat_schedule; and run celery beat.",
            id="celery_mailer.W001",
        )


def _transport_options() -> dict[str, Any]:
    return dict(current_app.conf.broker_transport_options or {})


def _visibility_timeout() -> Iterator[CheckMessage]:
    lease = conf.get().lease.total_seconds()
    timeout = _transport_options().get("visibility_timeout", REDIS_VISIBILITY_TIMEOUT)
    if is_redis() and timeout < lease:
        yield Warning(
            f"Redis hands a message out again after {timeout} s (visibility_timeout), before the lease of "
            f"{lease:g} s ends: slow slices will be delivered to workers that can do nothing with them.",
            hint="Set broker_transport_options['visibility_timeout'] above CELERY_MAILER['LEASE'].",
            id="celery_mailer.W002",
        )


def _socket_timeouts() -> Iterator[CheckMessage]:
    options = _transport_options()
    if is_redis() and not (options.get("socket_timeout") and options.get("socket_connect_timeout")):
        yield Warning(
            "A Redis that hangs would block send_email.delay() for minutes: no socket timeouts are set.",
            hint="Set broker_transport_options = {'socket_timeout': 5, 'socket_connect_timeout': 2}.",
            id="celery_mailer.W003",
        )


def _database_connections() -> Iterator[CheckMessage]:
    # Celery's Django fixup asks for this key as it is written here. From Django's settings it is found under
    # the same name, whatever the app's namespace; CELERY_CELERY_DB_REUSE_MAX is not.
    if current_app.conf.get("CELERY_DB_REUSE_MAX"):
        return
    yield Warning(
        "Celery closes the database connection around every task, which makes each about five times as dear.",
        hint="Set CELERY_DB_REUSE_MAX = 500 in the settings that the Celery app reads, spelled so also with "
        "namespace='CELERY'; or app.conf.CELERY_DB_REUSE_MAX = 500.",
        id="celery_mailer.W004",
    )
    pooled = [a for a in connections if connections[a].settings_dict["OPTIONS"].get("pool")]
    if pooled and current_app.conf.worker_pool == "prefork":
        yield Warning(
            f"DATABASES {pooled} have OPTIONS['pool'], and Celery's prefork workers make and close a whole "
            "pool around every task.",
            hint="Set CELERY_DB_REUSE_MAX, take 'pool' out, or set worker_pool = 'threads'.",
            id="celery_mailer.W006",
        )


def _serializer() -> Iterator[CheckMessage]:
    accepted = current_app.conf.accept_content
    if accepted is not None and not {"json", "application/json"} & set(accepted):
        yield Error(
            "The Celery app does not accept JSON, and the chain's messages are JSON.",
            hint="Add 'json' to accept_content.",
            id="celery_mailer.E002",
        )
