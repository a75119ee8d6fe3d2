import json
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from celery_mailer.post_office.importing import CannotImport, Report, import_all

SHOWN = 20  # faults printed of each kind; --json has them all


class Command(BaseCommand):
    help = "Take over django-post_office's templates, waiting emails and history; may be repeated."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="say what it would do, change nothing")
        parser.add_argument("--json", action="store_true", help="print the report as one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        self.quiet = options["json"]
        try:
            report = import_all(dry_run=options["dry_run"], progress=self._progress)
        except (CannotImport, OSError) as error:  # also a file that is there and cannot be read
            raise CommandError(str(error)) from error
        if options["json"]:
            self.stdout.write(json.dumps(asdict(report), default=str))
        else:
            self._tell(report)

    def _progress(self, done: int, total: int) -> None:
        if self.quiet:
            return
        if self.stderr.isatty():
            self.stderr.write(f"\r{done:,} of {total:,} emails", ending="" if done < total else "\n")
        else:
            self.stderr.write(f"{done:,} of {total:,} emails")

    def _tell(self, report: Report) -> None:
        if report.dry_run:
            self.stdout.write("Nothing was changed. It would be:")
        for line in in_words(report):
            self.stdout.write(line)
        for what, lines in {"Templates": report.faults, "Not sendable": report.unsendable}.items():
            for line in lines[:SHOWN]:
                self.stdout.write(self.style.WARNING(f"{what}: {line}"))
            if len(lines) > SHOWN:
                self.stdout.write(f"{what}: and {len(lines) - SHOWN:,} more; --json has them all")
        self.stdout.write("\n# In the settings, in the place of POST_OFFICE:")
        for line in report.settings:
            self.stdout.write(line)


def in_words(report: Report) -> list[str]:
    """The counts of ``report``, a line for each that is not 0 or that a reader would miss."""
    counts = {f"emails {status}": number for status, number in sorted(report.emails.items())}
    counts |= {f"{field} repaired": number for field, number in sorted(report.repaired.items())}
    lines = [f"templates: {report.templates}, there already: {report.templates_known}"]
    lines += [f"{what}: {number:,}" for what, number in counts.items()]
    rest = {
        "emails there already": report.known,
        "emails older than the retention, left out": report.too_old,
        "attempts": report.attempts,
        "attachments": report.attachments,
        "attachments whose file is lost or damaged": report.files_lost,
        "events of ESPs, left out": report.events_left_out,
    }
    return lines + [f"{what}: {number:,}" for what, number in rest.items() if number]
