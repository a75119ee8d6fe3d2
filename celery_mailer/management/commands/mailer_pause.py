from argparse import ArgumentTypeError
from datetime import datetime, timedelta
from getpass import getuser
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import CommandError, CommandParser
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from celery_mailer.management import subject
from celery_mailer.management.base import JsonCommand, from_now
from celery_mailer.models.pause import pause


class Command(JsonCommand):
    help = "Stop a provider, a lane, a stream or a batch for a while; its mail waits and loses no attempt."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        subject.add_arguments(parser)
        parser.add_argument("--reason", required=True, help="for whoever wonders why nothing is sent")
        end = parser.add_mutually_exclusive_group()
        end.add_argument("--until", type=_time, help="2026-11-22T18:00, in the project's time zone")
        end.add_argument("--minutes", type=int, help="for so long; else until it is resumed")

    def handle(self, *args: Any, **options: Any) -> None:
        until = options["until"]
        if options["minutes"] is not None:
            fault = f"--minutes: {options['minutes']} is no number of minutes from now"
            until = from_now(options["minutes"], timedelta(minutes=1), fault)
        if until is not None and until <= timezone.now():
            raise CommandError("The end of the pause has passed already.")
        kind, name = subject.meant(options)
        try:
            row = pause(kind, name, options["reason"], until=until, by=getuser()[:150])
        except ValidationError as error:
            raise CommandError("; ".join(error.messages)) from None
        words = f"paused {row}" + (f", until {timezone.localtime(until):%Y-%m-%d %H:%M %Z}" if until else "")
        result = {"kind": row.kind, "name": row.name, "reason": row.reason, "until": until}
        self.tell(result, words, options)


def _time(text: str) -> datetime:
    try:
        parsed = parse_datetime(text)
    except ValueError:
        parsed = None
    if parsed is None:
        raise ArgumentTypeError(f"{text!r} is no time as 2026-11-22T18:00")
    return timezone.make_aware(parsed) if timezone.is_naive(parsed) else parsed
