"""A template backend for mail that is put together by hand: its templates hand on the images they show.

    TEMPLATES = [..., {
        "NAME": "post_office",  # or any other
        "BACKEND": "celery_mailer.render.backend.EmailTemplates",
        "APP_DIRS": True,
    }]

    template = get_template("welcome.html", using="post_office")
    html = template.render(context)
    message.attach_alternative(html, "text/html")
    template.attach_related(message)

Mail that this app renders needs none of it: there, ``{% inline_image %}`` works in every engine.
"""

from collections.abc import Sequence
from typing import Any

import django
from django.core.mail import EmailMessage
from django.http import HttpRequest
from django.template.backends.django import DjangoTemplates
from django.template.backends.django import Template as DjangoTemplate

from celery_mailer import conf
from celery_mailer.attaching import Image, image_part
from celery_mailer.engine import with_aliases
from celery_mailer.render.images import collected, collecting


class Template(DjangoTemplate):
    """A template that remembers the images which it showed when it was last rendered."""

    images: Sequence[Image] = ()

    def render(self, context: dict[str, Any] | None = None, request: HttpRequest | None = None) -> str:
        outer = collected()
        with collecting() as found:
            html = super().render(context, request)
        self.images = found.images
        if outer is not None:  # this is a fragment of an email that is being rendered
            for image in self.images:
                outer.add(image)
        return html

    def attach_related(self, message: EmailMessage) -> None:
        """Attach the images of the last ``render`` to ``message``, which has its HTML.

        Sent through this app's queue, the HTML and its images become one ``multipart/related`` (RFC 2387).
        Sent by Django itself, all parts of the message do in Django 5.2; later ones know only
        ``multipart/mixed``, whose inline images are shown just so.
        """
        if self.images and django.VERSION < (6, 0):
            vars(message)["mixed_subtype"] = "related"
        for image in self.images:
            message.attach(image_part(image))


class EmailTemplates(DjangoTemplates):
    """Django's templates, which can attach the images that they show; takes the same OPTIONS."""

    def __init__(self, params: dict[str, Any]) -> None:
        super().__init__(params)
        if not conf.problems():  # settings with faults are left to the system checks, which load engines too
            with_aliases(self.engine)

    def from_string(self, template_code: str) -> Template:
        return Template(self.engine.from_string(template_code), self)

    def get_template(self, template_name: str) -> Template:
        return Template(super().get_template(template_name).template, self)
