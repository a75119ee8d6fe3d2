import sys
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction
from django.utils import timezone

from celery_mailer.tracking.lists import InvalidList, export, load


class Command(BaseCommand):
    help = "Import or export suppressed addresses as CSV: address, stream, reason, expires_at, note."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("act", choices=("import", "export"))
        parser.add_argument("file", nargs="?", type=Path, help="left out: standard input, standard output")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["act"] == "export":
            self.export(options["file"])
        else:
            self.load(options["file"])

    def export(self, path: Path | None) -> None:
        if path is None:
            export(self.stdout, timezone.now())  # type: ignore[arg-type]
            return
        with path.open("w", newline="", encoding="utf-8") as file:
            self.stdout.write(f"{export(file, timezone.now())} suppressions")

    def load(self, path: Path | None) -> None:
        try:
            with transaction.atomic():
                if path is None:
                    number = load(sys.stdin)
                else:
                    with path.open(newline="", encoding="utf-8-sig") as file:
                        number = load(file)
        except (InvalidList, OSError) as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"{number} new suppressions")
