"""A periodic job as a management command."""

import json
from collections.abc import Callable
from typing import Any

from django.core.management.base import BaseCommand, CommandParser


class JobCommand(BaseCommand):
    """Runs ``job`` once in this process and prints its counts."""

    job: Callable[[], dict[str, int]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.help = (self.job.__doc__ or "").partition("\n")[0]

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="print the counts as one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        counts = self.job()
        text = json.dumps(counts) if options["json"] else ", ".join(f"{k}: {v}" for k, v in counts.items())
        self.stdout.write(text)
