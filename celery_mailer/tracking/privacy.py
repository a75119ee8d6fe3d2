"""What is stored of one person: handed out, and forgotten (GDPR, articles 15 and 17).

Erasing takes two steps. Of the emails to the person what they said is dropped, and what waits is cancelled.
Then every text of every table, and of the admin's log, is looked through for the address, as mail to others
may name it too, and a pseudonym takes its place; so a table that is added later is not forgotten. The second
step reads whole tables: it is for a person's request, not for every day. What stays is the digest in the
suppressions, lest the person be written to again.
"""

import json
import re
import secrets
from collections.abc import Callable, Collection, Iterator
from html import escape
from typing import Any
from urllib.parse import quote
from uuid import UUID

from django.apps import apps
from django.db import models, transaction
from django.db.models import Q
from django.db.models.functions import Cast

from celery_mailer.models import (
    Attempt,
    CapturedMessage,
    Content,
    Email,
    Event,
    FurtherRecipient,
    Suppression,
)
from celery_mailer.models.recipient import addressed_to, searchable
from celery_mailer.models.suppression import digest_of, forget_address
from celery_mailer.models.transitions import CANCEL, drop_content, move
from celery_mailer.values import FINAL, Status

NOWHERE = "erased.invalid"  # RFC 2606: a domain that will never be
STEP = 100
ERASED = "erased"  # the reason of cancelled emails


def erase_recipient(address: str) -> dict[str, int]:
    """Forget the person with ``address``, in any spelling of it; returns how many rows that changed.

    ``in_flight`` emails are being sent at this moment, and untouched: erase again when they are done. Files
    that no other email has are deleted by the next cleanups. May be repeated.
    """
    person = _Person(address)
    counts = {"emails": 0, "cancelled": 0, "captured": 0}
    while emails := list(_theirs(person).exclude(status=Status.SENDING)[:STEP]):
        with transaction.atomic():
            erased, cancelled = _erase_emails(emails, person)
        counts["emails"] += erased
        counts["cancelled"] += cancelled
    in_flight = list(_theirs(person).values_list("pk", flat=True))
    counts["captured"] = _delete_captured(person)
    counts["events"] = Event.objects.filter(recipient=person.address).update(text="", url="")
    counts["suppressions"] = forget_address(address)
    counts["mentions"] = sum(_sweep(rows, person, in_flight) for rows in _tables())
    counts["in_flight"] = len(in_flight)
    return counts


# Not within another address: neither after a part of its local part nor before one of its domain. Punctuation
# alone is none, though RFC 5321 would have it: rather somebody else's odd address than a trace of this one.
_ESCAPED = r"(?<=%[0-7][0-9a-f])(?<!%2[bde])(?<!%5f)|(?<=\\[nrt])|(?<=\\u00[0-7][0-9a-f])"  # %3C, \n, \u003c
_NOT_WITHIN = rf"(?:(?<![^\W_])(?<!\w[._+-])|{_ESCAPED})"
_NOT_BEFORE = r"(?![.-]?[^\W_])"
_PLAIN = "[a-z0-9._-]"  # what URLs, HTML and JSON write as it is
_AT = ("@", "%40", "&#64;", "&#x40;", r"\u0040", r"\\u0040")  # the last: within JSON


def _spelled(char: str) -> str:
    """A pattern for ``char`` as plain text, URLs, HTML and JSON write it."""
    if re.match(_PLAIN, char):
        return re.escape(char)
    # The escapes of a capital are others than those of its small letter.
    ways = [(c, quote(c, safe=""), escape(c), json.dumps(c)[1:-1]) for c in (char, char.upper())]
    numbers = (f"&#{ord(char)};", f"&#x{ord(char):x};", f"\\u{ord(char):04x}")
    return f"(?:{'|'.join(map(re.escape, sorted({*ways[0], *ways[1], *numbers})))})"


