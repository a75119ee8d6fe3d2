"""The admin: emails, templates and batches. Each file registers what it is named for."""

from celery_mailer.admin import batches, emails, templates

__all__ = ["batches", "emails", "templates"]
