"""What a slice costs in queries, through all three stages."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from celery_mailer.deliver import pauses
from celery_mailer.deliver import slice as deliver_slice
from celery_mailer.deliver.breaker import breakers
from celery_mailer.deliver.slice import deliver_emails
from celery_mailer.log.settle import settle_emails
from celery_mailer.models import Email
from celery_mailer.render.stage import render_emails
from tests.factories import make_emails

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize(
    "arguments", [{}, {"subject": "{{ n }}", "context": {"n": 1}}], ids=["verbatim", "rendered"]
)
def test_a_slice_of_100_costs_at_most_13_queries(arguments, mailoutbox, monkeypatch):
    ids = [e.pk for e in make_emails(100, **arguments)]
    pace = deliver_slice.Pace(deliver_slice.WINDOW)
    pace.learn(0.001)  # a worker that has seen its server before
    monkeypatch.setattr(deliver_slice, "_pace", pace)
    monkeypatch.setattr(deliver_slice, "FLUSH_AFTER", 60.0)  # not what a busy machine's stalls cost
    monkeypatch.setattr(pauses, "FRESH", timedelta(minutes=1))
    breakers.peek("default")  # the breakers and the pauses are read once per second
    with CaptureQueriesContext(connection) as queries:
        render_emails(ids)
        assert deliver_emails(ids, seconds=60) == []
        settle_emails(ids)
    statements = [q["sql"] for q in queries if not q["sql"].startswith(("BEGIN", "COMMIT"))]
    print(*[s[:90] for s in statements], sep="\n")
    assert len(mailoutbox) == 100
    assert set(Email.objects.values_list("status", flat=True)) == {"sent"}
    assert len(statements) <= 13
