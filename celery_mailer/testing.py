"""What a project's tests need: chains run in the test's process, failures on demand, emails to look at.

Everything here works inside a ``TestCase`` and outside, with unittest and with pytest, where the fixture
``mailer`` is this module. Mail is sent as Django's test runner has it: into ``django.core.mail.outbox``.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from difflib import unified_diff
from pathlib import Path
from posixpath import splitext
from typing import Any
from unittest.mock import patch
from uuid import UUID

from django.core.mail import EmailMessage
from django.db import router
from django.db.models import Q
from django.test import TestCase
from django.utils import timezone
from django.utils.translation import get_language

from celery_mailer import chain, moment
from celery_mailer.deliver import providers
from celery_mailer.deliver.breaker import breakers
from celery_mailer.deliver.pauses import pauses
from celery_mailer.deliver.providers import Provider
from celery_mailer.deliver.providers.outcomes import broken_line, smtp_reply
from celery_mailer.models import Content, Email, EmailTemplate
from celery_mailer.models.recipient import addressed_to
from celery_mailer.models.transitions import WAKE, move
from celery_mailer.render.templates import render
from celery_mailer.sources import Finder
from celery_mailer.values import Kind, Phase, Reply, Result, everyone

__all__ = [
    "assert_email", "assert_no_email", "assert_snapshot", "emails", "forget", "provider_fails", "rendered",
    "run_chains", "run_due",
]  # fmt: skip


@contextmanager
def run_chains() -> Iterator[None]:
    """Send what the block queues, in this process: neither a broker nor a worker is asked.

    In a test that is one transaction, as in ``TestCase``, what waits for the commit runs when the block ends:
    every ``on_commit`` callback of the block, the project's own too, as in
    ``TestCase.captureOnCommitCallbacks(execute=True)``. In other tests each commit sends at once.
    """
    forget()
    using = router.db_for_write(Email)
    with ExitStack() as until_it_ends:
        for door in (chain, moment):
            until_it_ends.enter_context(patch.object(door, "start", _run))
        _blocks.append(until_it_ends)
        try:
            with TestCase.captureOnCommitCallbacks(using=using, execute=True):
                yield
        finally:
            _blocks.pop()


_blocks: list[ExitStack] = []  # of ``run_chains`` that are open


def _run(ids: Sequence[UUID], *rest: Any, **more: Any) -> bool:
    chain.run(ids)
    return True


def run_due(at: datetime | None = None) -> int:
    """Send what is due, as beat's dispatcher has it sent: retries, scheduled mail; returns how many were due.

    With ``at``, that is what Django's ``timezone.now`` says meanwhile: what has expired by then expires.
    """
    now = at or timezone.now()
    due = Email.objects.filter(due_at__lte=now).order_by("due_at", "pk")
    ids = list(due.values_list("pk", flat=True))
    with patch.object(timezone, "now", lambda: now), run_chains():
        chain.run(move(ids, WAKE, due_at=now))
    return len(ids)


@contextmanager
def provider_fails(phase: str, code: int | None = None, *, alias: str | None = None) -> Iterator[None]:
    """Have every provider, or the one named ``alias``, fail in ``phase`` of an SMTP session (RFC 5321).

    Phases are ``connect``, ``login``, ``mail``, ``rcpt``, ``data``, ``body`` and ``dot``. ``code`` is the
    server's answer there, for instance 550 to ``rcpt``; without one, the line breaks: before the final dot
    the email is then deferred, after it (``dot``) uncertain. Inside a block of ``run_chains``, it holds until
    that one ends. Raises ``ValueError`` for another phase.
    """
    forget()
    at, get = Phase(phase), providers.get
    reply = broken_line(at, "the line broke") if code is None else smtp_reply(at, code, "told to fail")

    def failing(name: str) -> Provider:
        return _Failing(name, reply) if alias in (None, name) else get(name)

    with ExitStack() as failure:
        failure.callback(forget)  # the breaker has counted
        failure.enter_context(patch.object(providers, "get", failing))
        yield
        if _blocks:  # what was queued in this block is sent when that one ends
            _blocks[-1].push(failure.pop_all())


class _Failing:
    """A provider whose every hand-over ends in the same reply."""

    def __init__(self, alias: str, reply: Reply) -> None:
        self.alias = alias
        self._reply = reply

    def open(self, timeout: float) -> Reply | None:
        return self._reply if self._reply.phase in (Phase.CONNECT, Phase.LOGIN) else None

    def send(self, message: EmailMessage, recipients: list[str], timeout: float) -> Result:
        usable = self._reply.kind not in (Kind.CONNECTION, Kind.PROVIDER)
        return everyone(recipients, self._reply, usable=usable)

    def close(self) -> None:
        """Nothing is open."""

    def abandon(self) -> None:
        """Nothing is open."""


def forget() -> None:
    """Forget what this process has read of breakers and pauses: the database of another test said it."""
    breakers.forget()
    pauses.forget()


def emails(
    *,
    to: str | None = None,
    template: str | EmailTemplate | None = None,
    subject: str | None = None,
    **fields: Any,
) -> list[Email]:
    """The emails to which all of that applies, in the order in which they were made.

    ``to`` is a recipient in any spelling, also one in cc or bcc; ``template`` a name as it was given to the
    call, and ``subject`` as it was given or as it was rendered. ``language`` and ``tags`` are the content's,
    every other field the email's: ``stream``, ``status``, ``reason``, ``priority``, ``provider``…
    """
    of_content = {f"content__{n}": fields.pop(n) for n in ("language", "tags") if n in fields}
    found = Email.objects.filter(**fields, **of_content).select_related("content").order_by("pk")
    if subject is not None:
        found = found.filter(Q(content__subject=subject) | Q(rendered__subject=subject))
    if to is not None:
        found = found.filter(addressed_to(to))
    name = template.name if isinstance(template, EmailTemplate) else template
    return [email for email in found if name is None or _is_named(email.content.template, name)]


def _is_named(stored: str, name: str) -> bool:
    """Whether ``stored`` is what ``name`` was found as: in TEMPLATE_DIR, perhaps with an ending."""
    return any(known == name or known.endswith(f"/{name}") for known in (stored, splitext(stored)[0]))


def assert_email(**expected: Any) -> Email:
    """The one email to which all of ``expected`` (see ``emails``) applies."""
    found = emails(**expected)
    if len(found) != 1:
        raise AssertionError(f"{len(found)} emails, not one, with {expected}\n{_listed()}")
    return found[0]


def assert_no_email(**expected: Any) -> None:
    """No email is there to which all of ``expected`` (see ``emails``) applies."""
    if found := emails(**expected):
        raise AssertionError(f"{len(found)} emails with {expected}\n{_listed()}")


def _listed() -> str:
    lines = [
        f"  {', '.join(email.recipients)}: {email.content.subject or email.content.template!r},"
        f" {email.content.language or '-'}, {email.stream}, {email.status} {email.reason}"
        for email in emails()
    ]
    return "\n".join(["There are:", *lines]) if lines else "There are none."


def rendered(
    template: str | EmailTemplate, context: Mapping[str, Any] | None = None, language: str | None = None
) -> str:
    """What an email from that template would say, in words to compare: subject, text and HTML.

    Raises what the door raises for a template that does not exist, and ``RenderError``.
    """
    code = language if language is not None else get_language() or ""
    source = Finder().find(template, code, asked=language is not None)
    message, _ = render(Content(language=source.language), source, context or {})
    return f"Subject: {message.subject}\n\n--- text\n{message.text}\n\n--- html\n{message.html}\n"


def assert_snapshot(text: str, path: Path, *, update: bool = False) -> None:
    """``text`` is what the file at ``path`` holds; with ``update`` it is written there."""
    if update:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    if not path.exists():
        raise AssertionError(f"There is no snapshot {path} yet. It would be:\n\n{text}")
    kept, now = path.read_text(encoding="utf-8").splitlines(), text.splitlines()
    if kept != now:
        difference = "\n".join(unified_diff(kept, now, "snapshot", "now", lineterm=""))
        raise AssertionError(f"{path} says something else:\n\n{difference}")
