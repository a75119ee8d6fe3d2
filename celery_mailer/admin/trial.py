"""A template tried out before it is saved: what it would say, with its samples or a real email's context."""

import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.core.exceptions import ValidationError
from django.template import TemplateSyntaxError
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from celery_mailer.admin.preview import LOADS, Hidden, data_urls, readable, remote_images, with_images
from celery_mailer.exceptions import RenderError
from celery_mailer.models import Content, Email, EmailTemplate, TemplateVersion
from celery_mailer.models.context import Loader
from celery_mailer.models.template import WORDS
from celery_mailer.render.templates import render
from celery_mailer.sources import of_version

OFFERED = 10  # emails whose context a template can be tried with


def attempt(given: Mapping[str, str], context_of: str = "") -> dict[str, Any]:
    """What the words in ``given`` come to, and what is wrong with them, by field.

    ``given`` is what a form holds: the words, ``language``, ``variables`` as JSON. ``context_of`` is the id
    of an email, in the place of the samples.
    """
    words = {field: given.get(field, "") for field in WORDS}
    language = given.get("language", "")
    row = EmailTemplate(name="-", language=language, **words)
    try:
        row.variables = json.loads(given.get("variables") or "{}")
        row.clean()
        faults: dict[str, list[str]] = {}
    except ValueError as error:
        return {"faults": {"variables": [str(error)]}}
    except ValidationError as error:
        faults = error.message_dict
        if "variables" in faults:  # there may be no samples in them
            return {"faults": faults}
    try:
        content, context = _context(context_of) if context_of else (Content(), row.samples)
        source = of_version(TemplateVersion(name="-", language=language, **words), language)
        message, images = render(Content(language=language, time_zone=content.time_zone), source, context)
    except TemplateSyntaxError:  # which is among the faults
        return {"faults": faults}
    except (RenderError, Hidden) as error:
        return {"faults": faults or {"": [str(error)]}}
    html = with_images(message.html, data_urls(images.images))
    return {
        "faults": faults,
        "subject": message.subject,
        "text": message.text,
        "html": html and f'<meta http-equiv="Content-Security-Policy" content="{LOADS}">{html}',
        "note": _blocked(html),
    }


def _blocked(html: str) -> str:
    number = remote_images(html)
    told = ngettext(
        "%(number)s image from elsewhere is not loaded.",
        "%(number)s images from elsewhere are not loaded.",
        number,
    )
    return told % {"number": number} if number else ""


def _context(pk: str) -> tuple[Content, dict[str, Any]]:
    """The content of the email with the id ``pk``, and its context. Raises ``Hidden``, ``RenderError``."""
    try:
        email = Email.objects.filter(pk=UUID(pk)).first()
    except ValueError:
        email = None
    if email is None:
        raise Hidden(_("There is no such email."))
    content, loader = readable(email), Loader()
    loader.expect(content.context)
    return content, loader.decode("context", content.context) or {}


def latest_emails(template: EmailTemplate) -> list[Email]:
    """Those that were written from ``template`` or its translations, and whose context may be seen."""
    family = [template.pk, *template.translated_templates.values_list("pk", flat=True)]
    versions = TemplateVersion.objects.filter(template__in=family).values_list("pk", flat=True)
    contents = Content.objects.filter(template_version__in=list(versions), sensitive=False, dropped=False)
    ids = contents.filter(context__isnull=False).order_by("-pk").values_list("pk", flat=True)[:OFFERED]
    return list(Email.objects.filter(pk__in=list(ids)).order_by("-pk"))
