"""The admin: emails, templates, batches, events, suppressions. Each file registers what it is named for."""

from celery_mailer.admin import batches, emails, events, suppressions, templates

__all__ = ["batches", "emails", "events", "suppressions", "templates"]
