"""Templates and their translations: made where there is none of that name and language yet."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from django.core.exceptions import ValidationError
from django.db import transaction

from celery_mailer.models import EmailTemplate, TemplateVersion
from celery_mailer.post_office import tables

POST_OFFICE_TAGS = re.compile(r"\{%\s*load\b[^%]*\bpost_office\b")


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
        named = Named(name, template.language.lower().replace("_", "-"))
        if named in self.named.values():
            named = replace(named, name=f"{name} ({template.id})")
            self.faults.append(f"{name}: not the only one; it is now {named.name!r}")
        there = self._there(named)
        self.known += there is not None
        self.rows[template.id] = there or self._make(template, named, default)
        self.named[template.id] = named

    def _there(self, named: Named) -> EmailTemplate | None:
        rows = EmailTemplate.objects.using(self.using).filter(name=named.name, language=named.language)
        return next((row for row in rows if row.name == named.name), None)

    def _make(self, template: tables.Template, named: Named, default: EmailTemplate | None) -> EmailTemplate:
        row = EmailTemplate(
            name=named.name,
            language=named.language,
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
    return any(POST_OFFICE_TAGS.search(t.subject + t.content + t.html_content) for t in found)
