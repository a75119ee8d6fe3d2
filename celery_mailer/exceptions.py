"""What goes wrong, as types. The docstring is the message a reader needs."""

from django.core.exceptions import ImproperlyConfigured, ValidationError


class InvalidEmail(ValidationError, ValueError):
    """An argument was refused at the door: ``field`` names it, the message says what is wrong with it.

    Both a ``ValidationError`` (what django-post_office raises for addresses) and a ``ValueError``
    (what it raises for the rest), so that either ``except`` clause works.
    """

    def __init__(self, field: str, fault: str) -> None:
        super().__init__(f"{field}: {fault}", code="invalid")
        self.field = field
        self.fault = fault

    def __str__(self) -> str:
        return f"{self.field}: {self.fault}"

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.field, self.fault)


class IdempotencyConflict(InvalidEmail):
    """The idempotency key was used before, for another email."""


class UnsupportedOption(ValueError):
    """A Celery option was given to ``send_email`` that an email cannot honour."""


class InvalidSettings(ImproperlyConfigured):
    """``CELERY_MAILER`` has faults; the message lists each with its key."""


class UnknownProvider(ImproperlyConfigured):
    """No provider has this alias, or the alias leads back to the queueing backend itself."""


class RenderError(Exception):
    """A template does not exist, has bad syntax, or raised while it was rendered."""
