import json
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from celery_mailer.tracking.privacy import export_recipient


class Command(BaseCommand):
    help = "Print what is stored of the person with an address, as JSON."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("address")

    def handle(self, *args: Any, **options: Any) -> None:
        self.stdout.write(json.dumps(export_recipient(options["address"]), indent=2, ensure_ascii=False))
