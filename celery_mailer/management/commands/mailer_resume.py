from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import CommandError, CommandParser

from celery_mailer.management.base import JsonCommand
from celery_mailer.models import Pause
from celery_mailer.models.pause import resume


class Command(JsonCommand):
    help = "End a pause; a provider that was left alone because it failed is tried again at once."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("kind", choices=Pause.Subject.values)
        parser.add_argument("name", help="an alias, a priority, a stream, or the id of a batch")

    def handle(self, *args: Any, **options: Any) -> None:
        kind, name = options["kind"], options["name"]
        if not Pause.objects.filter(kind=kind, name=name).exists():
            # One that is no longer configured may still be paused; another that is not is a slip.
            try:
                Pause(kind=kind, name=name).clean()
            except ValidationError as error:
                raise CommandError("; ".join(error.messages)) from None
        ended = resume(kind, name)
        self.tell({"resumed": ended}, "resumed" if ended else f"{kind} {name} was not paused", options)
