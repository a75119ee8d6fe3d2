"""From what a caller gave to rows: every argument checked and normalised, nothing written.

Each function refuses with ``InvalidEmail``, which names the argument and its fault. No message holds an
address or a body: the error may end in a worker's log.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import date, datetime, time
from email.utils import format_datetime, make_msgid
from functools import lru_cache
from typing import Any, NamedTuple

import django
from django.core.exceptions import ValidationError
from django.core.mail.utils import DNS_NAME
from django.utils import timezone, translation
from django.utils.dateparse import parse_datetime
from django.utils.encoding import force_str
from django.utils.functional import Promise
from django.utils.module_loading import import_string

from celery_mailer import conf, subscriptions
from celery_mailer.addresses import bare, clean, clean_list
from celery_mailer.attaching import File, read_files
from celery_mailer.call import Call
from celery_mailer.consent import wanted_mode
from celery_mailer.exceptions import InvalidEmail
from celery_mailer.models import Content, Email, EmailTemplate
from celery_mailer.models.context import NotPlain, encode, plain, storable_text
from celery_mailer.models.insertion import new, point
from celery_mailer.repetition import fingerprint, hashed_key
from celery_mailer.sources import Finder, Source, languages
from celery_mailer.values import EmailRequest, Priority, Status, uuid7

# Written from their own arguments, or by us: given as a header too, they would contradict them.
RESERVED_HEADERS = {"bcc", "subject", "content-type", "content-transfer-encoding", "mime-version"}

# Django looks for these in exactly this spelling, and drops any other.
DJANGOS_SPELLING = {name.lower(): name for name in ("From", "To", "Cc", "Reply-To")}
PRIORITIES = {str(p.label): p for p in reversed(Priority)}
# A language, perhaps a script, perhaps a region (RFC 5646, section 2.1).
LANGUAGE = re.compile(r"[a-z]{2,3}(-[a-z]{4})?(-([a-z]{2}|[0-9]{3}))?")


class Row(NamedTuple):
    """What one request comes to, unsaved."""

    email: Email
    content: Content
    files: list[File]


def row(request: EmailRequest, call: Call) -> Row:
    """The rows and files for ``request``, checked and unsaved."""
    now = call.now
    stream = _known("stream", request.stream or "transactional", conf.get().streams)
    given = conf.get().streams[stream].priority if request.priority is None else request.priority
    priority = parse_priority(given)
    scheduled_at, expires_at = _times(request, priority, now)
    headers = _headers(request.headers)
    as_given = request.shape is not None  # Django's own door stays as Django is
    if not as_given:
        headers = {DJANGOS_SPELLING.get(name.lower(), name): value for name, value in headers.items()}
    email = new(
        Email,
        id=request.id or uuid7(),
        status=Status.QUEUED,
        priority=priority,
        stream=stream,
        provider=_known("provider", request.provider, conf.get().providers) if request.provider else "",
        to=_recipients("to", request.to, as_given),
        cc=_recipients("cc", request.cc, as_given),
        bcc=_recipients("bcc", request.bcc, as_given),
        message_id=_message_id(headers),
        idempotency_key=hashed_key(request.idempotency_key),
        created_at=now,
        scheduled_at=scheduled_at,
        expires_at=expires_at,
        # A chain is started at once, so the dispatcher has to look only after a lease's time.
        due_at=scheduled_at if scheduled_at and scheduled_at > now else now + call.lease,
        log_level=_log_level(request.log_level),
    )
    if not email.recipients:
        raise InvalidEmail("to", "is empty, and so are cc and bcc")
    subscriptions.check(email, headers)
    files = read_files("attachments", request.attachments)
    content = _content(email, request, call)
    content.headers, content.has_attachments = headers, bool(files)
    if email.idempotency_key is not None:
        content.fingerprint = fingerprint(email, content, files)
    return Row(email, content, files)


def _content(email: Email, request: EmailRequest, call: Call) -> Content:
    language = _language(request.language) if request.language else call.language
    as_given = request.shape is not None
    sender = str(request.from_email or conf.default_from_email())
    source = _source(request, language, call.templates)
    pinned = source if not request.render_on_delivery else None
    content = new(
        Content,
        from_email=_with_spaces(sender, _sender(sender)) if as_given else _sender(sender),
        reply_to=_cleaned("reply_to", request.reply_to, as_given),
        subject=_one_line("subject", request.subject),
        text=_text("message", request.message),
        html=_text("html_message", request.html_message),
        template=source.name if source is not None else "",
        render_on_delivery=_flag("render_on_delivery", request.render_on_delivery),
        context=_context(request.context, language),
        # What is rendered on delivery looks for its template again, in the language that was asked for.
        language=pinned.language if pinned else language,
        time_zone=call.time_zone,
        tags=[_one_line("tags", tag) for tag in _as_list("tags", request.tags)],
        metadata=_metadata(request.metadata or {}),
        shape=dict(request.shape or {}),
        sensitive=_flag("sensitive", request.sensitive),
        track_opens=wanted_mode("track_opens", request.track_opens),
        track_clicks=wanted_mode("track_clicks", request.track_clicks),
    )
    point(content, "email", email)
    if pinned is not None:
        content.template_version = pinned.version
    if source is not None:
        _check_context(source, content.context or {})
    return content


def parse_priority(value: Any) -> Priority:
    """A name or number as a ``Priority``; ``None`` is the project's default."""
    if isinstance(value, Priority):
        return value
    if value is None:
        value = conf.get().default_priority
    if isinstance(value, str) and value in PRIORITIES:
        return PRIORITIES[value]
    if isinstance(value, int) and not isinstance(value, bool) and value in PRIORITIES.values():
        return Priority(value)
    raise InvalidEmail("priority", f"must be one of: {', '.join(PRIORITIES)}")


