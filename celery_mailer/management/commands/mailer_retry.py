from collections import Counter
from typing import Any

from django.core.management.base import CommandError, CommandParser

from celery_mailer.acts import ACTS
from celery_mailer.management import selection
from celery_mailer.management.base import JsonCommand, counted
from celery_mailer.management.progress import Progress
from celery_mailer.values import Status

# What it is to try again: sooner, once more, or as a new email, for what is final stays so.
BY_STATUS = {
    Status.QUEUED: ACTS["retry"],
    Status.DEFERRED: ACTS["retry"],
    Status.UNCERTAIN: ACTS["repeat"],
    Status.FAILED: ACTS["resend"],
    Status.EXPIRED: ACTS["resend"],
}


class Command(JsonCommand):
    help = "Try again now what waits, what is uncertain, and as new emails what failed or expired."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        selection.add_arguments(parser, BY_STATUS)

    def handle(self, *args: Any, **options: Any) -> None:
        # What is final is only meant where it is asked for.
        statuses = list(BY_STATUS) if options["ids"] or options["status"] else [Status.DEFERRED]
        emails = selection.selected(options, statuses)
        if not options["ids"]:
            emails = emails.filter(resends=None)  # so that a second run sends nothing a second time
        if options["dry_run"]:
            total = emails.count()
            self.tell({"would_retry": total}, f"would retry {total}", options)
            return
        counts, faults = self._retry(emails)
        self.tell(dict(counts), counted(counts) or "nothing to retry", options)
        others = len(set(options["ids"])) - counts.total() - len(faults)
        if faults or others > 0:
            more = [f"{others} have a status in which they cannot be tried again"] if others > 0 else []
            raise CommandError("; ".join([*faults, *more]))

    def _retry(self, emails: Any) -> tuple[Counter[str], list[str]]:
        counts: Counter[str] = Counter()
        faults: list[str] = []
        with Progress(self.stderr, "emails", emails.count()) as progress:
            # In this order: what is tried again is waiting then, and those had their turn.
            for status, act in BY_STATUS.items():
                group = emails.filter(status=status)
                done, wrong = selection.carry_out(act, group, "mailer_retry", progress)
                if done:
                    counts["resent_as_new" if act.makes_new else "retried"] += done
                faults += wrong
        return counts, faults
