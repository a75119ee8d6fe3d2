from celery_mailer.management.job import JobCommand
from celery_mailer.periodic import cleanup


class Command(JobCommand):
    job = cleanup
