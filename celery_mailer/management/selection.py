"""Which emails a command is about: some by their ids, or all that have something in common."""

from argparse import ArgumentTypeError
from collections.abc import Iterable, Mapping
from getpass import getuser
from typing import Any
from uuid import UUID

from django.core.management.base import CommandError, CommandParser
from django.db.models import QuerySet

from celery_mailer.acts import Act
from celery_mailer.census import LANES, lane_of
from celery_mailer.management.progress import Progress
from celery_mailer.models import Email
from celery_mailer.values import Priority, Status

STEP = 1_000  # emails at a time


def add_arguments(parser: CommandParser, statuses: Iterable[Status]) -> None:
    parser.add_argument("ids", nargs="*", type=_id, metavar="id", help="of an email")
    parser.add_argument("--status", choices=sorted(statuses), help="all that have this status")
    parser.add_argument("--lane", choices=LANES, help="only those of this lane")
    parser.add_argument("--stream", help="only those of this stream")
    parser.add_argument("--batch", type=_id, help="only those of the batch with this id")
    parser.add_argument("--reason", help="only those that are in their status for this reason")
    parser.add_argument("--dry-run", action="store_true", help="only say how many they are")


def _id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is no id") from None


def selected(options: Mapping[str, Any], statuses: Iterable[Status]) -> QuerySet[Email]:
    """The emails in one of ``statuses`` that ``options`` ask for.

    Raises ``CommandError`` if they ask for nothing, or name an id that no email has.
    """
    where = {name: options[name] for name in ("status", "stream", "batch", "reason") if options[name]}
    if options["lane"]:
        where["priority__in"] = [p for p in Priority if lane_of(p) == options["lane"]]
    if bool(options["ids"]) == bool(where):
        raise CommandError("Give the ids of emails, or what they have in common: see --help.")
    emails = Email.objects.filter(status__in=list(statuses), **where).order_by("pk")
    if not options["ids"]:
        return emails
    known = set(Email.objects.filter(pk__in=options["ids"]).values_list("pk", flat=True))
    if unknown := [str(pk) for pk in options["ids"] if pk not in known]:
        raise CommandError(f"No email has the id {', '.join(unknown)}.")
    return emails.filter(pk__in=options["ids"])


def carry_out(act: Act, emails: QuerySet[Email], command: str, progress: Progress) -> tuple[int, list[str]]:
    """Do ``act`` to ``emails``, a slice after the other; returns for how many, and why not for others."""
    done, faults, after = 0, [], None
    while ids := list((emails.filter(pk__gt=after) if after else emails).values_list("pk", flat=True)[:STEP]):
        result = act.do(ids, f"{getuser()}, with {command}")
        done += len(result.emails)
        faults += result.faults
        after = ids[-1]
        progress.advance(len(ids))
    return done, faults
