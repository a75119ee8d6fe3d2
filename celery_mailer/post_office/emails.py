"""From an email of django-post_office's to our rows, unsaved.

What waits there goes through the check that every door has, so that what is wrong with it is known now and
not in a worker. What is over is taken as it is, faults and all: it happened.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.utils import format_datetime
from typing import Any
from uuid import UUID

from celery_mailer import conf
from celery_mailer.call import Call
from celery_mailer.exceptions import InvalidEmail
from celery_mailer.models import Attempt, Content, Decision, Email
from celery_mailer.models.context import encode
from celery_mailer.post_office import repair, tables
from celery_mailer.post_office.templates import Named, version_of
from celery_mailer.sources import Finder
from celery_mailer.validation import RESERVED_HEADERS
from celery_mailer.validation import row as checked_row
from celery_mailer.values import EmailRequest, Outcome, Priority, Status

REASON = "import"  # the typed reason of what the import decided
BATCH_TIMED_OUT = "TimeoutError"  # logged for mails that may have left; django-post_office calls them failed
Context = Callable[[tables.Mail], Any]
STATUSES = {tables.SENT: Status.SENT, tables.FAILED: Status.FAILED}


@dataclass(slots=True)
class Made:
    """The rows for one email; ``fault`` is why it cannot be sent, ``repaired`` what was mended."""

    email: Email
    content: Content
    attempts: list[Attempt] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    fault: str = ""
    repaired: list[str] = field(default_factory=list)

    def give_up(self, now: datetime, fault: str) -> None:
        """It waits no more: it cannot be sent, and ``fault`` says why."""
        self.fault = fault
        self.email.status, self.email.reason = Status.FAILED, REASON
        self.email.due_at, self.email.finished_at = None, now
        decision = Decision(email=self.email, move=REASON, status=Status.FAILED, reason=REASON, detail=fault)
        self.decisions.append(decision)


def new_id(table: str, number: int, at: datetime) -> UUID:
    """The same id for the same row in every run: a UUIDv7 (RFC 9562, section 5.7) of its own time.

    So imported emails sort by when they were made, and a second run finds what the first has made.
    """
    digest = hashlib.sha256(f"post_office_{table}:{number}".encode()).digest()
    value = int(at.timestamp() * 1000) << 80 | 0x7 << 76 | (number & 0xFFF) << 64
    return UUID(int=value | 0b10 << 62 | int.from_bytes(digest[:8]) >> 2)


def ended_at(mail: tables.Mail, logs: Sequence[tables.Log]) -> datetime:
    """When an email that is over came to its end."""
    return max([mail.last_updated, *(log.date for log in logs if log.status in STATUSES)])


def make(
    mail: tables.Mail,
    logs: Sequence[tables.Log],
    template: Named | None,
    now: datetime,
    context: Context,
) -> Made:
    """Our rows for ``mail``; ``template`` and ``context`` are for one that is rendered on delivery."""
    if not mail.waiting:
        made = _history(mail, logs, template)
    elif mail.expires_at is not None and mail.expires_at <= now:
        made = _over(mail, template, Status.EXPIRED, mail.expires_at)
    else:
        made = _waiting(mail, template, now, context)
    made.attempts = [_attempt(mail, made.email, log) for log in logs if log.status in STATUSES]
    # What is retried counts as it did there, also where LOG_LEVEL kept no rows, or a person began anew.
    made.email.attempt_count = (mail.number_of_retries or 0) if mail.waiting else len(made.attempts)
    if made.email.status == Status.FAILED and made.attempts and not made.fault:
        _reject(made.attempts[-1])
    return made


def _history(mail: tables.Mail, logs: Sequence[tables.Log], template: Named | None) -> Made:
    if mail.status in STATUSES:
        return _over(mail, template, STATUSES[mail.status], ended_at(mail, logs))
    # Of priority "now", and its process ended before it wrote down what became of it.
    made = _over(mail, template, Status.UNCERTAIN, None)
    made.email.reason = REASON
    detail = "django-post_office did not note whether it was sent"
    made.decisions.append(
        Decision(email=made.email, move=REASON, status=Status.UNCERTAIN, reason=REASON, detail=detail)
    )
    return made


def _waiting(mail: tables.Mail, template: Named | None, now: datetime, context: Context) -> Made:
    try:
        return _checked(mail, template, now, context)
    except InvalidEmail as error:
        made = _over(mail, template, Status.FAILED, now)
        made.give_up(now, str(error))
        return made


def _checked(mail: tables.Mail, template: Named | None, now: datetime, context: Context) -> Made:
    request, repaired = _request(mail, template)
    row = checked_row(request, Call(now, timedelta(0)))
    email, content = row.email, row.content
    email.created_at = mail.created
    email.expires_at = mail.expires_at
    # A retry gives up by the time since the email was first due: of what has waited long, that is now.
    email.scheduled_at = max(mail.scheduled_time or now, now)
    email.due_at = email.scheduled_at
    email.message_id = mail.message_id or email.message_id
    if mail.status == tables.REQUEUED:
        email.status, email.reason = Status.DEFERRED, REASON
    content.language = content.time_zone = ""  # those of whoever runs the command say nothing of it
    if template is not None:
        _render_later(content, template, _context(mail, context))
    return Made(email, content, repaired=repaired)


def _request(mail: tables.Mail, template: Named | None) -> tuple[EmailRequest, list[str]]:
    """What the door is asked to check, and the names of the fields that had to be mended."""
    subject = repair.unescaped(repair.one_line(mail.subject))
    text = repair.unescaped(mail.message)
    to, cc, bcc = (repair.addresses(joined) for joined in (mail.to, mail.cc, mail.bcc))
    sender = repair.quoted(mail.from_email)
    words = {"subject": subject, "message": text, "from_email": sender}
    mended = [name for name, value in words.items() if getattr(mail, name) != value]
    addressed = {"to": to, "cc": cc, "bcc": bcc}
    mended += [name for name, found in addressed.items() if found != _as_split(getattr(mail, name))]
    request = EmailRequest(
        id=new_id("email", mail.id, mail.created),
        from_email=sender,
        headers=_headers(mail),
        priority=_priority(mail),
        provider=alias_of(mail.backend_alias),
        to=to,
        cc=cc,
        bcc=bcc,
        subject="" if template else subject,
        message="" if template else text,
        html_message="" if template else mail.html_message,
    )
    return request, mended


def _as_split(joined: str) -> list[str]:
    """The addresses as django-post_office itself reads them."""
    return [piece.strip() for piece in joined.split(",")] if joined else []


def _headers(mail: tables.Mail) -> dict[str, Any]:
    given = mail.headers if isinstance(mail.headers, Mapping) else {}
    headers = {name: value for name, value in given.items() if str(name).lower() not in RESERVED_HEADERS}
    if mail.expires_at is not None:
        headers["Expires"] = format_datetime(mail.expires_at)  # RFC 4021, section 2.1.50
    return headers


def _priority(mail: tables.Mail) -> Priority:
    if mail.priority not in Priority.values:
        return Priority.MEDIUM
    return min(Priority(mail.priority), Priority.HIGH)  # "now" is over; its retries are in the high lane


def alias_of(alias: str | None) -> str:
    """The provider that ``alias`` asks for: none, where it is what django-post_office takes by itself."""
    return "" if alias in (None, "", _default_alias()) else str(alias)


def _default_alias() -> str:
    return str(conf.post_office().get("DEFAULT_MAILER") or "default")


def _context(mail: tables.Mail, read: Context) -> dict[str, Any]:
    """The context of ``mail`` as ours is stored; a project's own field class may raise anything."""
    try:
        given = dict(read(mail) or {})
    except Exception as error:
        raise InvalidEmail("context", f"cannot be read: {type(error).__name__}") from error
    return {str(name): encode(f"context[{name!r}]", value) for name, value in given.items()}


