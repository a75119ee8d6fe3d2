"""``send_email`` by name, in canvases and from beat rows: a worker persists, the chain takes its place."""

from tests.e2e.support import assert_each_once, hurry_beat

CALL = 'dict(subject="s", message="m", recipient_list=["a@example.com"])'


def test_a_service_without_django_sends_by_name(make_site, smtp):
    site = make_site()
    site.worker("-c", "1")
    lane = site.queues["high"]
    site.run(f"""
        from celery import Celery
        app = Celery(broker={site.config["broker"]!r})
        app.send_task("celery_mailer.send_email", kwargs={CALL}, queue={lane!r})
    """)
    site.wait_for("sent", 1)
    assert_each_once(site, smtp, 1)
    priority = "from celery_mailer.models import Email\nresult = Email.objects.get().get_priority_display()"
    assert site.run(priority) == "high"


def test_groups_chains_and_chords_run_on_after_the_email_was_sent(make_site, smtp, tmp_path):
    site = make_site(celery={"RESULT_BACKEND": f"file://{tmp_path}"})
    site.worker("-c", "2")
    after = site.run(f"""
        from celery import chain, group
        from celery_mailer.models import Email
        from celery_mailer.tasks import send_email
        from tests.celeryapp import count_sent
        call = {CALL}
        one = chain(send_email.si(**call), count_sent.si()).apply_async()
        two = group(send_email.si(**call), send_email.si(**call)).apply_async()
        two.get(timeout=30)
        result = [one.get(timeout=30), Email.objects.count()]
    """)
    assert after[0] >= 1
    assert after[1] == 3
    site.wait_for("sent", 3)
    assert_each_once(site, smtp, 3)


def test_a_beat_row_with_json_arguments_sends(make_site, smtp):
    site = make_site()
    site.run("""
        from django_celery_beat.models import IntervalSchedule, PeriodicTask
        every, _ = IntervalSchedule.objects.get_or_create(every=1, period="seconds")
        PeriodicTask.objects.create(
            name="report", task="celery_mailer.send_email", interval=every,
            kwargs=json.dumps({"subject": "report", "message": "m", "recipient_list": ["a@example.com"]}),
        )
    """)
    site.beat()
    hurry_beat(site)
    site.worker("-c", "1")
    site.wait_for("sent", 2)
    assert {r.message["Subject"] for r in smtp.received} == {"report"}


def test_the_result_of_delay_is_known_by_the_id_of_the_email(make_site, tmp_path):
    site = make_site(celery={"RESULT_BACKEND": f"file://{tmp_path}"})
    site.worker("-c", "1")
    moved, is_email = site.run(f"""
        from celery_mailer.models import Email
        from celery_mailer.tasks import send_email
        sent = send_email.delay(**{CALL})
        result = [sent.get(timeout=30), Email.objects.filter(pk=sent.id).exists()]
    """)
    assert (moved, is_email) == (1, True)
