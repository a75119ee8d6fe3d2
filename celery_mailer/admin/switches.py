"""What is asked when something is to be stopped: why, and until when."""

from datetime import datetime
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from celery_mailer.models import Pause


class SwitchForm(forms.Form):
    """``kind`` and ``name`` of what is meant; the model knows which there are."""

    kind = forms.ChoiceField(choices=Pause.Subject.choices)
    name = forms.CharField(max_length=64)


class UntilForm(SwitchForm):
    until = forms.DateTimeField()

    def clean_until(self) -> datetime | None:
        until: datetime | None = self.cleaned_data["until"]
        if until is not None and until <= timezone.now():
            raise ValidationError(_("Give a time to come."))
        return until


class PauseForm(UntilForm):
    until = forms.DateTimeField(required=False)
    reason = forms.CharField(max_length=255)


def faults_of(form: forms.Form) -> list[str]:
    """What is wrong with it, each fault with the name of its field."""
    found: dict[str, Any] = form.errors.get_json_data()
    return [f"{name}: {fault['message']}" for name, faults in found.items() for fault in faults]
