from dataclasses import asdict
from typing import Any

from django.core.management.base import CommandError, CommandParser

from celery_mailer.management.base import JsonCommand
from celery_mailer.management.doctor import examine
from celery_mailer.management.doctor.finding import Finding, Level


class Command(JsonCommand):
    help = "Look for what keeps mail from going out, and say how to mend it; a fault ends it with status 1."
    requires_system_checks = ()  # they are a part of what it looks at

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--dkim-selector", action="append", default=[], help="of the sender's DKIM key; may be repeated"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        findings = []
        for finding in examine(options["dkim_selector"]):
            findings.append(finding)
            if not options["json"]:
                self._print(finding)
        if options["json"]:
            self.tell([asdict(finding) for finding in findings], "", options)
        if faults := sum(finding.level == Level.FAULT for finding in findings):
            raise CommandError(f"{faults} faults" if faults > 1 else "1 fault")

    def _print(self, finding: Finding) -> None:
        style = {Level.FAULT: self.style.ERROR, Level.WARNING: self.style.WARNING}.get(finding.level, str)
        self.stdout.write(style(f"{finding.level:8} {finding.area}: {finding.words}".rstrip(": ")))
        if finding.mend:
            self.stdout.write(f"         -> {finding.mend}")
