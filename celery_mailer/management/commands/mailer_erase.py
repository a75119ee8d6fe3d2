import json
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from celery_mailer.tracking.privacy import erase_recipient


class Command(BaseCommand):
    help = "Forget what is stored of the person with an address; it stays suppressed by its digest."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("address")
        parser.add_argument("--json", action="store_true", help="print the counts as one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        counts = erase_recipient(options["address"])
        text = json.dumps(counts) if options["json"] else ", ".join(f"{k}: {v}" for k, v in counts.items())
        self.stdout.write(text)
        if counts["in_flight"]:
            self.stderr.write("Some emails are being sent at this moment: run this again in a few minutes.")
