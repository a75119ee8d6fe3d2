"""Where a template comes from: which file or row, in which language, and what it needs."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from posixpath import splitext
from typing import Any

from django.template import Template, TemplateDoesNotExist, TemplateSyntaxError

from celery_mailer import conf
from celery_mailer.engine import blocks, compiled, first_file
from celery_mailer.exceptions import InvalidEmail
from celery_mailer.models import EmailTemplate, TemplateVersion

SAMPLES = ".samples.json"  # beside a file template: its variables, each with a sample value


@dataclass(frozen=True)
class Part:
    """A compiled template, or one block of it."""

    template: Template
    block: str = ""


@dataclass(frozen=True)
class Source:
    """What an email is rendered from. ``language`` is the one to render in, ``name`` what is stored."""

    name: str
    language: str
    subject: Part | None = None
    text: Part | None = None
    html: Part | None = None
    version: TemplateVersion | None = None  # of a database template
    samples: Mapping[str, Any] = field(default_factory=dict)

    @property
    def parts(self) -> list[Part]:
        return [part for part in (self.subject, self.text, self.html) if part is not None]

    @property
    def needed(self) -> list[str]:
        """The declared variables that must be there: those whose sample is not ``None``."""
        return [name for name, sample in self.samples.items() if sample is not None]


def languages(language: str) -> list[str]:
    """``language`` and what it falls back to: de-at, de (the lookup of RFC 4647, section 3.4)."""
    parts = language.split("-")
    return ["-".join(parts[:n]) for n in range(len(parts), 0, -1)] if language else []


def of_version(version: TemplateVersion, language: str, samples: Mapping[str, Any] | None = None) -> Source:
    """The source that ``version`` is. Raises ``TemplateSyntaxError``."""
    words = {"subject": version.subject, "text": version.content, "html": version.html_content}
    parts = {name: Part(compiled(source)) if source else None for name, source in words.items()}
    return Source(
        version.name,
        language,
        subject=parts["subject"],
        text=parts["text"],
        html=parts["html"],
        version=version,
        samples=samples or {},
    )


class Finder:
    """Finds templates, each once: make one for a call, or for a slice."""

    def __init__(self) -> None:
        self._found: dict[tuple[object, str, bool], Source] = {}

    def find(self, template: "str | EmailTemplate", language: str, *, asked: bool = True) -> Source:
        """The template of that name (or that row) in ``language``; ``asked`` if the caller chose it.

        Raises ``InvalidEmail``, which names the argument: for a template that does not exist or has bad
        syntax; without LANGUAGE_FALLBACK also for a language that the template is not in.
        """
        key = (template if isinstance(template, str) else template.pk, language, asked)
        if key not in self._found:
            self._found[key] = _find(template, language, asked)
        return self._found[key]


def _find(template: "str | EmailTemplate", language: str, asked: bool) -> Source:
    try:
        if isinstance(template, EmailTemplate):
            return _from_row(template, language, asked)
        lookups = [_from_file, _from_database]
        if conf.get().template_lookup == "database-first":
            lookups.reverse()
        for lookup in lookups:
            if (source := lookup(template, language, asked)) is not None:
                return source
    except TemplateDoesNotExist as error:
        fault = f"{str(template)!r} needs {str(error)!r}, which does not exist"
        raise InvalidEmail("template", fault) from None
    except (TemplateSyntaxError, UnicodeDecodeError) as error:
        raise InvalidEmail("template", f"{str(template)!r} has bad syntax: {error}") from None
    raise InvalidEmail("template", f"{template!r} does not exist")


def _from_row(row: EmailTemplate, language: str, asked: bool) -> Source:
    if row.pk is None:
        raise InvalidEmail("template", "is not saved")
    if row.default_template_id is not None and not asked:
        return _source_of(row, row.language)
    variants = EmailTemplate.objects.using(row._state.db).filter(name=row.name)
    rows = _by_language(row.name, variants.select_related("default_template"))
    # The caller's own row, which may say more than the database does.
    default = row if row.default_template_id is None else _default(rows)
    return _in_language(rows | {row.language: row}, default or row, language, asked)


def _from_database(name: str, language: str, asked: bool) -> Source | None:
    variants = EmailTemplate.objects.filter(name=name).select_related("default_template")
    rows = _by_language(name, variants)
    default = _default(rows)
    return _in_language(rows, default, language, asked) if default is not None else None


def _by_language(name: str, rows: Iterable[EmailTemplate]) -> dict[str, EmailTemplate]:
    """MySQL's usual collations find "Welcome" too, where "welcome" was looked for."""
    return {row.language: row for row in rows if row.name == name}


