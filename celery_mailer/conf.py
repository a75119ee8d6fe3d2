"""The settings: one dict, ``CELERY_MAILER``, read into the dataclasses of ``options``.

Nothing else reads Django's settings. An unknown key or a wrong type is a ``Problem``, which the system
checks report and ``get()`` raises.
"""

import difflib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from django.conf import settings
from django.core.signals import setting_changed

from celery_mailer import imap_url, provider_url, return_path, schemas
from celery_mailer.addresses import clean
from celery_mailer.exceptions import InvalidEmail, InvalidSettings
from celery_mailer.options import KINDS, Dkim, Provider, Routes, Settings, Tracking
from celery_mailer.schemas import Problem
from celery_mailer.values import Measure

NAME = "CELERY_MAILER"
URL_VARIABLE = "CELERY_MAILER_URL"  # of the environment: the provider, where PROVIDERS names none
QUEUE_BACKEND = "celery_mailer.backends.EmailBackend"
SMTP_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
LOCMEM_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
# A scheme, a host, perhaps a port and a path; nothing that would not be the same in a header and in HTML.
_BASE_URL = re.compile(r"https?://[a-z0-9.-]+(:\d+)?(/[\w.~/-]*)?", re.ASCII | re.IGNORECASE)

# A newsletter twice annoys, a password reset not at all loses a customer. And whoever can register with
# addresses that do not exist could stop all password resets, if these bounces paused them.
BUILT_IN_STREAMS: dict[str, dict[str, Any]] = {
    "transactional": {"REPUTATION": {"PAUSE_STREAM": False}},
    "marketing": {"ON_UNCERTAIN": "hold", "UNSUBSCRIBE": True},
}


def mailers_configured() -> bool:
    """Whether the project has opted in to Django 6.1's ``MAILERS``."""
    return hasattr(settings, "MAILERS") and _django_knows_mailers()


@cache
def _django_knows_mailers() -> bool:
    from django.core import mail

    return hasattr(mail, "mailers")


def mailers() -> dict[str, dict[str, Any]]:
    """``MAILERS``, or nothing. Not for foreign backends' options: those reach them as arguments."""
    return dict(settings.MAILERS) if mailers_configured() else {}


def backend_path(provider: Provider) -> str:
    """The dotted path of the backend behind ``provider``."""
    return str(provider.backend or mailers()[str(provider.using)].get("BACKEND", SMTP_BACKEND))


def _default_providers() -> dict[str, Provider]:
    if mailers_configured():
        return {a: Provider(using=a) for a, m in mailers().items() if m.get("BACKEND") != QUEUE_BACKEND}
    backend = settings.EMAIL_BACKEND
    return {"default": Provider(backend=SMTP_BACKEND if backend == QUEUE_BACKEND else backend)}


def _providers(conf: Settings, problems: list[Problem]) -> dict[str, Provider]:
    """The providers of the settings, else of the environment, else Django's."""
    providers = conf.providers
    if not providers and (url := os.environ.get(URL_VARIABLE)):
        providers = {"default": Provider(url=url)}
    return {a: _parsed(a, p, problems) for a, p in providers.items()} or _default_providers()


def _parsed(alias: str, provider: Provider, problems: list[Problem]) -> Provider:
    """``provider`` with the backend and the options that its address stands for."""
    if provider.url is None:
        return provider
    path = f"{NAME}['PROVIDERS'][{alias!r}]"
    if provider.backend is not None or provider.using is not None:
        problems.append(Problem(path, "has 'URL' beside 'BACKEND' or 'USING'.", "Give one of them."))
        return provider
    try:
        parsed = provider_url.parse(provider.url)
    except ValueError as error:
        where = f"{path}['URL']"
        problems.append(Problem(where, str(error), f"Without PROVIDERS, it is that of {URL_VARIABLE}."))
        return provider
    return replace(provider, backend=parsed["BACKEND"], options=parsed["OPTIONS"] | provider.options)