class _Person:
    """How an address may be written, and what takes its place."""

    def __init__(self, address: str) -> None:
        self.address = searchable(address)
        self.pseudonym = f"{secrets.token_hex(6)}@{NOWHERE}"
        local, _, domain = self.address.rpartition("@")
        addresses = sorted(f"{local}@{d}" for d in {domain, _decoded(domain)})
        # Of these, only the "@" may be written in other ways: so every database can look for them, also
        # SQLite, which knows no capitals beyond ASCII, and however it stores JSON.
        around = re.findall(rf"({_PLAIN}*)@({_PLAIN}*)", " ".join(addresses))
        self.needles = [before + at + after for before, after in around for at in _AT]
        spelled = "|".join("".join(map(_spelled, address)) for address in addresses)
        self.pattern = re.compile(f"{_NOT_WITHIN}(?:{spelled}){_NOT_BEFORE}", re.IGNORECASE)

    def mentioned_in(self, column: str) -> Q:
        """A condition that every row with the address meets; and a few others, which ``hide`` tells apart."""
        return Q(*[(f"{column}__icontains", needle) for needle in self.needles], _connector=Q.OR)

    def hide(self, value: Any) -> Any:
        """``value``, as a column holds it, with the pseudonym for the address."""
        if isinstance(value, str):
            return self.pattern.sub(self.pseudonym, value)
        if isinstance(value, list):
            return [self.hide(item) for item in value]
        if isinstance(value, dict):
            return {self.hide(key): self.hide(item) for key, item in value.items()}
        return value

    def is_(self, given: str) -> bool:
        return searchable(given) == self.address


def _decoded(domain: str) -> str:
    try:
        return domain.encode("ascii").decode("idna")
    except UnicodeError:
        return domain


def _theirs(person: _Person) -> "models.QuerySet[Email]":
    return Email.objects.filter(addressed_to(person.address)).order_by("pk")


def _erase_emails(emails: Collection[Email], person: _Person) -> tuple[int, int]:
    """Forget that ``emails`` were to ``person``; returns of how many, and how many are not sent any more."""
    alone = [e.pk for e in emails if all(map(person.is_, e.recipients))]
    cancelled = move(alone, CANCEL, reason=ERASED)
    # A worker may have claimed some since they were read. What is being sent is left alone, now and below.
    left_alone = Q(status=Status.SENDING)
    current = list(Email.objects.filter(pk__in=[e.pk for e in emails]).exclude(left_alone))
    _drop([e.pk for e in current if e.status in FINAL])
    erased = []
    for email in current:
        final = email.status in FINAL
        if not final and all(map(person.is_, email.recipients)):
            continue  # a worker had it in the meantime, and gave it back: the next step cancels it
        # What may yet go to others goes without the person; of what is done, it stays that there was one.
        pseudonym = [person.pseudonym] if final else []
        lists = {name: _without(getattr(email, name), person, pseudonym) for name in ("to", "cc", "bcc")}
        first = searchable(next((r for part in lists.values() for r in part), ""))
        if Email.objects.filter(pk=email.pk).exclude(left_alone).update(**lists, address=first):
            erased.append(email.pk)
    further = FurtherRecipient.objects.filter(email_id__in=erased, address=person.address)
    further.update(address=person.pseudonym)
    return len(erased), len(cancelled)


def _without(given: list[str], person: _Person, pseudonym: list[str]) -> list[str]:
    return [kept for address in given for kept in (pseudonym if person.is_(address) else [address])]


def _drop(ids: Collection[UUID]) -> None:
    """Forget what emails said, all that their caller added, and what servers said of the recipients."""
    drop_content(ids)
    contents = Content.objects.filter(email_id__in=ids)
    contents.update(reply_to=[], tags=[], metadata={}, shape={}, fingerprint="")
    Attempt.objects.filter(email_id__in=ids).update(text="", recipients={})
    CapturedMessage.objects.filter(email_id__in=ids).delete()


def _delete_captured(person: _Person) -> int:
    """Delete what was kept in the place of sending: a message is encoded, and cannot be searched."""
    rows = CapturedMessage.objects.annotate(found_in=Cast("recipients", models.TextField()))
    found = rows.filter(person.mentioned_in("found_in")).values_list("pk", "recipients")
    mine = [pk for pk, recipients in found if any(map(person.is_, recipients))]
    return CapturedMessage.objects.filter(pk__in=mine).delete()[0]


