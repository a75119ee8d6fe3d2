from celery_mailer.management.job import JobCommand
from celery_mailer.periodic import settle


class Command(JobCommand):
    job = settle
