from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from celery_mailer.management.old import days_ago, delete_in_steps
from celery_mailer.management.progress import Progress
from celery_mailer.models import Email
from celery_mailer.models.attachment import delete_unused
from celery_mailer.periodic import KEEP_UNUSED
from celery_mailer.values import FINAL


class Command(BaseCommand):
    """django-post_office's command, with its arguments. What is still to be sent stays, however old."""

    help = "Delete what was queued long ago and is final."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("-d", "--days", type=int, default=90, help="how long ago, 90 if not given")
        parser.add_argument(
            "-da", "--delete-attachments", action="store_true", help="also files that no email has any more"
        )
        parser.add_argument("-b", "--batch-size", type=int, default=1000, help="how many at a time")

    def handle(self, *args: Any, **options: Any) -> None:
        cutoff, step = days_ago(options["days"]), options["batch_size"]
        if step < 1:
            raise CommandError("--batch-size: at least 1")
        old = Email.objects.filter(status__in=FINAL, created_at__lt=cutoff).order_by("created_at")
        with Progress(self.stderr, "emails deleted", old.count()) as progress:
            emails = delete_in_steps(old, step, progress.advance)
        files = _delete_files(step) if options["delete_attachments"] else 0
        self.stdout.write(f"Deleted {emails} mails created before {cutoff} and {files} attachments.")


def _delete_files(step: int) -> int:
    deleted, before = 0, timezone.now() - KEEP_UNUSED
    while done := delete_unused(before, step):
        deleted += done
    return deleted