def _inconsistencies(conf: Settings) -> Iterator[Problem]:
    """Faults that only show when several keys are seen together, or beside Django's settings."""
    yield from _provider_problems(conf.providers)
    yield from _long_names("PROVIDERS", conf.providers, 64)
    yield from _long_names("STREAMS", conf.streams, 40)
    yield from _route_problems(conf)
    yield from _limit_problems(conf)
    yield from _tracking_problems(conf.tracking)
    if conf.bounces.imap_url is not None and (fault := imap_url.fault(conf.bounces.imap_url)):
        hint = "Write it as 'imaps://user:password@imap.example.com/INBOX'."
        yield Problem(f"{NAME}['BOUNCES']['IMAP_URL']", fault, hint)
    for kind in conf.retry.kinds:
        if kind not in KINDS:
            path = f"{NAME}['RETRY']['KINDS'][{kind!r}]"
            yield Problem(path, "is not a kind of failure.", f"Give one of {', '.join(KINDS)}.")
    for i, address in enumerate(conf.override_recipients or ()):
        try:
            clean("OVERRIDE_RECIPIENTS", address)
        except InvalidEmail as error:
            yield Problem(f"{NAME}['OVERRIDE_RECIPIENTS'][{i}]", f"{error.fault}.", "Give an email address.")
    yield from _reputation_problems(conf)
    if conf.retry.min > conf.retry.max:
        yield Problem(f"{NAME}['RETRY']['MIN']", "is longer than MAX.", "Shorten MIN, or lengthen MAX.")
    if len({conf.queues.high, conf.queues.medium, conf.queues.low}) < 3:
        yield Problem(f"{NAME}['QUEUES']", "gives two lanes one queue.", "Name three different queues.")


def _long_names(section: str, names: Iterable[str], longest: int) -> Iterator[Problem]:
    """Names that do not fit into their column of ``models.email``."""
    for name in names:
        if len(name) > longest:
            yield Problem(f"{NAME}[{section!r}][{name!r}]", "is too long.", f"At most {longest} characters.")


def _provider_problems(providers: dict[str, Provider]) -> Iterator[Problem]:
    if not providers:
        fault = "is not given, and no alias in MAILERS really sends."
        yield Problem(f"{NAME}['PROVIDERS']", fault, "Name one that does, here or there.")
    for alias, provider in providers.items():
        path = f"{NAME}['PROVIDERS'][{alias!r}]"
        if (provider.backend is None) == (provider.using is None):
            yield Problem(path, "needs 'BACKEND' or 'USING'.", "Give one of the two, and not both.")
        elif provider.using is not None:
            yield from _mailer_problems(path, provider.using)
        elif provider.backend == QUEUE_BACKEND:
            yield Problem(path, "leads back to the queue.", "Name the backend that really sends.")
        yield from _dkim_problems(f"{path}['DKIM']", provider.dkim)
        if provider.return_path is not None and (fault := return_path.fault(provider.return_path)):
            yield Problem(f"{path}['RETURN_PATH']", fault, "Write it as 'bounces@example.com'.")


def _dkim_problems(path: str, dkim: Dkim) -> Iterator[Problem]:
    one_key = (dkim.key is None) != (dkim.key_file is None)
    if dkim != Dkim() and not (dkim.domain and dkim.selector and one_key):
        hint = "Give 'DOMAIN', 'SELECTOR', and 'KEY' or 'KEY_FILE'."
        yield Problem(path, "is not complete.", hint)


def _route_problems(conf: Settings) -> Iterator[Problem]:
    routes: dict[str, Routes] = {f"{NAME}['ROUTES']": conf.routes}
    routes |= {f"{NAME}['STREAMS'][{n!r}]['ROUTES']": s.routes or [] for n, s in conf.streams.items()}
    routes |= {f"{NAME}['DOMAIN_ROUTES'][{d!r}]": aliases for d, aliases in conf.domain_routes.items()}
    yield from _odd_domains("DOMAIN_ROUTES", conf.domain_routes)
    for path, aliases in routes.items():
        for alias in aliases:
            if alias not in conf.providers:
                yield Problem(path, f"names the unknown provider {alias!r}.", _near(alias, conf.providers))


