"""A password reset does not wait behind a newsletter, and a newsletter for nothing."""

from itertools import pairwise

import pytest

SLICE = 100
AWAY = 0.02  # seconds until the server says that it has taken a mail
MANY = """
    from celery_mailer import mail
    low = dict(subject="low", message="m", priority="low")
    mail.send_many([dict(recipients=f"u{{i}}@example.com", **low) for i in range({number})])
"""
CLAIMS = """
    from collections import Counter
    from celery_mailer.models import Attempt
    result = list(Counter(map(str, Attempt.objects.values_list("claim", flat=True))).values())
"""
OVERTAKEN = """
    from datetime import datetime
    from celery_mailer.models import Attempt
    high = Attempt.objects.get(email__priority=2)
    asked_at = datetime.fromisoformat("{asked_at}")
    result = Attempt.objects.filter(started_at__range=(asked_at, high.started_at)).exclude(pk=high.pk).count()
"""


def test_a_high_email_overtakes_2000_low_ones(make_site, smtp):
    site = make_site(mailer="{}")
    site.run("""
        from celery_mailer import mail
        low = dict(subject="low", message="m", priority="low")
        mail.send_many([dict(recipients=f"u{i}@example.com", **low) for i in range(2000)])
    """)
    site.worker("-c", "1")
    smtp.wait_for(100)
    asked_at = site.run("""
        from celery_mailer.tasks import send_email
        from django.utils import timezone
        send_email.delay(subject="high", message="m", recipient_list=["a@example.com"], priority="high")
        result = timezone.now().isoformat()
    """)
    site.wait_for("sent", 2001)
    overtaken_by = site.run(OVERTAKEN.format(asked_at=asked_at))
    # Before its render and before its deliver: the slice that runs, and what the worker had fetched ahead.
    assert overtaken_by <= 6 * SLICE


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_while_nobody_waits_a_slice_is_not_cut(make_site, smtp, pool):
    site = make_site(broker="redis", mailer="{}")
    smtp.delay = AWAY
    site.run(MANY.format(number=3 * SLICE))
    site.worker("-c", "1", "-P", pool)
    site.wait_for("sent", 3 * SLICE)
    # A third of a second has room for 15; the first slices of a process are smaller, the last is halved.
    assert max(site.run(CLAIMS)) > 3 * 0.33 / AWAY


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_two_workers_share_the_last_slice(make_site, smtp, pool):
    site = make_site(broker="redis", mailer="{}")
    smtp.delay = AWAY
    site.worker("-c", "2", "-P", pool)
    site.run(MANY.format(number=SLICE))
    site.wait_for("sent", SLICE)
    ends = site.run("""
        from django.db.models import Max, Min
        from celery_mailer.models import Attempt
        claims = Attempt.objects.values_list("claim").annotate(Min("started_at"), Max("finished_at"))
        claims = claims.order_by("started_at__min")
        result = [[begun.timestamp(), done.timestamp()] for _, begun, done in claims]
    """)
    assert any(begun < done for (_, done), (begun, _) in pairwise(ends))


@pytest.mark.slow
@pytest.mark.parametrize("multiplier", [1, 4])
def test_a_high_email_cuts_a_slice_that_goes_on(make_site, smtp, multiplier):
    site = make_site(broker="redis", mailer="{}", celery={"WORKER_PREFETCH_MULTIPLIER": multiplier})
    smtp.delay = AWAY
    site.run(MANY.format(number=6 * SLICE))
    site.worker("-c", "1")
    smtp.wait_for(SLICE)
    asked_at = site.run("""
        from celery_mailer.tasks import send_email
        from django.utils import timezone
        send_email.delay(subject="high", message="m", recipient_list=["a@example.com"], priority="high")
        result = timezone.now().isoformat()
    """)
    site.wait_for("sent", 6 * SLICE + 1)
    overtaken_by = site.run(OVERTAKEN.format(asked_at=asked_at))
    # Before its render and before its deliver: a third of a second of the slice that runs, and of each that
    # was fetched ahead. If nothing cut them, it would be three seconds of each.
    assert overtaken_by < 2 * (1 + multiplier) * 0.5 / AWAY
