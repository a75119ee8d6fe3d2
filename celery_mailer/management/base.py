"""What the commands share: ``--json``, and how counts are written."""

import json
from collections.abc import Mapping
from typing import Any

from django.core.management.base import BaseCommand, CommandParser


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