def _odd_domains(section: str, domains: Iterable[str]) -> Iterator[Problem]:
    for domain in domains:
        if domain != domain.lower() or not domain.isascii() or "@" in domain:
            path = f"{NAME}[{section!r}][{domain!r}]"
            yield Problem(path, "is not a domain in lower case and ASCII.", "Write it as 'example.com'.")


def _limit_problems(conf: Settings) -> Iterator[Problem]:
    yield from _odd_domains("DOMAIN_LIMITS", conf.domain_limits)
    if not (conf.redis_url or "unix://").startswith(("redis://", "rediss://", "unix://")):
        yield Problem(
            f"{NAME}['REDIS_URL']", "is not a URL of Redis.", "Give redis://, rediss:// or unix://."
        )


def _reputation_problems(conf: Settings) -> Iterator[Problem]:
    """A stream's, where it is not the project's."""
    sections = {f"{NAME}['REPUTATION']": ""}
    sections |= {f"{NAME}['STREAMS'][{name!r}]['REPUTATION']": name for name in conf.streams}
    known: set[Measure] = set()
    for path, stream in sections.items():
        policy = conf.reputation_policy(stream)
        wrong = {m for m in Measure if policy.warn(m) > policy.pause(m)} - known
        known |= wrong if not stream else set()
        for measure in sorted(wrong):
            key = f"{measure.upper()}_WARN"
            yield Problem(f"{path}[{key!r}]", "is above the pause.", "Let it be the lower one.")


def _tracking_problems(tracking: Tracking) -> Iterator[Problem]:
    path = f"{NAME}['TRACKING']"
    if tracking.base_url is not None and not _BASE_URL.fullmatch(tracking.base_url):
        hint = "Write it as 'https://mail.example.com'."
        yield Problem(f"{path}['BASE_URL']", "is not the address of a site.", hint)
    if tracking.enabled and tracking.base_url is None:
        yield Problem(f"{path}['ENABLED']", "needs a BASE_URL.", "Give the public address of your site.")
    if tracking.unsubscribe_mailto is not None:
        try:
            clean("UNSUBSCRIBE_MAILTO", tracking.unsubscribe_mailto)
        except InvalidEmail as error:
            yield Problem(f"{path}['UNSUBSCRIBE_MAILTO']", f"{error.fault}.", "Give an email address.")


def _mailer_problems(path: str, alias: str) -> Iterator[Problem]:
    if not mailers_configured():
        yield Problem(path, "has 'USING', but there are no MAILERS.", "Give 'BACKEND' instead.")
    elif alias not in mailers():
        yield Problem(path, f"uses the unknown MAILERS alias {alias!r}.", _near(alias, mailers()))
    elif mailers()[alias].get("BACKEND") == QUEUE_BACKEND:
        fault = f"uses {alias!r}, which leads back to the queue."
        yield Problem(path, fault, "Name an alias that really sends.")


def _near(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known := list(known), n=1)
    return f"Did you mean {near[0]!r}?" if near else "Known: " + ", ".join(known) + "."


def _over(built_in: Any, given: Any) -> Any:
    """``given`` over what is built in, also in the sections within."""
    if not (isinstance(built_in, Mapping) and isinstance(given, Mapping)):
        return given
    return {**built_in, **{key: _over(built_in.get(key), value) for key, value in given.items()}}


