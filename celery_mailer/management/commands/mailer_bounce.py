import sys
from mailbox import NoSuchMailboxError
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import Error as DatabaseFailure

from celery_mailer import conf, imap_url
from celery_mailer.management.base import JsonCommand, counted
from celery_mailer.tracking.imap import Unusable, take_imap
from celery_mailer.tracking.mailboxes import take_if_readable, take_maildir, take_mbox

UNREADABLE = 65  # EX_DATAERR of sysexits.h: a mail server does not call again
TRY_AGAIN = 75  # EX_TEMPFAIL: a mail server keeps the message and calls again


class Command(JsonCommand):
    help = "Read bounces, complaints, mail that unsubscribes: one from standard input, or those in a mailbox."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        source = parser.add_mutually_exclusive_group()
        source.add_argument("--maildir", type=Path, help="a Maildir, whose new messages are read")
        source.add_argument("--mbox", type=Path, help="an mbox file, whose unread messages are read")
        source.add_argument(
            "--imap",
            action="store_true",
            help="that of BOUNCES.IMAP_URL, whose unseen messages are read",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            counts = self.read(options)
        except NoSuchMailboxError as error:
            raise CommandError(f"there is no mailbox at {error}") from error
        except Unusable as error:
            raise CommandError(f"the mailbox cannot be used: {error}", returncode=TRY_AGAIN) from error
        except DatabaseFailure as error:
            raise CommandError(f"the database cannot be used: {error}", returncode=TRY_AGAIN) from error
        # Nothing is printed unasked to a mail server that pipes: it would go back to the sender.
        piped = not (options["maildir"] or options["mbox"] or options["imap"])
        if options["json"] or options["verbosity"] > 1 or not piped:
            self.tell(counts, counted(counts), options)

    def read(self, options: dict[str, Any]) -> dict[str, int]:
        if options["maildir"]:
            return take_maildir(options["maildir"])
        if options["mbox"]:
            return take_mbox(options["mbox"])
        if options["imap"]:
            return take_imap(self.mailbox())
        events = take_if_readable(sys.stdin.buffer.read())
        if events is None:
            raise CommandError("the message cannot be read", returncode=UNREADABLE)
        return {"messages": 1, "events": events}

    def mailbox(self) -> imap_url.Mailbox:
        url = conf.get().bounces.imap_url
        if url is None:
            raise CommandError("CELERY_MAILER['BOUNCES']['IMAP_URL'] names no mailbox")
        return imap_url.parse(url)
