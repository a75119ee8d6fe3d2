"""Suppressions as CSV, to move them between sites and from other software."""

import csv
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TextIO

from celery_mailer import conf
from celery_mailer.addresses import clean
from celery_mailer.exceptions import InvalidEmail
from celery_mailer.models import Suppression
from celery_mailer.models.suppression import Entry, in_force, suppress
from celery_mailer.values import SuppressionReason

COLUMNS = ("address", "stream", "reason", "created_at", "expires_at", "note")
ERASED = "sha256:"  # and the digest, in the place of an address that was erased
STEP = 1_000  # rows that are written together


class InvalidList(ValueError):
    """A line of the file is wrong; the message says which, and never shows the address."""


def export(file: TextIO, now: datetime) -> int:
    """Write what is in force at ``now`` to ``file``; returns how many rows."""
    writer = csv.writer(file)
    writer.writerow(COLUMNS)
    number = 0
    for row in Suppression.objects.filter(in_force(now)).order_by("pk").iterator(STEP):
        expires_at = row.expires_at.isoformat() if row.expires_at else ""
        address = row.address or f"{ERASED}{row.digest}"
        writer.writerow([address, row.stream, row.reason, row.created_at.isoformat(), expires_at, row.note])
        number += 1
    return number


def load(file: TextIO) -> int:
    """Suppress what ``file`` lists; returns how many rows are new.

    The first line names the columns, of which only ``address`` has to be there. Raises ``InvalidList``,
    before anything is written.
    """
    entries = _entries(file)
    return sum(suppress(step) for step in _steps(entries))


def _entries(file: TextIO) -> list[Entry]:
    reader = csv.DictReader(file)
    try:
        if "address" not in (reader.fieldnames or ()):
            raise InvalidList("line 1: there is no column 'address'")
        return [_entry(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise InvalidList(f"line {reader.reader.line_num}: {error}") from error
    except UnicodeDecodeError as error:
        # Files are decoded in blocks: what was read ends where this one begins.
        line = reader.reader.line_num + len(error.object[: error.start + 1].splitlines())
        raise InvalidList(f"line {line}: is not written in {error.encoding}") from error


def _steps(entries: list[Entry]) -> Iterator[Iterable[Entry]]:
    return (entries[at : at + STEP] for at in range(0, len(entries), STEP))


def _entry(line: int, row: Mapping[str, str | None]) -> Entry:
    values = {name: (row.get(name) or "").strip() for name in COLUMNS}
    address, digest = values["address"], ""
    try:
        if address.startswith(ERASED):
            address, digest = "", _digest(address.removeprefix(ERASED))
        else:
            clean("address", address)
        reason = SuppressionReason(values["reason"] or SuppressionReason.IMPORTED)
        expires_at = _time(values["expires_at"])
    except InvalidEmail as error:
        raise InvalidList(f"line {line}: the address {error.fault}") from error
    except ValueError as error:
        raise InvalidList(f"line {line}: {error}") from error
    if values["stream"] and values["stream"] not in conf.get().streams:
        raise InvalidList(f"line {line}: there is no stream {values['stream']!r}")
    if reason == SuppressionReason.UNSUBSCRIBE and not values["stream"]:  # it would stop all mail
        raise InvalidList(f"line {line}: the reason {reason.value!r} needs a stream, and the column is empty")
    return Entry(address, reason, values["stream"], expires_at, None, values["note"][:255], digest)


def _digest(text: str) -> str:
    if len(text) != 64 or len(bytes.fromhex(text)) != 32:
        raise ValueError("a SHA-256 has 64 digits")
    return text.lower()


def _time(text: str) -> datetime | None:
    """ISO 8601; without an offset, UTC. Raises ``ValueError``."""
    if not text:
        return None
    at = datetime.fromisoformat(text)
    return at if at.tzinfo else at.replace(tzinfo=UTC)