@cache
def _load() -> tuple[Settings, tuple[Problem, ...]]:
    problems: list[Problem] = []
    raw = getattr(settings, NAME, {})
    if isinstance(raw, Mapping) and isinstance(streams := raw.get("STREAMS", {}), Mapping):
        built_in = {name: _over(own, streams.get(name, {})) for name, own in BUILT_IN_STREAMS.items()}
        raw = {**raw, "STREAMS": {**streams, **built_in}}
    if isinstance(raw, Mapping) and (folder := getattr(settings, "EMAIL_TEMPLATE_DIR", None)):
        raw = {"TEMPLATE_DIR": folder, **raw}  # django-cfg's name of it
    conf: Settings = schemas.read_section(Settings, raw, NAME, problems)
    if not problems:
        conf = replace(conf, providers=_providers(conf, problems))
    if not problems:
        problems.extend(_inconsistencies(conf))
    return conf, tuple(problems)


def problems() -> tuple[Problem, ...]:
    """Every fault in ``CELERY_MAILER``, for the system checks."""
    return _load()[1]


def get() -> Settings:
    """The settings as they stand.

    Raises ``InvalidSettings`` when they have faults.
    """
    conf, faults = _load()
    if faults:
        raise InvalidSettings("\n".join(map(str, faults)))
    return conf


def outbox_only() -> bool:
    """Whether Django's test runner has replaced the email backends by its outbox.

    It swaps ``EMAIL_BACKEND``, or every alias of ``MAILERS``; ``PROVIDERS`` would still lead to real servers
    from a project's tests.
    """
    if mailers_configured():
        return all(m.get("BACKEND") == LOCMEM_BACKEND for m in mailers().values())
    return bool(settings.EMAIL_BACKEND == LOCMEM_BACKEND)


def smtp_options() -> dict[str, Any]:
    """Django's ``EMAIL_*`` settings as keyword arguments of its SMTP backend.

    The backend reads them by itself only until Django 6.0, and not at all under ``MAILERS``.
    """
    if mailers_configured():
        return {}
    names = {"host": "HOST", "port": "PORT", "username": "HOST_USER", "password": "HOST_PASSWORD"}
    names |= {n: n.upper() for n in ("use_tls", "use_ssl", "timeout", "ssl_keyfile", "ssl_certfile")}
    # Django 6.1 warns of reading those that were not set.
    is_set: Callable[[str], bool] = settings.is_overridden  # type: ignore[misc]  # unknown to the plugin
    given = {o: getattr(settings, f"EMAIL_{n}") for o, n in names.items() if is_set(f"EMAIL_{n}")}
    return {"host": "localhost", "port": 25} | given


def default_from_email() -> str:
    return str(settings.DEFAULT_FROM_EMAIL)


def default_charset() -> str:
    return str(settings.DEFAULT_CHARSET)


def email_use_localtime() -> bool:
    return bool(settings.EMAIL_USE_LOCALTIME)


def debug() -> bool:
    return bool(settings.DEBUG)


def use_tz() -> bool:
    return bool(settings.USE_TZ)


def languages() -> dict[str, str]:
    return dict(settings.LANGUAGES)


def languages_chosen() -> list[str]:
    """The languages that the project has chosen: Django's own list has about a hundred."""
    is_set: Callable[[str], bool] = settings.is_overridden  # type: ignore[misc]  # unknown to the plugin
    return list(languages()) if is_set("LANGUAGES") else [settings.LANGUAGE_CODE]


def anymail_setting(name: str) -> Any:
    """A setting of django-anymail, in either of its spellings: a key of ``ANYMAIL``, or by itself."""
    return getattr(settings, "ANYMAIL", {}).get(name) or getattr(settings, f"ANYMAIL_{name}", None)


def has_urls() -> bool:
    return bool(getattr(settings, "ROOT_URLCONF", None))


def post_office() -> dict[str, Any]:
    """django-post_office's settings, for the import of what it has."""
    return dict(getattr(settings, "POST_OFFICE", None) or {})


def schema() -> Iterator[tuple[str, str, Any]]:
    """Each key with its type in words and its default, as the README's table shows them."""
    return schemas.keys(Settings)


def _forget(*, setting: str, **kwargs: Any) -> None:
    if setting == NAME or setting == "MAILERS" or setting.startswith("EMAIL_"):
        _load.cache_clear()


setting_changed.connect(_forget, dispatch_uid="celery_mailer.conf")
