import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from celery_mailer.management.base import counted
from celery_mailer.management.drain import drain


class Command(BaseCommand):
    """django-post_office's command, with its arguments."""

    help = "Deliver what is due in this process, without a worker: mailer_drain under post_office's name."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("-p", "--processes", type=int, default=1, help="that deliver side by side")
        parser.add_argument(
            "-L",
            "--lockfile",
            help="do nothing while another run holds it; without, each email is sent once too",
        )
        parser.add_argument(
            "-l",
            "--log-level",
            type=int,
            choices=(0, 1, 2),
            help="attempts kept of these emails: 0 none, 1 those that failed, 2 all",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["processes"] < 1:
            raise CommandError("--processes: at least 1")
        with _held(options["lockfile"]) as held:
            if not held:
                self.stdout.write(f"another run holds {options['lockfile']}")
                return
            counts = drain(options["processes"], options["log_level"])
        self.stdout.write(counted(counts) or "nothing was due")


@contextmanager
def _held(path: str | None) -> Iterator[bool]:
    """Whether the lock on ``path`` is ours. It ends with the process, however that ends."""
    if path is None:
        yield True
        return
    try:
        import fcntl

        file = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except (ImportError, OSError) as error:
        raise CommandError(f"--lockfile: {error}") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    else:
        yield True
    finally:
        os.close(file)