def parse_time(field: str, value: Any) -> datetime | None:
    """A datetime, a date (its midnight) or an ISO 8601 string; naive ones are in the current time zone."""
    if isinstance(value, str):
        try:
            value = parse_datetime(value) or date.fromisoformat(value)
        except ValueError:
            raise InvalidEmail(field, "is not an ISO 8601 date or datetime") from None
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, time.min)
    if value is not None and not isinstance(value, datetime):
        raise InvalidEmail(field, f"is a {type(value).__name__}, not a datetime")
    if value is None or timezone.is_aware(value) == conf.use_tz():
        return value
    return timezone.make_aware(value) if conf.use_tz() else timezone.make_naive(value)


def _times(
    request: EmailRequest, priority: Priority, now: datetime
) -> tuple[datetime | None, datetime | None]:
    scheduled_at = parse_time("scheduled_at", request.scheduled_at)
    expires_at = parse_time("expires_at", request.expires_at)
    if expires_at is not None and scheduled_at is not None and scheduled_at > expires_at:
        raise InvalidEmail("scheduled_at", "is later than expires_at")
    if priority == Priority.NOW and scheduled_at is not None and scheduled_at > now:
        raise InvalidEmail("scheduled_at", "lies in the future, but the email is to be sent now")
    return scheduled_at, expires_at


def _known(field: str, value: str, known: Iterable[str]) -> str:
    names = list(known)
    if value in names:
        return value
    near = difflib.get_close_matches(str(value), names, n=1)
    raise InvalidEmail(
        field, f"{value!r} is unknown; " + (f"did you mean {near[0]!r}?" if near else f"known: {names}")
    )


def _text(field: str, value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str | Promise):
        raise InvalidEmail(field, f"is a {type(value).__name__}, not a string")
    return storable_text(field, force_str(value))


def _one_line(field: str, value: Any) -> str:
    text = _text(field, value)
    # Not only \n and \r: the email package breaks a header at whatever ``splitlines`` breaks at.
    if text and text.splitlines() != [text]:
        raise InvalidEmail(field, "has a line break")
    return text


