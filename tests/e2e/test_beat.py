"""Scheduled and expired mail, and the schedule in the admin's hands, with beat as users run it."""

from tests.e2e.support import hurry_beat
from tests.site import wait_until


def test_scheduled_mail_goes_after_its_time_and_expired_mail_never(make_site, smtp):
    site = make_site()
    site.beat()
    hurry_beat(site)
    site.run("""
        from datetime import datetime, timezone
        from celery_mailer.tasks import send_email
        to = dict(message="m", recipient_list=["a@example.com"])
        send_email.apply_async(kwargs=dict(subject="in 4 s", **to), countdown=4)
        send_email.apply_async(kwargs=dict(subject="too late", **to), expires=0.2)
        send_email.apply_async(kwargs=dict(subject="next year", **to), countdown=365 * 86400)
    """)
    site.worker("-c", "1")  # only now, so that the second one is too late
    site.wait_for("sent", 1)
    site.wait_for("expired", 1)
    (received,) = smtp.received
    assert received.message["Subject"] == "in 4 s"
    late = site.run("""
        from celery_mailer.models import Attempt
        attempt = Attempt.objects.select_related("email").get()
        result = (attempt.started_at - attempt.email.scheduled_at).total_seconds()
    """)
    assert late >= 0
    assert site.statuses() == {"sent": 1, "expired": 1, "queued": 1}


def test_a_schedule_edited_in_the_admin_survives_migrate_and_restart(make_site, smtp):
    site = make_site()
    edited = site.run("""
        from django.contrib.auth.models import User
        from django.test import Client
        from django.test.utils import setup_test_environment
        from django_celery_beat.models import IntervalSchedule, PeriodicTask
        setup_test_environment()  # so that responses keep their context
        User.objects.create_superuser("root", password="root")
        client = Client()
        client.login(username="root", password="root")
        every, _ = IntervalSchedule.objects.get_or_create(every=2, period="seconds")
        task = PeriodicTask.objects.get(name="celery_mailer.dispatch")
        url = f"/admin/django_celery_beat/periodictask/{task.pk}/change/"
        form = client.get(url).context["adminform"].form
        data = {name: form[name].value() for name in form.fields if form[name].value() is not None}
        data |= {"interval": every.pk, "description": "edited", "regtask": task.task, "task": ""}
        response = client.post(url, data)
        result = [response.status_code, PeriodicTask.objects.get(pk=task.pk).interval.every]
    """)
    assert edited == [302, 2]
    first = site.beat()
    wait_until("beat ticks", lambda: first.output().count("celery_mailer.dispatch") >= 2)
    first.stop()
    site.migrate()
    second = site.beat()
    wait_until("beat ticks again", lambda: second.output().count("celery_mailer.dispatch") >= 2)
    second.stop()
    row = site.run("""
        from django_celery_beat.models import PeriodicTask
        task = PeriodicTask.objects.get(name="celery_mailer.dispatch")
        result = [task.interval.every, task.description, task.enabled]
    """)
    assert row == [2, "edited", True]
