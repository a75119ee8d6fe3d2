"""The admin: each file registers what it is named for."""

from celery_mailer.admin import batches, emails, providers, templates

__all__ = ["batches", "emails", "providers", "templates"]
