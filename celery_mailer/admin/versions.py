"""The versions of a template: which there were, how they differ, and back to one."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from celery_mailer.models import EmailTemplate, TemplateVersion
from celery_mailer.models.template import WORDS

SHOWN = 100
CONTEXT = 3  # lines around a difference


@dataclass(frozen=True)
class Difference:
    """How a field differs: lines, each with "+" (only in the newer), "-" (only in the older), " " or "@"."""

    label: str
    lines: list[tuple[str, str]]


def versions_of(template: EmailTemplate) -> list[TemplateVersion]:
    """The latest versions of ``template`` and its translations, newest first, each with ``is_current``."""
    family = {row.pk: row for row in [template, *template.translated_templates.all()]}
    versions = list(TemplateVersion.objects.filter(template__in=family).order_by("-pk")[:SHOWN])
    for version in versions:
        row: Any = family.get(version.template_id or 0)
        same = all(getattr(version, name) == getattr(row, name) for name in (*WORDS, "language"))
        version.is_current = same  # type: ignore[attr-defined]
    return versions


def latest_change(versions: Sequence[TemplateVersion]) -> list[TemplateVersion]:
    """Of ``versions``, newest first, the last two in one language, the older one first; or nothing."""
    newer: dict[int | None, TemplateVersion] = {}
    for version in versions:
        if version.template_id in newer:
            return [version, newer[version.template_id]]
        newer[version.template_id] = version
    return []


def comparison(older: TemplateVersion, newer: TemplateVersion) -> list[Difference]:
    """The fields in which two versions differ."""
    found = []
    for name in WORDS:
        before, after = getattr(older, name).splitlines(), getattr(newer, name).splitlines()
        lines = list(difflib.unified_diff(before, after, n=CONTEXT, lineterm=""))[2:]
        if lines:
            field: Any = EmailTemplate._meta.get_field(name)
            shown = [(line[0], line if line[0] == "@" else line[1:]) for line in lines]
            found.append(Difference(field.verbose_name, shown))
    return found


def restore(version: TemplateVersion) -> None:
    """Give its template the words of ``version``. Raises ``ValidationError`` if they no longer fit."""
    template = version.template
    if template is None:
        return
    for name in WORDS:
        setattr(template, name, getattr(version, name))
    template.save()
