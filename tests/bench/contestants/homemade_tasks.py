"""The task that projects write for themselves."""

from smtplib import SMTPException

from celery import shared_task
from django.core.mail import send_mail

from tests.bench.contestants.django_mail import rendered


@shared_task(autoretry_for=(SMTPException, OSError), retry_backoff=True, max_retries=5)
def send_mail_task(context, recipient):
    subject, text, html = rendered(context)
    send_mail(subject, text, None, [recipient], html_message=html)
