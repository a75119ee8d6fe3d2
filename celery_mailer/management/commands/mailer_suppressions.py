import sys
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import transaction
from django.utils import timezone

from celery_mailer.management.base import JsonCommand
from celery_mailer.tracking.lists import InvalidList, export, load


class Command(JsonCommand):
    help = "Import or export suppressed addresses as CSV: address, stream, reason, expires_at, note."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("act", choices=("import", "export"))
        parser.add_argument("file", nargs="?", type=Path, help="left out: standard input, standard output")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["act"] == "export":
            self.export(options["file"], options)
        else:
            number = self.load(options["file"])
            self.tell({"imported": number}, f"{number} new suppressions", options)

    def export(self, path: Path | None, options: dict[str, Any]) -> None:
        if path is None:
            if options["json"]:
                raise CommandError("--json: give a file, for the list itself is CSV")
            export(self.stdout, timezone.now())  # type: ignore[arg-type]
            return
        with path.open("w", newline="", encoding="utf-8") as file:
            number = export(file, timezone.now())
        self.tell({"exported": number}, f"{number} suppressions", options)

    def load(self, path: Path | None) -> int:
        try:
            with transaction.atomic():
                if path is None:
                    if isinstance(sys.stdin, TextIOWrapper):
                        sys.stdin.reconfigure(encoding="utf-8-sig", newline="")  # as a file is read
                    return load(sys.stdin)
                with path.open(newline="", encoding="utf-8-sig") as file:
                    return load(file)
        except (InvalidList, OSError) as error:
            raise CommandError(str(error)) from error
