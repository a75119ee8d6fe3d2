"""A periodic job as a management command."""

from collections.abc import Callable
from typing import Any

from celery_mailer.management.base import JsonCommand, counted


class JobCommand(JsonCommand):
    """Runs ``job`` once in this process and prints its counts."""

    job: Callable[[], dict[str, int]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.help = (self.job.__doc__ or "").partition("\n")[0]

    def handle(self, *args: Any, **options: Any) -> None:
        counts = self.job()
        self.tell(counts, counted(counts), options)
