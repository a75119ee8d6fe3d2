"""Template tags for mail: ``{% load celery_mailer %}``."""

from typing import Any

from django import template
from django.template import Context
from django.utils.safestring import SafeString, mark_safe

from celery_mailer.render.images import reference
from celery_mailer.subscriptions import current_url
from celery_mailer.tokens import Purpose

register = template.Library()


@register.simple_tag(takes_context=True)
def inline_image(context: Context, file: Any) -> SafeString:
    """``<img src="{% inline_image 'img/logo.png' %}">``: the image travels with the mail.

    ``file`` is the path of a static file, an absolute path (see ``celery_mailer.render.images.read``), the
    value of an ImageField, or a file. On a page, that is with a request, the image becomes a part of the
    page. An image that cannot be read raises if the engine's ``debug`` is on, and is left out if not.
    """
    debug = context.template is not None and context.template.engine.debug
    # What it says is written by ``reference`` itself: a cid: or data: URL, or nothing.
    return mark_safe(reference(file, debug=debug, page=hasattr(context, "request")))  # noqa: S308


@register.simple_tag
def unsubscribe_url() -> str:
    """Where the recipient leaves the stream of the mail; empty in mail of a stream that one cannot leave.

    ``{% unsubscribe_url as url %}{% if url %}<a href="{{ url }}">Unsubscribe</a>{% endif %}``
    """
    return current_url(Purpose.UNSUBSCRIBE)


@register.simple_tag
def preferences_url() -> str:
    """Where the recipient chooses among the streams that one can leave; empty as ``unsubscribe_url`` is."""
    return current_url(Purpose.PREFERENCES)
