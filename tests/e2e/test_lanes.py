"""A password reset does not wait behind a newsletter."""

SLICE = 100


def test_a_high_email_overtakes_2000_low_ones(make_site, smtp):
    site = make_site(mailer="{}")
    site.run("""
        from celery_mailer import mail
        low = dict(subject="low", message="m", priority="low")
        mail.send_many([dict(recipients=f"u{i}@example.com", **low) for i in range(2000)])
    """)
    site.worker("-c", "1")
    smtp.wait_for(100)
    site.run("""
        from celery_mailer.tasks import send_email
        send_email.delay(subject="high", message="m", recipient_list=["a@example.com"], priority="high")
    """)
    site.wait_for("sent", 2001)
    overtaken_by, waited = site.run("""
        from celery_mailer.models import Attempt
        high = Attempt.objects.select_related("email").get(email__priority=2)
        between = Attempt.objects.filter(started_at__range=(high.email.created_at, high.started_at))
        waited = high.started_at - high.email.created_at
        result = [between.exclude(pk=high.pk).count(), waited.total_seconds()]
    """)
    print(f"{overtaken_by} low emails went before it, {waited:.2f} s")
    # Before its render and before its deliver: the slice that runs, and what the worker had fetched ahead.
    assert overtaken_by <= 6 * SLICE
