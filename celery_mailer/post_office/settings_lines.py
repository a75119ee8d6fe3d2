"""django-post_office's settings, as the lines that say the same to celery_mailer."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

from celery_mailer import options

QUEUE_BACKENDS = ("post_office.EmailBackend", "post_office.backends.EmailBackend")
PLAIN = ("BATCH_SIZE", "DEFAULT_PRIORITY", "LOG_LEVEL", "MESSAGE_ID_FQDN", "OVERRIDE_RECIPIENTS")
RETRY_INTERVAL = timedelta(minutes=15)  # its default

# What has no counterpart, and why none is needed.
NOT_NEEDED = {
    "BATCH_DELIVERY_TIMEOUT": "LEASE bounds each hand-over; no email of a batch waits for another",
    "CELERY_ENABLED": "Celery is what it is made of",
    "CONTEXT_FIELD_CLASS": "contexts hold rows, dates and more; own types by models.context.register",
    "DEFAULT_MAILER": "ROUTES; or the provider 'default'",
    "LOCK_FILE_NAME": "no lock is needed: each email is claimed",
    "MESSAGE_ID_ENABLED": "always on",
    "SENDING_ORDER": "lanes: urgent first, then what has been due for longest",
    "TEMPLATE_ENGINE": "inline images need no engine of their own",
    "THREADS_PER_PROCESS": "celery worker --concurrency",
    "WEBHOOKS": "those of django-anymail; their events are stored",
}


def settings_lines(given: Mapping[str, Any], *, tags: bool = False) -> list[str]:
    """The lines for a settings file; ``tags`` if templates load django-post_office's tags.

    They need ``from datetime import timedelta``, if they have one.
    """
    ours = dict(_translated(given)) | ({"POST_OFFICE_TAGS": True} if tags else {})
    lines = [f"    {name!r}: {value!r}," for name, value in ours.items()]
    lines = [line.replace("datetime.timedelta", "timedelta") for line in lines]
    notes = [f"# {name}: {why}" for name, why in NOT_NEEDED.items() if name in given]
    return [*notes, "CELERY_MAILER = {", *lines, "}"]


def _translated(given: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    if providers := _providers(given):
        yield "PROVIDERS", providers
    if retry := _retry(given):
        yield "RETRY", retry
    for name in PLAIN:
        if given.get(name) is not None:
            yield name, given[name]
    if given.get("FILE_STORAGE"):
        yield "ATTACHMENTS", {"STORAGE": given["FILE_STORAGE"]}


def _providers(given: Mapping[str, Any]) -> dict[str, Any]:
    backends = dict(given.get("BACKENDS") or {})
    if not backends and given.get("EMAIL_BACKEND"):
        backends = {"default": given["EMAIL_BACKEND"]}  # its older name
    return {alias: {"BACKEND": path} for alias, path in backends.items() if path not in QUEUE_BACKENDS}


def _retry(given: Mapping[str, Any]) -> dict[str, Any]:
    """Retries counted as attempts. Without any setting, ours stay: it would try only once."""
    if not {"MAX_RETRIES", "RETRY_INTERVAL"} & given.keys():
        return {}
    interval = given.get("RETRY_INTERVAL", RETRY_INTERVAL)
    retry = {"MAX_ATTEMPTS": given.get("MAX_RETRIES", 0) + 1, "WAIT": "fixed", "MIN": interval}
    return retry | ({"MAX": interval} if interval > options.Retry.max else {})
