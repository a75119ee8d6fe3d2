import json
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from celery_mailer.contract import database_faults, file_faults


class Command(BaseCommand):
    help = "Render every template in every language with its samples; ends with status 1 if one has a fault."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="print the faults as one JSON list")

    def handle(self, *args: Any, **options: Any) -> None:
        faults = [*file_faults(), *database_faults()]
        if options["json"]:
            self.stdout.write(json.dumps([asdict(fault) for fault in faults]))
        else:
            for fault in faults:
                self.stdout.write(str(fault))
        if faults:
            raise CommandError(f"{len(faults)} faults in templates")
        if not options["json"]:
            self.stdout.write("no faults")