def _tables() -> Iterator["models.QuerySet[Any]"]:
    """All rows of ours, and what the admin has logged about them."""
    for model in apps.get_app_config("celery_mailer").get_models():
        yield model._default_manager.all()
    if apps.is_installed("django.contrib.admin"):
        from django.contrib.admin.models import LogEntry

        yield LogEntry.objects.filter(content_type__app_label="celery_mailer")


def text_columns(model: type[models.Model]) -> list[str]:
    """The columns of ``model`` that may hold an address."""
    fields = (f for f in model._meta.concrete_fields if not f.primary_key and not f.choices)
    return [
        f.attname for f in fields if isinstance(f, models.CharField | models.TextField | models.JSONField)
    ]


def _sweep(rows: "models.QuerySet[Any]", person: _Person, in_flight: Collection[UUID]) -> int:
    """Put the pseudonym wherever one of ``rows`` has the address; returns in how many it was."""
    model = rows.model
    columns = text_columns(model)
    rows = rows.annotate(**{f"in_{column}": Cast(column, models.TextField()) for column in columns})
    found = Q()
    for column in columns:
        found |= person.mentioned_in(f"in_{column}")
    if not columns:
        return 0
    names = {field.attname for field in model._meta.concrete_fields}
    owner = "pk" if model is Email else "email_id" if "email_id" in names else None
    if in_flight and owner is not None:
        rows = rows.exclude(**{f"{owner}__in": in_flight})
    changed = 0
    for row in list(rows.filter(found).values("pk", *columns)):
        pk = row.pop("pk")
        hidden = {column: _cut(person.hide(value), model, column) for column, value in row.items()}
        changes = {column: value for column, value in hidden.items() if value != row[column]}
        if changes:
            changed += model._default_manager.filter(pk=pk).update(**changes)
    return changed


def _cut(value: Any, model: type[models.Model], column: str) -> Any:
    """The pseudonym may be longer than the address; text as long as ``column`` takes."""
    field = model._meta.get_field(column)
    return value[: field.max_length] if isinstance(field, models.CharField) and value else value


def export_recipient(address: str) -> dict[str, Any]:
    """What is stored of the person with ``address``, as JSON can hold it; nobody else's address is in it."""
    person = _Person(address)
    events = Event.objects.filter(recipient=person.address).order_by("at")
    suppressions = Suppression.objects.filter(digest=digest_of(address)).order_by("created_at")
    return {
        "address": person.address,
        "emails": [_exported(email, person) for email in _every(person)],
        "events": [_values(e, "email_id", "kind", "at", "url", "text", "machine") for e in events],
        "suppressions": [
            _values(s, "stream", "reason", "created_at", "expires_at", "active") for s in suppressions
        ],
    }


def _every(person: _Person) -> Iterator[Email]:
    further = Q(pk__in=FurtherRecipient.objects.filter(address=person.address).values("email_id"))
    first = Email.objects.filter(address=person.address)
    rows = first | Email.objects.filter(further)
    yield from rows.select_related("content", "rendered").order_by("pk").iterator(chunk_size=STEP)


def _exported(email: Email, person: _Person) -> dict[str, Any]:
    content = email.content
    words = getattr(email, "rendered", content)
    times = ("id", "created_at", "scheduled_at", "finished_at", "status", "reason", "stream")
    attempts = email.attempts.order_by("pk")
    return {
        **_values(email, *times),
        "roles": [name for name in ("to", "cc", "bcc") if any(map(person.is_, getattr(email, name)))],
        **_values(content, "from_email", "context", "tags", "metadata"),
        **_values(words, "subject", "text", "html"),
        "attachments": list(email.enclosures.order_by("position").values_list("name", flat=True)),
        "attempts": [_values(a, "finished_at", "provider", "outcome", "code", "text") for a in attempts],
    }


def _values(row: models.Model, *names: str) -> dict[str, Any]:
    plain: Callable[[Any], Any] = lambda value: value if _is_json(value) else str(value)  # noqa: E731
    return {name: plain(getattr(row, name)) for name in names}


def _is_json(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | str | list | dict)
