from celery_mailer.management.job import JobCommand
from celery_mailer.periodic import rescue


class Command(JobCommand):
    job = rescue
