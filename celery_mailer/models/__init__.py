"""The tables: a narrow hot row per email, and what belongs to it in tables of their own."""

from celery_mailer.models.alarm import Alarm
from celery_mailer.models.attachment import Attachment, Enclosure
from celery_mailer.models.attempt import Attempt, ProviderMessage
from celery_mailer.models.batch import Batch
from celery_mailer.models.bucket import Bucket
from celery_mailer.models.captured import CapturedMessage
from celery_mailer.models.content import Content, Message
from celery_mailer.models.decision import Decision
from celery_mailer.models.email import Email
from celery_mailer.models.event import Event, Feedback
from celery_mailer.models.figure import Figure
from celery_mailer.models.pause import Pause
from celery_mailer.models.provider import ProviderChange, ProviderState
from celery_mailer.models.recipient import FurtherRecipient
from celery_mailer.models.suppression import Suppression
from celery_mailer.models.tally import Tally
from celery_mailer.models.template import EmailTemplate, TemplateVersion

__all__ = [
    "Alarm", "Attachment", "Attempt", "Batch", "Bucket", "CapturedMessage", "Content", "Decision", "Email",
    "EmailTemplate", "Enclosure", "Event", "Feedback", "Figure", "FurtherRecipient", "Message", "Pause",
    "ProviderChange", "ProviderMessage", "ProviderState", "Suppression", "Tally",
    "TemplateVersion",
]  # fmt: skip
