from typing import Any
from uuid import UUID

from django.core.management.base import CommandError, CommandParser

from celery_mailer.batches import resume_batch
from celery_mailer.management import subject
from celery_mailer.management.base import JsonCommand
from celery_mailer.models import Pause
from celery_mailer.models.pause import resume


class Command(JsonCommand):
    help = "End a pause; a provider that was left alone because it failed is tried again at once."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        subject.add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        kind, name = subject.meant(options)
        ended = resume_batch(UUID(name)) if kind == Pause.Subject.BATCH else resume(kind, name)
        if not ended and Pause.objects.filter(kind=kind, name=name).exists():
            raise CommandError("This batch was cancelled.")  # by that pause
        self.tell({"resumed": ended}, "resumed" if ended else f"{kind} {name} was not paused", options)
