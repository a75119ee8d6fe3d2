"""What is paused and resumed: a provider, a lane, a stream or a batch."""

from collections.abc import Mapping
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import CommandError, CommandParser

from celery_mailer.models import Pause


def add_arguments(parser: CommandParser) -> None:
    parser.add_argument("kind", choices=Pause.Subject.values)
    parser.add_argument("name", help="an alias, a priority, a stream, or the id of a batch")


def meant(options: Mapping[str, Any]) -> tuple[str, str]:
    """The kind and the name in ``options``, the name as pauses have it.

    Raises ``CommandError`` for what does not exist.
    """
    kind = options["kind"]
    subject = Pause(kind=kind, name=options["name"])
    try:
        subject.clean()
    except ValidationError as error:
        # What is gone, or no longer configured, may still be paused; another that is not is a slip.
        if not Pause.objects.filter(kind=kind, name=subject.name).exists():
            raise CommandError("; ".join(error.messages)) from None
    return kind, subject.name
