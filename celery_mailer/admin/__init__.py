"""The admin: each file registers what it is named for."""

from celery_mailer.admin import batches, emails, events, providers, suppressions, templates

__all__ = ["batches", "emails", "events", "providers", "suppressions", "templates"]
