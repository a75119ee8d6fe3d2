"""What there is to know about an email beside what it says, as labels and values."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from django.urls import NoReverseMatch, reverse
from django.utils import timezone
from django.utils.formats import date_format, number_format
from django.utils.functional import Promise
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from celery_mailer.admin.words import LANES, REASONS, STATUSES, said
from celery_mailer.models import Content, Email
from celery_mailer.models.content import Message


def mark(status: str, words: Any = STATUSES) -> SafeString:
    """A status or an outcome, coloured."""
    return format_html('<span class="mailer-mark" data-mark="{}">{}</span>', status, said(words, status))


def percent(share: float) -> str:
    """A share between 0 and 1, to three figures."""
    return f"{number_format(Decimal(f'{100 * share:.3g}'))} %"


def subject_of(email: Email) -> str:
    """The subject as far as it is known, and may be: as it was rendered, else as it was given."""
    content: Content | None = getattr(email, "content", None)
    if content is None or content.sensitive:
        return ""
    rendered: Message | None = getattr(email, "rendered", None)
    return rendered.subject if rendered is not None else content.subject


def facts(email: Email) -> list[tuple[str | Promise, Any]]:
    """Those that are there, in order."""
    return [(label, value) for label, value in [*_of_email(email), *_of_content(email)] if value]


def _of_email(email: Email) -> Iterator[tuple[str | Promise, Any]]:
    yield _("Status"), mark(email.status)
    yield _("Reason"), said(REASONS, email.reason) if email.reason else ""
    for label, addresses in ((_("To"), email.to), (_("Cc"), email.cc), (_("Bcc"), email.bcc)):
        yield label, ", ".join(addresses)
    yield _("Lane"), said(LANES, email.priority)
    yield _("Stream"), email.stream
    yield _("Provider"), email.provider
    yield _("Created"), email.created_at
    yield _("Scheduled"), email.scheduled_at
    yield _("Expires"), email.expires_at
    yield _("Due"), email.due_at
    yield _("Finished"), email.finished_at
    yield _("Attempts that count"), str(email.attempt_count)
    yield _("Batch"), email.batch_id and link("batch", email.batch_id)
    yield _("Sent again from"), email.resent_from_id and link("email", email.resent_from_id)
    for again in email.resends.order_by("pk").values_list("pk", flat=True)[:10]:
        yield _("Sent again as"), link("email", again)
    yield _("Id"), str(email.pk)
    yield _("Message-ID"), email.message_id


def _of_content(email: Email) -> Iterator[tuple[str | Promise, Any]]:
    content: Content | None = getattr(email, "content", None)
    if content is None:
        return
    yield _("From"), content.from_email
    yield _("Reply to"), ", ".join(content.reply_to)
    yield _("Template"), _template(content)
    yield _("Language"), content.language
    yield _("Tags"), ", ".join(content.tags)
    yield _("Metadata"), ", ".join(f"{name}: {value}" for name, value in content.metadata.items())


def _template(content: Content) -> SafeString | str:
    version = content.template_version
    template = version.template if version is not None else None
    if version is None or template is None:
        return content.template
    page = link("emailtemplate", template.default_template_id or template.pk, content.template)
    at = version.created_at
    of = date_format(timezone.localtime(at) if timezone.is_aware(at) else at, "DATETIME_FORMAT")
    return format_html("{} ({})", page, _("the version of %(time)s") % {"time": of})


def link(model: str, pk: Any, text: str = "") -> SafeString | str:
    """To the page of a row of this app."""
    try:
        return format_html(
            '<a href="{}">{}</a>', reverse(f"admin:celery_mailer_{model}_change", args=[pk]), text or pk
        )
    except NoReverseMatch:  # it is not registered here
        return text or str(pk)
