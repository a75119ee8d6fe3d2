"""Django's template engine as emails use it: sources compiled once, files found, what a template lacks."""

import copy
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.template import Context, Engine, Template, TemplateDoesNotExist, engines
from django.template.backends.django import DjangoTemplates
from django.template.loader_tags import BLOCK_CONTEXT_KEY, BlockContext, BlockNode, ExtendsNode
from django.utils import translation

from celery_mailer import conf


def engine() -> Engine:
    """The engine of ``TEMPLATE_ENGINE``. Raises ``ImproperlyConfigured`` if it is none of Django's own."""
    alias = conf.get().template_engine
    backend = engines[alias]
    if not isinstance(backend, DjangoTemplates):
        raise ImproperlyConfigured(f"TEMPLATE_ENGINE: {alias!r} is not an engine of Django's own language.")
    return with_aliases(backend.engine)


TAGS = "celery_mailer.templatetags.celery_mailer"


def with_aliases(of: Engine) -> Engine:
    """``of``, in which ``{% load post_office %}`` means our tags if POST_OFFICE_TAGS is on.

    Settings with faults are left to the system checks, which load the engines too.
    """
    if not conf.problems() and conf.get().post_office_tags and of.libraries.get("post_office") != TAGS:
        of.libraries["post_office"] = TAGS
        of.template_libraries |= of.get_template_libraries({"post_office": TAGS})
    return of


@lru_cache(maxsize=512)
def compiled(source: str) -> Template:
    """``source``, compiled once per process. Raises ``TemplateSyntaxError``.

    Kept by the source itself: an edited template is another source, in every process at once.
    """
    return Template(source, engine=engine())


def first_file(names: Iterable[str]) -> Template | None:
    """The first of ``names`` that exists as a file, compiled; raises ``TemplateSyntaxError``."""
    files = engine()
    for name in names:
        try:
            return files.get_template(name)
        except TemplateDoesNotExist as error:
            if str(error) != name:
                raise  # it exists, but something that it extends does not
        except OSError:
            continue  # a folder, something below a file, too long: no name of a file, but perhaps of a row
    return None


def rendered(template: Template, context: Mapping[str, Any], *, escape: bool, block: str = "") -> str:
    """``template``, or only its ``block``, with ``context``; ``escape`` for HTML."""
    names = Context(dict(context), autoescape=escape)
    if not block:
        return str(template.render(names))
    with names.render_context.push_state(template), names.bind_template(template):
        found = _blocks(template, names)
        names.render_context[BLOCK_CONTEXT_KEY] = found
        return str(found.get_block(block).render(names)) if found.blocks.get(block) else ""


def blocks(template: Template) -> set[str]:
    """The names of the blocks of ``template`` and of what it extends."""
    names = Context()
    with names.render_context.push_state(template), names.bind_template(template):
        return set(_blocks(template, names).blocks)


def _blocks(template: Template, context: Context) -> BlockContext:
    found = BlockContext()
    while True:
        nodes = template.nodelist.get_nodes_by_type(BlockNode)
        found.add_blocks({node.name: node for node in nodes if isinstance(node, BlockNode)})
        parents = [node for node in template.nodelist if isinstance(node, ExtendsNode)]
        if not parents:
            return found
        template = parents[0].get_parent(context)


class _Recorder(str):
    """What an engine puts in the place of a variable that does not exist: nothing, but it takes note."""

    missing: set[str]

    def __new__(cls) -> "_Recorder":
        self = super().__new__(cls, "%s")
        self.missing = set()
        return self

    def __mod__(self, variable: object) -> str:
        self.missing.add(str(variable))
        return ""


class _Recording(Context):
    """A context that takes note of the names it was asked for and does not have."""

    missing: set[str]
    request = None  # as on a page: nobody will send what is rendered here

    def __getitem__(self, key: Any) -> Any:
        try:
            return super().__getitem__(key)
        except KeyError:
            self.missing.add(key)
            raise


def lacking(template: Template, samples: Mapping[str, Any], language: str = "") -> list[str]:
    """The variables that ``template`` uses and ``samples`` do not have, as the template spells them.

    Raises what rendering raises. An optional variable, too, has a sample: ``None``.
    """
    recorder = _Recorder()
    apart = copy.copy(template)
    apart.engine = copy.copy(template.engine)
    apart.engine.string_if_invalid = recorder
    context = _Recording(dict(samples))
    context.missing = recorder.missing
    with translation.override(language or None):
        apart.render(context)
    whole = {name.partition(".")[0] for name in recorder.missing if "." in name}
    return sorted(recorder.missing - whole)


def _forget(*, setting: str, **kwargs: Any) -> None:
    if setting in ("TEMPLATES", conf.NAME):
        compiled.cache_clear()


setting_changed.connect(_forget, dispatch_uid="celery_mailer.engine")
