from typing import Any

from django.core.management.base import CommandError, CommandParser

from celery_mailer.acts import ACTS
from celery_mailer.management import selection
from celery_mailer.management.base import JsonCommand
from celery_mailer.management.progress import Progress

CANCEL = ACTS["cancel"]


class Command(JsonCommand):
    help = "Cancel emails that are still to be sent."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        selection.add_arguments(parser, CANCEL.sources)

    def handle(self, *args: Any, **options: Any) -> None:
        emails = selection.selected(options, CANCEL.sources)
        total = emails.count()
        if options["dry_run"]:
            self.tell({"would_cancel": total}, f"would cancel {total}", options)
            return
        with Progress(self.stderr, "emails", total) as progress:
            done, _faults = selection.carry_out(CANCEL, emails, "mailer_cancel", progress)
        self.tell({"cancelled": done}, f"cancelled: {done}", options)
        if (others := len(set(options["ids"])) - done) > 0:
            raise CommandError(f"{others} of them cannot be cancelled any more.")
