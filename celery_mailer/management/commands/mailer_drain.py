from typing import Any

from django.core.management.base import CommandError, CommandParser

from celery_mailer.management.base import JsonCommand, counted
from celery_mailer.management.drain import drain
from celery_mailer.management.progress import Progress


class Command(JsonCommand):
    help = "Deliver what is due in this process, without a worker."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("-p", "--processes", type=int, default=1, help="that deliver side by side")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["processes"] < 1:
            raise CommandError("--processes: at least 1")
        with Progress(self.stderr, "emails") as progress:
            counts = drain(options["processes"], tell=progress.advance)
        self.tell(dict(counts), counted(counts) or "nothing was due", options)
