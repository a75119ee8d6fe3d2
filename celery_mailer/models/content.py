"""What an email says: ``Content`` is what the caller gave, ``Message`` what rendering made of it."""

from django.db import models

from celery_mailer.models.email import Email
from celery_mailer.models.fields import OrderedJSON, QuickJSON
from celery_mailer.models.quick import QuickRow
from celery_mailer.models.template import TemplateVersion


class Content(QuickRow):
    """The caller's words: sources when there is a template or a context, else verbatim."""

    email = models.OneToOneField(Email, models.CASCADE, primary_key=True)
    from_email = models.TextField()
    reply_to = QuickJSON(default=list)
    headers = OrderedJSON(default=dict)
    subject = models.TextField(blank=True)
    text = models.TextField(blank=True)
    html = models.TextField(blank=True)
    template = models.CharField(max_length=255, blank=True)
    template_version = models.ForeignKey(
        TemplateVersion,
        models.PROTECT,
        null=True,
        related_name="contents",
        help_text="of a database template: as it was at the call, or at the rendering",
    )
    render_on_delivery = models.BooleanField(
        default=False, help_text="from the template as it is then; nothing rendered is kept"
    )
    context = OrderedJSON(null=True)
    language = models.CharField(max_length=35, blank=True)
    time_zone = models.CharField(max_length=64, blank=True)
    tags = QuickJSON(default=list)
    metadata = OrderedJSON(default=dict)
    shape = OrderedJSON(default=dict, help_text="what text and html do not say: subtype, alternatives…")
    has_attachments = models.BooleanField(default=False)
    sensitive = models.BooleanField(default=False, help_text="dropped when the email is final")
    track_opens = models.CharField(max_length=10, blank=True, help_text="the mode asked for; empty: none")
    track_clicks = models.CharField(max_length=10, blank=True)
    dropped = models.BooleanField(default=False, help_text="forgotten, by its retention or as sensitive")
    fingerprint = models.CharField(max_length=64, blank=True, help_text="what an idempotency key stands for")

    def __str__(self) -> str:
        return f"content of {self.email_id}"

    @property
    def needs_rendering(self) -> bool:
        """Whether a template engine has to run; a verbatim body is never parsed as a template."""
        return bool(self.template) or self.context is not None


class Message(QuickRow):
    """The rendered thing that goes out. Verbatim emails have none: their content is their message.

    A table of its own because rendering a slice is then one multi-row INSERT, which is idempotent
    (``ignore_conflicts``) and leaves no dead rows behind, where updating a hundred contents is not.
    """

    email = models.OneToOneField(Email, models.CASCADE, primary_key=True, related_name="rendered")
    subject = models.TextField(blank=True)
    text = models.TextField(blank=True)
    html = models.TextField(blank=True)

    def __str__(self) -> str:
        return f"message of {self.email_id}"
