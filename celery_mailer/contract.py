"""Whether the templates keep their contract: each is rendered in each of its languages with its samples."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from posixpath import splitext
from typing import Any

from django.template import TemplateDoesNotExist, TemplateSyntaxError

from celery_mailer import conf
from celery_mailer.engine import engine, lacking
from celery_mailer.exceptions import InvalidEmail, RenderError
from celery_mailer.models import Content, EmailTemplate, TemplateVersion
from celery_mailer.models.template import WORDS
from celery_mailer.render.templates import render
from celery_mailer.sources import SAMPLES, Finder, Source, of_version

ENDINGS = (".html", ".mjml", ".txt")


@dataclass(frozen=True)
class Fault:
    """Why a template could not be rendered. ``language`` is empty where it has none to do with it."""

    template: str
    language: str
    fault: str

    def __str__(self) -> str:
        return f"{self.template}{f' ({self.language})' if self.language else ''}: {self.fault}"


def database_faults() -> Iterator[Fault]:
    """What is wrong with the rows of ``EmailTemplate``, which may have been written behind its back."""
    for row in EmailTemplate.objects.select_related("default_template"):
        words = {field: getattr(row, field) for field in WORDS}
        try:
            source = of_version(TemplateVersion(name=row.name, **words), row.language, row.samples)
        except TemplateSyntaxError as error:
            yield Fault(row.name, row.language, f"Bad syntax: {error}")
        else:
            yield from _faults(source)


def file_faults() -> Iterator[Fault]:
    """What is wrong with the files in TEMPLATE_DIR: syntax, and for those with samples the rest."""
    bad = set()
    for name in sorted(_files(*ENDINGS)):
        try:
            engine().get_template(name)
        except (TemplateSyntaxError, TemplateDoesNotExist, UnicodeDecodeError) as error:
            bad.add(splitext(name)[0])
            yield Fault(name, "", f"{type(error).__name__}: {error}")
    stems = {name.removesuffix(SAMPLES) for name in _files(SAMPLES)}
    for stem in sorted(stems - bad):
        yield from _file_faults(stem)


def _file_faults(stem: str) -> Iterator[Fault]:
    for language in conf.languages_chosen():
        try:
            yield from _faults(Finder().find(stem, language))
        except InvalidEmail as error:
            yield Fault(f"{stem}{SAMPLES}", "", error.fault)
            return


def _files(*endings: str) -> set[str]:
    """The names of the files with one of ``endings`` below TEMPLATE_DIR in any folder of templates."""
    names = set()
    for loader in engine().template_loaders:
        for inner in getattr(loader, "loaders", [loader]):  # the cached loader is around the others
            for folder in inner.get_dirs() if hasattr(inner, "get_dirs") else ():
                files = (Path(folder) / conf.get().template_dir).rglob("*")
                found = (path for path in files if path.name.endswith(endings))
                names |= {path.relative_to(folder).as_posix() for path in found}
    return names


def _faults(source: Source) -> Iterator[Fault]:
    missing = set()
    try:
        if source.samples:
            missing = {name for part in source.parts for name in _lacking(part.template, source)}
            render(Content(language=source.language), source, source.samples)
    except RenderError as error:
        yield Fault(source.name, source.language, str(error))
    if missing:
        fault = f"uses what its samples do not have: {', '.join(sorted(missing))}"
        yield Fault(source.name, source.language, fault)


def _lacking(template: Any, source: Source) -> list[str]:
    try:
        return lacking(template, source.samples, source.language)
    except Exception as error:
        raise RenderError(f"{type(error).__name__}: {error}") from error