def _flag(field: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise InvalidEmail(field, f"is a {type(value).__name__}, not True or False")
    return value


@lru_cache(maxsize=64)
def _sender(value: str) -> str:
    return clean("from_email", value)


def _headers(headers: Mapping[str, Any] | None) -> dict[str, str]:
    if headers is not None and not isinstance(headers, Mapping):
        raise InvalidEmail("headers", f"is a {type(headers).__name__}, not a dict")
    checked = {}
    for i, (name, value) in enumerate((headers or {}).items()):
        # RFC 5322, section 2.2: printable ASCII but the colon. Not shown, for it may be half a message.
        if not str(name) or not all(33 <= ord(c) <= 126 and c != ":" for c in str(name)):
            raise InvalidEmail(f"headers[{i}]", "has a name that is none")
        field = f"headers[{name!r}]"
        if str(name).lower() in RESERVED_HEADERS:
            raise InvalidEmail(field, "cannot be given as a header")
        if value is None:
            raise InvalidEmail(field, "is None")
        checked[str(name)] = _one_line(field, _header_value(value))
    return checked


def _header_value(value: Any) -> Any:
    if isinstance(value, datetime) and django.VERSION >= (6, 0):
        return format_datetime(value)  # as Django does from 6.0 on (RFC 5322, section 3.3)
    return value if isinstance(value, Promise) else str(value)


def _message_id(headers: dict[str, str]) -> str:
    name = next((name for name in headers if name.lower() == "message-id"), None)
    if name is None:
        return make_msgid(domain=conf.get().message_id_fqdn or DNS_NAME.get_fqdn())
    if not 1 <= len(headers[name]) <= 255:
        raise InvalidEmail(f"headers[{name!r}]", "must have 1 to 255 characters")
    return headers[name]


def _source(request: EmailRequest, language: str, templates: Finder) -> Source | None:
    template = request.template
    if not template:
        if request.render_on_delivery:
            raise InvalidEmail("render_on_delivery", "needs a template")
        return None
    if request.html_message:
        raise InvalidEmail("html_message", "cannot be given together with template")
    if not isinstance(template, str | EmailTemplate):
        raise InvalidEmail("template", f"is a {type(template).__name__}, not a name or an EmailTemplate")
    return templates.find(template, language, asked=bool(request.language))


def _check_context(source: Source, context: Mapping[str, Any]) -> None:
    missing = [name for name in source.needed if name not in context]
    if missing:
        raise InvalidEmail("context", f"lacks what the template needs: {', '.join(missing)}")


def _with_spaces(given: str, address: str) -> str:
    """``address`` as Django's own door was given it: it writes the spaces around one."""
    return given if given.strip(" ") == address else address


def _cleaned(field: str, value: Any, as_given: bool) -> list[str]:
    addresses = clean_list(field, value)
    if not as_given:
        return addresses
    return [_with_spaces(str(given), a) for given, a in zip(value, addresses, strict=True)]


def _recipients(field: str, value: Any, as_given: bool) -> list[str]:
    addresses = _cleaned(field, value, as_given)
    if (path := conf.get().address_validator) is not None:
        for i, address in enumerate(addresses):
            _ask_validator(f"{field}[{i}]", path, bare(address))
    return addresses


def _ask_validator(field: str, path: str, address: str) -> None:
    try:
        import_string(path)(address)
    except ValidationError as error:
        raise InvalidEmail(field, " ".join(error.messages)) from None
    except ValueError as error:
        raise InvalidEmail(field, str(error)) from None


def _log_level(value: Any) -> int:
    if value is None:
        return conf.get().log_level
    if value in (0, 1, 2) and not isinstance(value, bool):
        return int(value)
    raise InvalidEmail("log_level", "must be 0, 1 or 2")


def _context(context: Any, language: str) -> dict[str, Any] | None:
    if context is None:
        return None
    if not isinstance(context, Mapping):
        raise InvalidEmail("context", f"is a {type(context).__name__}, not a dict")
    with suppress(NotPlain, RecursionError):  # said below, with its place
        return dict(plain(context))
    with translation.override(language or None):  # what is lazily translated is for the recipient
        return {storable_text("context", str(k)): _encoded(f"context[{k!r}]", v) for k, v in context.items()}


def _encoded(path: str, value: Any) -> Any:
    try:
        return encode(path, value)
    except RecursionError:
        raise InvalidEmail(path, "cannot be stored: it contains itself, or is nested too deeply") from None


def _metadata(values: Any) -> dict[str, str | int]:
    """What ESPs take as metadata: numbers and strings by name."""
    if not isinstance(values, Mapping):
        raise InvalidEmail("metadata", f"is a {type(values).__name__}, not a dict")
    for key, value in values.items():
        if not isinstance(value, str | int | Promise) or not isinstance(key, str):
            raise InvalidEmail(
                f"metadata[{key!r}]", f"is a {type(value).__name__}, not a string or an integer"
            )
    return {
        storable_text("metadata", key): v if isinstance(v, int) else storable_text(f"metadata[{key!r}]", v)
        for key, v in values.items()
    }


def _language(value: Any) -> str:
    """A language of the project, or a regional form of one (de-at of de)."""
    language = str(value).lower().replace("_", "-")  # case says nothing (RFC 5646, section 2.1.1)
    if not LANGUAGE.fullmatch(language) or not set(languages(language)) & conf.languages().keys():
        _known("language", language, conf.languages())
    return language


def _as_list(field: str, value: Any) -> list[Any]:
    if value is None:
        return []
    if isinstance(value, list | tuple):
        return list(value)
    raise InvalidEmail(field, f"is a {type(value).__name__}, not a list")
