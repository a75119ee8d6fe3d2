"""By what a request is recognised that was made before: its idempotency key, and what the key stands for."""

import hashlib
import json
from typing import Any

from celery_mailer.attaching import File
from celery_mailer.exceptions import InvalidEmail
from celery_mailer.models import Content, Email
from celery_mailer.models.context import storable_text


def hashed_key(value: Any) -> str | None:
    """What is stored of an idempotency key: its hash. Keys often hold an address, MySQL folds their case."""
    if value is None:
        return None
    if not isinstance(value, str) or not 1 <= len(value) <= 255:
        raise InvalidEmail("idempotency_key", "must be a string of 1 to 255 characters")
    return hashlib.sha256(storable_text("idempotency_key", value).encode()).hexdigest()


def fingerprint(email: Email, content: Content, files: list[File]) -> str:
    """What an idempotency key stands for: who gets what. When and how fast it goes is not part of it."""
    who = [email.to, email.cc, email.bcc, email.stream]
    fields = (
        "from_email",
        "reply_to",
        "headers",
        "subject",
        "text",
        "html",
        "template",
        "template_version_id",
        "context",
        "language",
    )
    what = [getattr(content, name) for name in fields] + [content.tags, content.metadata, content.shape]
    what += [[file.name, file.mimetype, file.digest] for file in files]
    return hashlib.sha256(json.dumps([who, what], sort_keys=True).encode()).hexdigest()
