"""The import: templates first, then emails in batches, each batch a transaction.

A batch is in whole or not at all, and what a batch makes has ids that follow from the row it was made of. So
one that was killed goes on where it stopped, and one that is repeated finds everything done.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from django.db import router, transaction
from django.utils import timezone

from celery_mailer import conf
from celery_mailer.models import Attempt, Content, Decision, Email, Enclosure
from celery_mailer.post_office import tables
from celery_mailer.post_office.emails import Made, alias_of, ended_at, make, new_id
from celery_mailer.post_office.files import Files
from celery_mailer.post_office.settings_lines import settings_lines
from celery_mailer.post_office.templates import Named, Templates, needs_tags

BATCH = 500  # emails per transaction


class CannotImport(Exception):
    """There is nothing to import, or the settings lack what the waiting emails need."""


@dataclass(slots=True)
class Report:
    """What an import did, or (``dry_run``) would do. ``faults`` and ``unsendable`` hold no addresses."""

    dry_run: bool
    templates: int = 0
    templates_known: int = 0
    emails: dict[str, int] = field(default_factory=dict)  # by the status they have here
    known: int = 0  # emails that were here already
    too_old: int = 0  # over for longer than the retention: the next cleanup would delete them
    attempts: int = 0
    attachments: int = 0
    files_lost: int = 0  # or damaged
    events_left_out: int = 0
    repaired: dict[str, int] = field(default_factory=dict)  # by field
    faults: list[str] = field(default_factory=list)  # of templates
    unsendable: list[str] = field(default_factory=list)
    settings: list[str] = field(default_factory=list)


Progress = Callable[[int, int], None]


def import_all(*, dry_run: bool = False, progress: Progress = lambda done, total: None) -> Report:
    """Import what django-post_office has in the database of our tables.

    ``progress`` is told how many emails of how many were looked at. Raises ``CannotImport``.
    """
    using = router.db_for_write(Email)
    _check(using)
    run = _Import(using, dry_run, progress)
    if not dry_run:
        run.everything()
        return run.report
    with transaction.atomic(using=using):
        run.everything()
        transaction.set_rollback(True, using=using)
    return run.report


def _check(using: str) -> None:
    if names := tables.missing(using):
        raise CannotImport(f"The database {using!r} has no table {', '.join(names)}.")
    known = conf.get().providers
    asked = filter(None, map(alias_of, tables.aliases_waiting(using)))
    if unknown := [alias for alias in asked if alias not in known]:
        lines = "\n".join(settings_lines(conf.post_office()))
        raise CannotImport(
            f"Emails wait for {', '.join(unknown)}, which CELERY_MAILER['PROVIDERS'] does not have."
            f" django-post_office's settings would be:\n\n{lines}"
        )


class _Import:
    def __init__(self, using: str, dry_run: bool, progress: Progress) -> None:
        self.using = using
        self.dry_run = dry_run
        self.progress = progress
        self.now = timezone.now()
        settings = conf.get()
        self.oldest = self.now - (settings.streams["transactional"].retention or settings.retention)
        self.templates = Templates(using)
        self.files = Files(using, dry_run)
        self.report = Report(dry_run)

    def everything(self) -> None:
        found = tables.templates(self.using)
        self.templates.take(found)
        self.report.templates, self.report.templates_known = self.templates.made, self.templates.known
        self.report.faults = self.templates.faults
        self.report.settings = settings_lines(conf.post_office(), tags=needs_tags(found))
        total, done, last = tables.count(self.using), 0, 0
        while mails := self._next(last):
            done, last = done + len(mails), mails[-1].id
            self.progress(done, total)

    def _next(self, last: int) -> list[tables.Mail]:
        with transaction.atomic(using=self.using):
            mails = tables.mails(self.using, last, BATCH, lock=not self.dry_run)
            if mails:
                self._batch(mails)
        return mails

    def _batch(self, mails: Sequence[tables.Mail]) -> None:
        ids = [mail.id for mail in mails]
        logs, files = tables.logs_of(self.using, ids), tables.files_of(self.using, ids)
        made: dict[int, Made] = {}
        for mail in self._fresh(mails, logs):
            made[mail.id] = make(mail, logs[mail.id], self._template(mail), self.now, self._context)
            self.report.events_left_out += sum(log.status not in (0, 1) for log in logs[mail.id])
        waiting = {mail.id for mail in mails if mail.waiting and mail.id in made}
        enclosures = self._enclose(made, files, waiting)
        self._count(made)
        self.report.attachments += len(enclosures)
        if not self.dry_run:
            self._insert(list(made.values()), enclosures)
            ours = [(mail, made[mail.id].email.pk) for mail in mails if mail.id in made]
            tables.take_over(self.using, ours, self.now)

    def _fresh(self, mails: Sequence[tables.Mail], logs: dict[int, list[tables.Log]]) -> list[tables.Mail]:
        """Those of ``mails`` that are not here yet, nor were, and not too old to stay."""
        ids = {mail.id: new_id("email", mail.id, mail.created) for mail in mails}
        here = set(Email.objects.using(self.using).filter(pk__in=ids.values()).values_list("pk", flat=True))
        fresh = []
        for mail in mails:
            own = logs[mail.id]
            if ids[mail.id] in here or any(log.exception_type == tables.TAKEN_OVER for log in own):
                self.report.known += 1
            elif not mail.waiting and ended_at(mail, own) < self.oldest:
                self.report.too_old += 1
            else:
                fresh.append(mail)
        return fresh

    def _template(self, mail: tables.Mail) -> Named | None:
        """The template of an email that is rendered on delivery; of others, only the words are left."""
        later = mail.template_id is not None and mail.context not in (None, "null")
        return self.templates.named.get(mail.template_id or 0) if later else None

    def _context(self, mail: tables.Mail) -> object:
        return tables.context_of(mail, self.using)

    def _enclose(
        self, made: dict[int, Made], files: dict[int, list[tables.File]], waiting: set[int]
    ) -> list[Enclosure]:
        rows = []
        for pk, one in made.items():
            if not files[pk] or one.content.dropped:
                continue
            if lost := self.files.lost(files[pk], self.now):
                self.report.files_lost += len(lost)
                if pk in waiting:
                    one.give_up(self.now, f"attachments: {'; '.join(lost)}")
            own = self.files.enclosures(one.email, files[pk], self.now)
            one.content.has_attachments = bool(own)
            rows += own
        return rows

    def _count(self, made: dict[int, Made]) -> None:
        for pk, one in made.items():
            _add(self.report.emails, str(one.email.status))
            for name in one.repaired:
                _add(self.report.repaired, name)
            self.report.attempts += len(one.attempts)
            if one.fault:
                self.report.unsendable.append(f"email {pk}: {one.fault}")

    def _insert(self, made: list[Made], enclosures: list[Enclosure]) -> None:
        Email.objects.using(self.using).bulk_create([one.email for one in made])
        Content.objects.using(self.using).bulk_create([one.content for one in made])
        Attempt.objects.using(self.using).bulk_create([a for one in made for a in one.attempts])
        Decision.objects.using(self.using).bulk_create([d for one in made for d in one.decisions])
        Enclosure.objects.using(self.using).bulk_create(enclosures)


def _add(counts: dict[str, int], name: str) -> None:
    counts[name] = counts.get(name, 0) + 1
