"""The forms in which a template and its translations are edited, together."""

import json
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.forms.formsets import DELETION_FIELD_NAME
from django.forms.models import BaseInlineFormSet
from django.utils.translation import gettext as translated
from django.utils.translation import gettext_lazy as _

from celery_mailer import conf
from celery_mailer.models import EmailTemplate


class Code(forms.Textarea):
    """A place to write a template in."""

    def __init__(self, kind: str = "") -> None:
        attrs = {"class": f"mailer-code {kind}".strip(), "spellcheck": "false", "wrap": "soft", "rows": "6"}
        super().__init__({**attrs, "autocapitalize": "off"})


class VariablesField(forms.JSONField):
    """Names with sample values; left empty, none."""

    widget = Code

    def prepare_value(self, value: Any) -> Any:
        if value is None or isinstance(value, dict):
            return json.dumps(value, ensure_ascii=False, indent=2) if value else ""
        return super().prepare_value(value)

    def to_python(self, value: Any) -> Any:
        return {} if value in self.empty_values else super().to_python(value)

    def has_changed(self, initial: Any, data: Any) -> bool:
        return super().has_changed(initial or {}, data or "{}")


def languages(*more: str) -> list[tuple[str, str]]:
    """The languages of the project, and those that ``more`` are in."""
    known = {code: translated(name) for code, name in conf.languages().items()}
    known |= {code: code for code in more if code and code not in known}
    return sorted(known.items(), key=lambda pair: pair[1].lower())


class WordsForm(forms.ModelForm):  # type: ignore[type-arg]
    """A template in one language."""

    language = forms.ChoiceField(label=_("Language"))
    variables = VariablesField(
        label=_("Variables"), required=False, help_text=EmailTemplate._meta.get_field("variables").help_text
    )

    class Meta:
        model = EmailTemplate
        fields: tuple[str, ...] = ("language", "subject", "content", "html_content", "variables")
        widgets = {
            "subject": forms.TextInput({"class": "vLargeTextField"}),
            "content": Code(),
            "html_content": Code(),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field: Any = self.fields.get("language")
        if field is not None:
            field.choices = [("", "---------"), *languages(self.instance.language)]


class TranslationForm(WordsForm):
    variables = VariablesField(
        label=_("Variables"),
        required=False,
        help_text=_("Only if they are other ones than those of the default template."),
    )

    def add_error(self, field: str | None, error: Any) -> None:
        """Add it, unless it is about the name: that is the default template's, and stands there."""
        faults = getattr(error, "error_dict", None)
        if faults is not None:
            faults.pop("name", None)
            if not faults:
                return
        super().add_error(field, error)


class DefaultForm(WordsForm):
    language = forms.ChoiceField(
        label=_("Language"), required=False, help_text=_("Of the words below; empty if they are in none.")
    )

    class Meta(WordsForm.Meta):
        fields = ("name", "description", *WordsForm.Meta.fields)
        widgets = {
            **WordsForm.Meta.widgets,
            "description": forms.Textarea({"class": "vLargeTextField", "rows": "2"}),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk is not None:
            _leave_translations_to_their_forms(self.instance)

    def clean_name(self) -> str:
        name: str = self.cleaned_data["name"]
        others = EmailTemplate.objects.filter(name=name, default_template=None)
        if others.exclude(pk=self.instance.pk).exists():
            raise ValidationError(_("There is a template of this name. Add a translation to it instead."))
        return name


def _leave_translations_to_their_forms(template: EmailTemplate) -> None:
    """Keep ``template.clean`` from judging the stored translations: they are being edited beside it.

    A variable could not be renamed in all of them at once otherwise. Each translation's own form is
    validated against the new variables.
    """
    rows = template.translated_templates.all()
    rows._result_cache = []
    template._prefetched_objects_cache = {"translated_templates": rows}  # type: ignore[attr-defined]


class TranslationFormSet(BaseInlineFormSet):  # type: ignore[type-arg]
    """No two of them may be in one language, nor one in the default template's."""

    def clean(self) -> None:
        super().clean()
        # What is stored counts too, even if it is given up by this very form: rows are written one by one.
        stored = {form.initial["language"]: form for form in self.initial_forms}
        taken = {self.instance.language: None, **stored}
        for form in self.forms:
            given = getattr(form, "cleaned_data", {})
            language = given.get("language")
            if not language or given.get(DELETION_FIELD_NAME):
                continue
            if taken.setdefault(language, form) is not form:
                form.add_error("language", translated("There is another translation in this language."))
