"""What the commands share: ``--json``, how counts are written, and times that are given as numbers."""

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone


class JsonCommand(BaseCommand):
    """A command that can also answer with one JSON document, and nothing else, on its standard output."""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="print the result as one JSON document")

    def tell(self, result: Any, words: str, options: Mapping[str, Any]) -> None:
        """Print ``result``, or what it says in ``words``."""
        # ``default``: times and ids, as text.
        self.stdout.write(json.dumps(result, default=str) if options["json"] else words)


def counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{what}: {count}" for what, count in counts.items())


def from_now(number: int, unit: timedelta, fault: str) -> datetime:
    """The time ``number`` units from now; a negative number is one in the past.

    Raises ``CommandError`` with ``fault`` for a time that no calendar has.
    """
    try:
        return timezone.now() + number * unit
    except OverflowError:
        raise CommandError(fault) from None
