from django.dispatch import receiver

from celery_mailer.signals import email_failed
from shop.models import Customer


@receiver(email_failed)
def remember_unreachable(emails, **kwargs):
    """An address that its server refused gets no newsletter any more."""
    refused = [address for email in emails if email.reason == "recipient" for address in email.to]
    Customer.objects.filter(email__in=refused).update(unreachable=True)
