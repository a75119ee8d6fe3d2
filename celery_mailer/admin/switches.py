"""What is asked when something is to be stopped: why, and until when."""

from datetime import datetime
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from celery_mailer.models import Pause

# A batch has a page and a permission of its own: who may switch providers may not therefore stop batches.
SWITCHED = [choice for choice in Pause.Subject.choices if choice[0] != Pause.Subject.BATCH]


class SwitchForm(forms.Form):
    """``kind`` and ``name`` of what is meant; the model knows which there are."""

    kind = forms.ChoiceField(choices=SWITCHED)
    name = forms.CharField(max_length=64)


class UntilForm(SwitchForm):
    until = forms.DateTimeField(label=_("Until"))

    def clean_until(self) -> datetime | None:
        until: datetime | None = self.cleaned_data["until"]
        if until is not None and until <= timezone.now():
            raise ValidationError(_("Give a time to come."))
        return until


class PauseForm(UntilForm):
    until = forms.DateTimeField(required=False, label=_("Until"))
    reason = forms.CharField(max_length=255, label=_("Reason"))


class BatchPauseForm(PauseForm):
    """For the batch whose page it is on."""

    kind = name = None  # type: ignore[assignment]  # by which Django leaves the fields out


def faults_of(form: forms.Form) -> list[str]:
    """What is wrong with it, each fault with the label of its field."""
    found: dict[str, Any] = form.errors.get_json_data()
    labels = {name: field.label or name for name, field in form.fields.items()}
    return [
        f"{labels.get(name, name)}: {fault['message']}" for name, faults in found.items() for fault in faults
    ]
