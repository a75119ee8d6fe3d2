from celery_mailer.management.job import JobCommand
from celery_mailer.periodic import watch


class Command(JobCommand):
    job = watch
