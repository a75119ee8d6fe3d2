import sys
from mailbox import NoSuchMailboxError
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error as DatabaseFailure

from celery_mailer.tracking.mailboxes import take, take_maildir, take_mbox

TRY_AGAIN = 75  # EX_TEMPFAIL of sysexits.h: a mail server keeps the message and calls again


class Command(BaseCommand):
    help = "Read bounces, complaints, mail that unsubscribes: one from standard input, or those in a mailbox."

    def add_arguments(self, parser: CommandParser) -> None:
        source = parser.add_mutually_exclusive_group()
        source.add_argument("--maildir", type=Path, help="a Maildir, whose new messages are read")
        source.add_argument("--mbox", type=Path, help="an mbox file, whose unread messages are read")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            counts = self.read(options["maildir"], options["mbox"])
        except NoSuchMailboxError as error:
            raise CommandError(f"there is no mailbox at {error}") from error
        except DatabaseFailure as error:
            raise CommandError(f"the database cannot be used: {error}", returncode=TRY_AGAIN) from error
        if options["verbosity"] > 1 or options["maildir"] or options["mbox"]:
            self.stdout.write(", ".join(f"{name}: {number}" for name, number in counts.items()))

    def read(self, maildir: Path | None, mbox: Path | None) -> dict[str, int]:
        if maildir:
            return take_maildir(maildir)
        if mbox:
            return take_mbox(mbox)
        # Nothing is printed to a mail server that pipes: it would go back to the sender.
        return {"messages": 1, "events": take(sys.stdin.buffer.read())}