def _render_later(content: Content, template: Named, context: dict[str, Any]) -> None:
    content.template, content.language = template.name, template.language
    content.render_on_delivery, content.context = True, context
    source = Finder().find(template.name, template.language, asked=False)
    if source.version is None:  # a file has the same name; django-post_office knows no files
        content.template_version = version_of(template)


def _over(mail: tables.Mail, template: Named | None, status: Status, finished_at: datetime | None) -> Made:
    """An email that nobody sends any more, as it was."""
    email = Email(
        id=new_id("email", mail.id, mail.created),
        status=status,
        priority=mail.priority if mail.priority in Priority.values else Priority.MEDIUM,
        stream="transactional",
        provider=alias_of(mail.backend_alias),
        to=repair.addresses(mail.to),
        cc=repair.addresses(mail.cc),
        bcc=repair.addresses(mail.bcc),
        message_id=mail.message_id or "",
        created_at=mail.created,
        scheduled_at=mail.scheduled_time,
        expires_at=mail.expires_at,
        finished_at=finished_at,
    )
    headers = mail.headers if isinstance(mail.headers, Mapping) else {}
    content = Content(
        email=email,
        from_email=mail.from_email,
        headers={str(name): str(value) for name, value in headers.items()},
        subject=mail.subject,
        text=mail.message,
        html=mail.html_message,
    )
    if template is not None:  # what it said was never kept, there as here
        content.template, content.language = template.name, template.language
        content.render_on_delivery = content.dropped = True
    return Made(email, content)


def _attempt(mail: tables.Mail, email: Email, log: tables.Log) -> Attempt:
    outcome = Outcome.ACCEPTED if log.status == tables.SENT else Outcome.DEFERRED
    if log.exception_type == BATCH_TIMED_OUT:
        outcome = Outcome.UNCERTAIN
    return Attempt(
        id=new_id("log", log.id, log.date),
        email=email,
        claim=new_id("claim", log.id, log.date),
        provider=mail.backend_alias or _default_alias(),
        started_at=log.date,
        finished_at=log.date,
        outcome=outcome,
        text=": ".join(words for words in (log.exception_type, log.message) if words),
    )


def _reject(last: Attempt) -> None:
    """The attempt after which an email was given up: not to be tried again."""
    if last.outcome == Outcome.DEFERRED:
        last.outcome = Outcome.REJECTED
