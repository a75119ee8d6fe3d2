"""Templates that people edit, and every version of them that was saved or sent."""

import hashlib
import json
from typing import Any

from django.core.exceptions import ValidationError
from django.db import models, router, transaction
from django.template import TemplateSyntaxError
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from celery_mailer.engine import compiled, lacking
from celery_mailer.models.fields import OrderedJSON

WORDS = ("subject", "content", "html_content")


class EmailTemplate(models.Model):
    """A template in one language: the default one, or a translation of it, under the same name.

    ``variables`` declares what the template needs, each with a sample value (``None`` for what may be
    missing); a translation without its own takes the default template's. What has bad syntax, or uses what is
    not declared, is refused by ``save`` with a ``ValidationError``.
    """

    name = models.CharField(_("name"), max_length=255, blank=True)
    language = models.CharField(_("language"), max_length=35, blank=True, default="")
    default_template = models.ForeignKey(
        "self",
        models.CASCADE,
        null=True,
        blank=True,
        related_name="translated_templates",
        verbose_name=_("default template"),
    )
    subject = models.CharField(_("subject"), max_length=998, blank=True)  # a line's length, RFC 5322, 2.1.1
    content = models.TextField(_("text"), blank=True)
    html_content = models.TextField(_("HTML"), blank=True)
    description = models.TextField(_("description"), blank=True)
    variables = OrderedJSON(
        _("variables"),
        default=dict,
        blank=True,
        help_text=_("What the template needs, each with a sample value; null for what may be missing."),
    )
    created_at = models.DateTimeField(_("created"), default=timezone.now, editable=False)
    updated_at = models.DateTimeField(_("changed"), auto_now=True)

    class Meta:
        verbose_name = _("email template")
        verbose_name_plural = _("email templates")
        ordering = ["name", "language"]
        constraints = [
            models.UniqueConstraint(fields=["name", "language"], name="mailer_template_name_language")
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.language})" if self.language else self.name

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Check, save, keep the version; translations follow when the default template is renamed."""
        self.clean()
        using = kwargs.get("using") or router.db_for_write(EmailTemplate, instance=self)
        with transaction.atomic(using=using):
            super().save(*args, **kwargs)
            self.translated_templates.exclude(name=self.name).update(name=self.name)
            self.version()

    def clean(self) -> None:
        """Raise ``ValidationError``, by field, for what could not be rendered."""
        if self.default_template is not None:
            self.name = self.default_template.name
        if not self.name:
            raise ValidationError({"name": _("A template needs a name.")})
        if not isinstance(self.variables, dict):
            raise ValidationError({"variables": _("Give an object: names with sample values.")})
        faults = {field: fault for field in WORDS if (fault := self._fault(field))}
        if faults:
            raise ValidationError(faults)
        if self.pk is not None:
            self._check_translations()

    def _check_translations(self) -> None:
        for translated in self.translated_templates.all():
            translated.default_template = self
            for field in WORDS if not translated.variables else ():
                if fault := translated._fault(field):
                    raise ValidationError({"variables": f"{translated.language}, {field}: {fault}"})

    @property
    def samples(self) -> dict[str, Any]:
        """The declared variables with their sample values."""
        inherited = self.default_template.variables if self.default_template is not None else {}
        return dict(self.variables or inherited)

    def _fault(self, field: str) -> str:
        """Why ``field`` could not be rendered, or nothing."""
        try:
            template = compiled(getattr(self, field))
            missing = lacking(template, self.samples, self.language) if self.samples else []
        except TemplateSyntaxError as error:
            return gettext("Bad syntax: %(fault)s") % {"fault": error}
        except Exception as error:
            fault = f"{type(error).__name__}: {error}"
            return gettext("With the samples, it ends in %(fault)s") % {"fault": fault}
        if not missing:
            return ""
        return gettext("Uses what variables do not declare: %(names)s") % {"names": ", ".join(missing)}

    def version(self) -> "TemplateVersion":
        """The version with the words as they are now; made if they were changed behind ``save``'s back."""
        words = {field: getattr(self, field) for field in WORDS}
        digest = hashlib.sha256(json.dumps([self.language, *words.values()]).encode()).hexdigest()
        values = {"name": self.name, "language": self.language, **words}
        versions = TemplateVersion.objects.using(self._state.db)
        return versions.get_or_create(template=self, digest=digest, defaults=values)[0]


class TemplateVersion(models.Model):
    """The words of a template at one time. Emails refer to it, so it outlives the template."""

    template = models.ForeignKey(EmailTemplate, models.SET_NULL, null=True, related_name="versions")
    digest = models.CharField(max_length=64, editable=False)
    name = models.CharField(max_length=255)
    language = models.CharField(max_length=35, blank=True)
    subject = models.CharField(max_length=998, blank=True)
    content = models.TextField(blank=True)
    html_content = models.TextField(blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["template", "digest"], name="mailer_version_template_digest")
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.language or '-'}) of {self.created_at:%Y-%m-%d %H:%M}"


def delete_unused_versions() -> int:
    """Delete what is left of deleted templates and was used by no email that is still there."""
    return TemplateVersion.objects.filter(template=None, contents=None).delete()[0]
