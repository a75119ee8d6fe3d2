from collections import Counter
from typing import Any

from django.core.management.base import CommandParser

from celery_mailer import periodic
from celery_mailer.management.base import JsonCommand, counted
from celery_mailer.management.old import days_ago, delete_in_steps
from celery_mailer.management.progress import Progress
from celery_mailer.models import Email


class Command(JsonCommand):
    help = "Forget contents and delete emails by their retention, until nothing is left to do."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "-d",
            "--days",
            type=int,
            help="also delete emails that are final for longer, in the place of RETENTION",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        counts: Counter[str] = Counter()
        with Progress(self.stderr, "rows and files deleted") as progress:
            if options["days"] is not None:
                old = Email.objects.filter(finished_at__lt=days_ago(options["days"])).order_by("finished_at")
                counts["emails_deleted"] = delete_in_steps(old, periodic.STEP, progress.advance)
            full = True
            while full:  # one run of the job is bounded
                done = periodic.cleanup()
                counts.update(done)
                progress.advance(sum(done.values()))
                full = any(number >= periodic.STEP * periodic.STEPS for number in done.values())
        self.tell(counts, counted(counts), options)
