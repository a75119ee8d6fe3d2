from celery_mailer.management.job import JobCommand
from celery_mailer.periodic import match_events


class Command(JobCommand):
    job = match_events
