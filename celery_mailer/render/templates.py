"""Rendering one email: subject, text and HTML from a template, or from sources with a context."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded
from django.template import TemplateDoesNotExist, VariableDoesNotExist
from django.utils import timezone, translation

from celery_mailer.engine import compiled, rendered
from celery_mailer.exceptions import RenderError
from celery_mailer.models import Content, Message
from celery_mailer.render.html import finish
from celery_mailer.render.images import Images, collecting
from celery_mailer.render.plaintext import plaintext
from celery_mailer.sources import Part, Source
from celery_mailer.subscriptions import rendering_for


def render(
    content: Content, source: Source | None, context: Mapping[str, Any] | None
) -> tuple[Message, Images]:
    """The message of ``content`` in its language and time zone, and the images that it shows inline.

    Without a ``source``, subject, text and HTML of ``content`` are templates if there is a ``context``.
    Beside one, they win over it. Subject and text are not HTML-escaped, HTML is; a text that nobody gave
    is made of the HTML. Raises ``RenderError``.
    """
    parts = source or Source("", content.language)
    zone = timezone.override(content.time_zone) if content.time_zone else nullcontext()
    language = translation.override(parts.language or None)
    with _faults_named(), language, zone, rendering_for(content), collecting() as images:
        subject = _part(content.subject, parts.subject, context, escape=False)
        html = finish(_part(content.html, parts.html, context, escape=True))
        text = _part(content.text, parts.text, context, escape=False) or plaintext(html)
        _check(subject + text + html)
    return Message(email_id=content.pk, subject=" ".join(subject.split()), text=text, html=html), images


def _part(given: str, part: Part | None, context: Mapping[str, Any] | None, *, escape: bool) -> str:
    """What the caller gave, a template if there is a context; else the part of the template."""
    if given:
        return given if context is None else rendered(compiled(given), context, escape=escape)
    return rendered(part.template, context or {}, escape=escape, block=part.block) if part is not None else ""


@contextmanager
def _faults_named() -> Iterator[None]:
    """Whatever a template ends in, as a ``RenderError`` that may be kept."""
    try:
        yield
    except (SoftTimeLimitExceeded, RenderError):
        raise  # the worker's haste is no fault of the template's
    except TemplateDoesNotExist as error:
        raise RenderError(f"the template {error} does not exist") from error
    except VariableDoesNotExist as error:
        # Its own text shows the whole context, and the fault is kept for longer than that may be.
        raise RenderError(f"the variable {error.params[0]!r} does not exist") from error
    except Exception as error:
        raise RenderError(f"{type(error).__name__}: {error}") from error


def _check(rendered: str) -> None:
    """Raise ``ValueError`` for what the database would refuse, and with it the rest of the slice."""
    rendered.encode()
    if "\x00" in rendered:
        raise ValueError("a NUL character was rendered")
