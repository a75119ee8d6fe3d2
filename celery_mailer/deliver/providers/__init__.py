"""Providers by alias. Connections stay open across tasks: one per thread, alias and process."""

import atexit
import os
import threading
import weakref
from typing import Any, cast

import django
from django.core.mail.backends.smtp import EmailBackend as SmtpBackend
from django.utils.module_loading import import_string

from celery_mailer import conf, options
from celery_mailer.deliver.providers import returning
from celery_mailer.deliver.providers.contract import Provider
from celery_mailer.deliver.providers.django_backend import DjangoBackendProvider
from celery_mailer.deliver.providers.outcomes import error_words
from celery_mailer.deliver.providers.smtp import STEP_TIMEOUT, SmtpProvider
from celery_mailer.exceptions import UnknownProvider
from celery_mailer.values import Kind, Outcome, Reply

__all__ = ["Provider", "close", "close_all", "get", "opened"]


class _Open:
    """One thread's providers by alias, each with the settings that it was made from."""

    def __init__(self) -> None:
        self.providers: dict[str, tuple[Provider, options.Provider, bool]] = {}
        self.pid = os.getpid()
        # No lock: a fork while another thread holds it would leave it locked in the child for ever.
        _everywhere.append(weakref.ref(self, _everywhere.remove))

    def close(self) -> None:
        while self.providers:
            self.providers.popitem()[1][0].close()

    def abandon(self) -> None:
        while self.providers:
            self.providers.popitem()[1][0].abandon()

    def __del__(self) -> None:
        # The thread ended. In a forked child all other threads end so, before any hook of ours runs.
        if self.pid == os.getpid():
            self.close()
        else:
            self.abandon()


class _ThisThread(threading.local):
    def __init__(self) -> None:
        self.open = _Open()


_everywhere: list[weakref.ref[_Open]] = []
_this_thread = _ThisThread()


def get(alias: str) -> Provider:
    """This thread's provider of that name; it may not be connected yet.

    Raises ``UnknownProvider``, or what the backend's class raises for its options.
    """
    rules = conf.get().providers.get(alias)
    outbox = conf.outbox_only()
    opened = _this_thread.open.providers
    if alias in opened:
        provider, made_from, made_as_outbox = opened[alias]
        if made_from is rules and made_as_outbox == outbox:
            return provider
        opened.pop(alias)[0].close()  # the settings changed, as they do between tests
    if rules is None:
        raise UnknownProvider(f"There is no provider {alias!r}.")
    provider = _make(alias, rules, outbox)
    opened[alias] = provider, rules, outbox
    return provider


def opened(alias: str, timeout: float) -> tuple[Provider | None, Reply]:
    """The provider, ready, or ``None`` with the reply that says why it cannot be used."""
    try:
        provider = get(alias)
    except Exception as error:
        # A class that does not import, options that it refuses: mended by a person, and no email's fault.
        return None, Reply(Outcome.DEFERRED, Kind.PROVIDER, text=error_words(error))
    fault = provider.open(timeout)
    return (None, fault) if fault else (provider, Reply(Outcome.ACCEPTED))


def _make(alias: str, rules: options.Provider, outbox: bool) -> Provider:
    backend = import_string(conf.LOCMEM_BACKEND)() if outbox else _backend(alias, rules)
    if sends_as_django(type(backend)):
        return SmtpProvider(alias, backend, rules)
    if isinstance(backend, SmtpBackend):
        backend.timeout = backend.timeout or STEP_TIMEOUT  # Django's own default is to wait for ever
    if rules.dkim.domain is not None and not outbox:  # unsigned mail may harm the domain for long
        raise ValueError(f"DKIM signs by Django's SMTP backend only, and not by {type(backend).__name__}.")
    if hasattr(backend, "provider_class"):  # one of ours, or of a project's: it says more than a count
        return cast(Provider, backend.provider_class(alias, backend, rules))
    if any(kind.__module__ == "anymail.backends.base" for kind in type(backend).__mro__):
        from celery_mailer.deliver.providers.anymail_batch import provider_class

        return provider_class(backend)(alias, backend, rules)
    return DjangoBackendProvider(alias, backend, rules)


def sends_as_django(kind: type) -> bool:
    """Whether ``kind`` is Django's SMTP backend, or one that leaves its way to send alone.

    One that does not may sign messages, or lead all of a staging site's mail to one address: to go round
    it would be a disaster, so it keeps the last word, and we hear less of what the server said.
    """
    names = ("send_messages", "_send")
    return issubclass(kind, SmtpBackend) and all(getattr(kind, n) is getattr(SmtpBackend, n) for n in names)


def takes_return_path(kind: type) -> bool:
    return sends_as_django(kind) or getattr(kind, "esp_name", None) in returning.ESPS


def _backend(alias: str, rules: options.Provider) -> Any:
    if rules.using is not None:
        from django.core.mail import mailers

        return mailers[rules.using]
    backend_class = import_string(str(rules.backend))
    options = dict(rules.options)
    if issubclass(backend_class, SmtpBackend):
        options = _smtp_defaults(options) | options
        if django.VERSION >= (6, 1):
            options["alias"] = alias  # without it Django 6.1 warns of a backend made by hand
    return backend_class(**options)


def _smtp_defaults(options: dict[str, Any]) -> dict[str, Any]:
    """What ``options`` leave open. The project's login is for the project's host, not for any other."""
    secrets = {"username": "", "password": ""} if "host" in options else {}
    return conf.smtp_options() | secrets


def close(alias: str) -> None:
    """Close this thread's connection to ``alias``, if there is one."""
    if alias in _this_thread.open.providers:
        _this_thread.open.providers[alias][0].close()


def close_all() -> None:
    """Close every connection of this process."""
    for ref in list(_everywhere):
        if (opened := ref()) is not None:
            opened.close()


def _after_fork() -> None:
    # The sockets are the parent's: a QUIT from here would end its session.
    for ref in list(_everywhere):
        if (opened := ref()) is not None:
            opened.abandon()


atexit.register(close_all)
os.register_at_fork(after_in_child=_after_fork)
