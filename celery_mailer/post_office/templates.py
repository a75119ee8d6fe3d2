"""Templates and their translations: made where there is none of that name and language yet."""

from collections.abc import Sequence
from dataclasses import dataclass

from django.core.exceptions import ValidationError
from django.db import transaction

from celery_mailer.models import EmailTemplate, TemplateVersion
from celery_mailer.post_office import tables

POST_OFFICE_TAGS = "load post_office"


@dataclass(frozen=True, slots=True)
class Named:
    """A template by the name and language under which it is here now."""

    name: str
    language: str


class Templates:
    """Makes our templates of theirs, and knows afterwards which became which.

    A template that is here already stays as it is, edits included. One with a fault comes too, for the emails
    that need it, and its fault is reported: it would have failed there as well.
    """

    def __init__(self, using: str) -> None:
        self.using = using
        self.named: dict[int, Named] = {}
        self.rows: dict[int, EmailTemplate] = {}
        self.made = 0
        self.known = 0
        self.faults: list[str] = []

    def take(self, found: Sequence[tables.Template]) -> None:
        """Take the default templates, then the translations, which refer to them."""
        with transaction.atomic(using=self.using):
            for template in sorted(found, key=lambda t: (t.default_template_id is not None, t.id)):
                self._take(template)

    def _take(self, template: tables.Template) -> None:
        default = self.rows.get(template.default_template_id or 0)
        name = default.name if default is not None else template.name
        there = self._there(template, name)
        if Named(name, template.language) in self.named.values():
            name = f"{name} ({template.id})"
            self.faults.append(f"{template.name}: not the only one; it is now {name!r}")
            there = self._there(template, name)
        self.known += there is not None
        row = there or self._make(template, name, default)
        self.rows[template.id], self.named[template.id] = row, Named(row.name, row.language)

    def _there(self, template: tables.Template, name: str) -> EmailTemplate | None:
        if Named(name, template.language) in self.named.values():
            return None  # of another template of theirs
        rows = EmailTemplate.objects.using(self.using).filter(name=name, language=template.language)
        return next((row for row in rows if row.name == name), None)

    def _make(self, template: tables.Template, name: str, default: EmailTemplate | None) -> EmailTemplate:
        row = EmailTemplate(
            name=name,
            language=template.language,
            default_template=default,
            subject=template.subject,
            content=template.content,
            html_content=template.html_content,
            description=template.description,
        )
        try:
            row.clean()
        except ValidationError as error:
            self.faults.append(f"{row}: {'; '.join(error.messages)}")
        row.save_base(force_insert=True, using=self.using)  # ``save`` would refuse what has a fault
        row.version()
        self.made += 1
        return row


def version_of(template: Named) -> TemplateVersion | None:
    """The template as it is now, where a file would be found in its place."""
    row = EmailTemplate.objects.filter(name=template.name, language=template.language).first()
    return row.version() if row is not None else None


def needs_tags(found: Sequence[tables.Template]) -> bool:
    """Whether a template loads django-post_office's tags."""
    return any(POST_OFFICE_TAGS in t.content + t.html_content + t.subject for t in found)