def _default(rows: Mapping[str, EmailTemplate]) -> EmailTemplate | None:
    """The template itself rather than a translation; the one without a language, if several are there."""

    def order(row: EmailTemplate) -> tuple[bool, str, int]:
        return row.default_template_id is not None, row.language, row.pk

    return min(rows.values(), key=order, default=None)


def _in_language(
    rows: Mapping[str, EmailTemplate], default: EmailTemplate, language: str, asked: bool
) -> Source:
    fallback = conf.get().language_fallback or not asked
    if not fallback and language not in rows:
        raise InvalidEmail("language", f"{default.name!r} is not there in {language!r}")
    wanted = languages(language)
    row = next((rows[code] for code in wanted if code in rows), default)
    # A date in Austrian beside German words is right; beside English ones it is not.
    return _source_of(row, language if row.language in ("", *wanted) else row.language)


def _source_of(row: EmailTemplate, language: str) -> Source:
    return of_version(row.version(), language, row.samples)


def _from_file(name: str, language: str, asked: bool) -> Source | None:
    for stem, ending in _places(name):
        variants = [f".{code}" for code in languages(language)] + [""]
        main = first_file(f"{stem}{variant}{ending}" for variant in variants)
        if main is not None:
            return _of_file(main, stem, ending, tuple(variants), language)
    return None


def _places(name: str) -> Iterator[tuple[str, str]]:
    """Where a file of that name may be, as stem and ending, in order."""
    folder = conf.get().template_dir.rstrip("/")
    for base in [name] if name.startswith(f"{folder}/") else [f"{folder}/{name}", name]:
        stem, ending = splitext(base)
        yield stem, ending
        if not ending:
            yield from ((stem, ending) for ending in (".html", ".mjml", ".txt"))


@lru_cache(maxsize=512)
def _of_file(main: Template, stem: str, ending: str, variants: tuple[str, ...], language: str) -> Source:
    """``main`` with what stands beside it, or with its blocks where one of them is ``html`` or ``text``.

    Kept by the template itself: a loader that reads files anew gives another one.
    """

    def beside(last: str) -> Part | None:
        found = first_file(f"{stem}{variant}{last}" for variant in variants)
        return Part(found) if found is not None else None

    named = blocks(main)
    if not named & {"html", "text"}:
        named = set()
    whole = Part(main) if not named else None
    html = Part(main, "html") if "html" in named else whole if ending != ".txt" else None
    return Source(
        f"{stem}{ending}",
        language,
        subject=Part(main, "subject") if "subject" in named else beside(".subject.txt"),
        text=Part(main, "text") if "text" in named else beside(".txt"),
        html=html,
        samples=_samples_of(main, stem),
    )


def _samples_of(main: Template, stem: str) -> Mapping[str, Any]:
    folder, last = Path(main.origin.name).parent, f"{Path(stem).name}{SAMPLES}"
    try:
        path = folder / last
        return _read_samples(str(path), path.stat().st_mtime_ns)
    except OSError:  # none, or a loader that does not read files
        return {}


@lru_cache(maxsize=512)
def _read_samples(path: str, changed: int) -> Mapping[str, Any]:
    try:
        samples = json.loads(Path(path).read_text())
    except ValueError as error:
        raise InvalidEmail("template", f"{Path(path).name} is not JSON: {error}") from None
    if not isinstance(samples, dict):
        raise InvalidEmail("template", f"{Path(path).name} is not an object of names and sample values")
    return samples
