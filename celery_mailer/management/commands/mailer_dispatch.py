from celery_mailer.management.job import JobCommand
from celery_mailer.periodic import dispatch


class Command(JobCommand):
    job = dispatch
