"""Sending an email again: as a new one, which names the old."""

from email.utils import make_msgid
from functools import partial

from django.core.mail.utils import DNS_NAME
from django.db import router, transaction
from django.utils import timezone

from celery_mailer import chain, conf
from celery_mailer.exceptions import InvalidEmail
from celery_mailer.models import Attachment, Content, Email, Enclosure
from celery_mailer.signals import email_queued
from celery_mailer.values import FINAL, Priority, Status

RESENDABLE = FINAL | {Status.UNCERTAIN}
OF_EMAIL = ("to", "cc", "bcc", "stream", "log_level")
OF_CONTENT = (
    "from_email", "reply_to", "subject", "text", "html", "template", "template_version", "render_on_delivery",
    "context", "language", "time_zone", "tags", "metadata", "shape", "sensitive",
    "track_opens", "track_clicks",
)  # fmt: skip


def resend(email: Email) -> Email:
    """Queue an email like ``email``, with an id and a Message-ID of its own; returns it.

    What came from a template is rendered anew: from the version of then; a template file, as it is now. The
    new one is due now, and stands for no idempotency key. Raises ``InvalidEmail`` if ``email`` is still to be
    sent, or if its content was dropped.
    """
    using = router.db_for_write(Email)
    content = Content.objects.using(using).get(email=email)
    if email.status not in RESENDABLE:
        raise InvalidEmail("email", "is still to be sent")
    if content.dropped:
        raise InvalidEmail("email", "cannot be sent again, for what it said is no longer stored")
    with transaction.atomic(using=using):
        again = _copy(email, content)
        again.save(using=using, force_insert=True)
        _enclose_again(again, email, using)
    transaction.on_commit(partial(chain.start, [again.pk], again.priority), using=using)
    queued = partial(email_queued.send_robust, sender=Email, emails=[again])
    transaction.on_commit(queued, using=using, robust=True)
    return again


def _copy(email: Email, content: Content) -> Email:
    """``email`` anew, unsaved, with the content that its ``save`` will save."""
    settings, now = conf.get(), timezone.now()
    again = Email(
        priority=min(email.priority, Priority.HIGH),  # "now" would be in the process of who asks for it
        provider=email.provider if email.provider in settings.providers else "",
        message_id=make_msgid(domain=settings.message_id_fqdn or DNS_NAME.get_fqdn()),
        created_at=now,
        due_at=now + settings.lease,  # its chain is started at once
        expires_at=email.expires_at if email.expires_at and email.expires_at > now else None,
        resent_from=email,
        **{name: getattr(email, name) for name in OF_EMAIL},
    )
    # One that the caller chose was that of the email of then.
    headers = {name: value for name, value in content.headers.items() if name.lower() != "message-id"}
    again.content = Content(email=again, headers=headers, **{n: getattr(content, n) for n in OF_CONTENT})
    return again


def _enclose_again(again: Email, email: Email, using: str) -> None:
    """Hang the same files on ``again``; the images of a template come with its rendering."""
    rows = list(Enclosure.objects.using(using).filter(email=email, content_id=None).order_by("position"))
    if not rows:
        return
    ids = [enclosure.attachment_id for enclosure in rows]
    Attachment.objects.using(using).filter(pk__in=ids).update(used_at=timezone.now())
    for enclosure in rows:
        enclosure.pk, enclosure.email = None, again
    Enclosure.objects.using(using).bulk_create(rows)
    Content.objects.using(using).filter(pk=again.pk).update(has_attachments=True)
