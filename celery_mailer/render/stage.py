"""Renders one slice of emails: a message row for each that has a template or a context."""

from collections import defaultdict
from collections.abc import Collection
from uuid import UUID

from django.db import router

from celery_mailer.exceptions import InvalidEmail, RenderError
from celery_mailer.models import Content, Message
from celery_mailer.models.connection import survives_lost_connection
from celery_mailer.models.context import Loader
from celery_mailer.models.insertion import insert
from celery_mailer.models.transitions import BROKEN, move
from celery_mailer.render.images import Images, keep
from celery_mailer.render.templates import render
from celery_mailer.sources import Finder, Source, of_version
from celery_mailer.values import Status


@survives_lost_connection
def render_emails(ids: Collection[UUID]) -> None:
    """Render what of ``ids`` is queued and has no message yet.

    A template fault is the email's end, with the fault as the decision's detail: trying the same
    template again would not mend it.
    """
    waiting = Content.objects.filter(email_id__in=ids, email__status=Status.QUEUED)
    sources = waiting.exclude(template="", context__isnull=True).filter(email__rendered__isnull=True)
    contents = list(sources.select_related("template_version").order_by("pk"))
    loader, templates = Loader(), Finder()
    for content in contents:
        loader.expect(content.context)
    messages: list[Message] = []
    images: dict[UUID, Images] = {}
    for content in contents:
        try:
            context = loader.decode("context", content.context)
            message, images[content.pk] = render(content, _source(content, templates), context)
            messages.append(message)
        except RenderError as error:
            move([content.pk], BROKEN, reason="render", detail=str(error))
    keep(images)  # before their messages: whoever sees a message sees its images
    insert(messages, router.db_for_write(Message), new_only=True)
    _note_versions(contents)


def _source(content: Content, templates: Finder) -> Source | None:
    """The template of ``content``: as it was at the call, or as it is now if it is rendered on delivery."""
    if not content.template:
        return None
    try:
        if content.template_version is not None:
            return of_version(content.template_version, content.language)
        source = templates.find(content.template, content.language, asked=False)
    except InvalidEmail as error:
        raise RenderError(str(error)) from error
    content.template_version = source.version
    return source


def _note_versions(contents: Collection[Content]) -> None:
    """Write down which version was used by what is rendered on delivery."""
    used = defaultdict(list)
    for content in contents:
        if content.render_on_delivery and content.template_version is not None:
            used[content.template_version].append(content.pk)
    for version, ids in used.items():
        Content.objects.filter(pk__in=ids).update(template_version=version)
