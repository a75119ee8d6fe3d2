"""What a trace says of a stage; the spans are those of OpenTelemetry's own instrumentation of Celery."""

import os
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from celery import current_app, signals
from celery.app.trace import build_tracer
from django.utils import timezone
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.trace import TracerProvider, sampling
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from celery_mailer import spans
from celery_mailer.deliver.task import deliver
from celery_mailer.log.task import log
from celery_mailer.render.task import render
from celery_mailer.testing import provider_fails
from tests.celeryapp import count_sent
from tests.factories import make_attempt, make_email, make_emails

pytestmark = pytest.mark.django_db


@pytest.fixture
def exporter():
    return InMemorySpanExporter()


@pytest.fixture
def instrument(exporter):
    """Switches the instrumentation on; its spans go to ``exporter``."""

    def instrument(sampler=sampling.ALWAYS_ON):
        provider = TracerProvider(sampler=sampler)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        CeleryInstrumentor().instrument(tracer_provider=provider)

    yield instrument
    CeleryInstrumentor().uninstrument()


@pytest.fixture
def span(exporter, instrument):
    """Runs a task and returns what its span says of mail, without the prefix."""
    instrument()

    def span(task, emails, **request):
        run(task, emails, **request)
        attributes = exporter.get_finished_spans()[-1].attributes
        prefix = "celery_mailer."
        return {k.removeprefix(prefix): v for k, v in attributes.items() if k.startswith(prefix)}

    return span


def run(task, emails, queue="mail.medium", **request):
    """Run ``task`` as a worker does: with the request that came with the broker's message."""
    args = [[str(email.pk) for email in emails]]
    request = {"args": args, "kwargs": {}, "delivery_info": {"routing_key": queue}, **request}
    trace = build_tracer(task.name, task, app=current_app, propagate=True)
    trace(task.name, args, {}, request)


def test_deliver_says_how_many_went_by_whom_and_what_came_of_it(span):
    emails = make_emails(3)
    assert span(deliver, emails) == {
        "email.count": 3,
        "lane": "medium",
        "stream": ("transactional",),
        "provider": ("default",),
        "outcome.accepted": 3,
    }


def test_an_earlier_attempt_is_not_counted_again(span):
    email = make_email()
    make_attempt(email, email.pk, "deferred", started_at=timezone.now() - timedelta(hours=1))
    found = span(deliver, [email])
    assert found["outcome.accepted"] == 1
    assert "outcome.deferred" not in found


def test_a_failure_is_an_outcome(span):
    with provider_fails("rcpt", 550):
        found = span(deliver, [make_email()])
    assert found["outcome.rejected"] == 1


def test_log_says_where_the_emails_stand(span):
    emails = make_emails(2)
    run(deliver, emails)
    found = span(log, emails)
    assert found["status.sent"] == 2
    assert found["stream"] == ("transactional",)


def test_the_documentation_names_every_attribute(exporter, span):
    email = make_email()
    for stage in (render, deliver, log):
        span(stage, [email])
    told = {name for found in exporter.get_finished_spans() for name in found.attributes}
    ours = {re.sub(r"\.(outcome|status)\.\w+", r".\1.<\1>", n) for n in told if n.startswith("celery_mailer")}
    page = Path(__file__).parent.parent / "docs/pages/howto/opentelemetry.md"
    assert set(re.findall(r"^\| `(celery_mailer[^`]+)`", page.read_text(), re.MULTILINE)) == ours


def test_a_single_email_is_named(span):
    email = make_email(priority="high")
    found = span(render, [email], queue="mail.high")
    assert found["email.id"] == str(email.pk)
    assert found["lane"] == "high"


def test_what_went_along_is_counted(span):
    """Render tells the rest of its chain whom it took along; Celery has taken deliver off that by then."""
    first, second = make_emails(2)
    ids = [str(first.pk), str(second.pk)]
    steps = [log.si(ids), deliver.si(ids)]
    assert span(render, [first], chain=[dict(step) for step in steps])["email.count"] == 2


def test_in_a_queue_of_the_projects_own_no_lane_is_named(span):
    assert "lane" not in span(render, [make_email()], queue="celery")


def test_no_address_and_no_text_is_in_a_span(exporter, span):
    email = make_email(to="ada@example.com", subject="a secret", message="a secret")
    for stage in (render, deliver, log):
        run(stage, [email])
    told = "".join(found.to_json() for found in exporter.get_finished_spans())
    assert str(email.pk) in told
    assert "ada@" not in told
    assert "secret" not in told


@pytest.mark.usefixtures("span")
def test_a_task_of_the_projects_own_is_left_alone(exporter):
    trace = build_tracer(count_sent.name, count_sent, app=current_app, propagate=True)
    trace("id", (), {}, {})
    (found,) = exporter.get_finished_spans()
    assert not [name for name in found.attributes if name.startswith("celery_mailer")]


def test_the_database_is_not_asked_for_a_span_that_nobody_records(instrument, django_assert_num_queries):
    email = make_email()
    run(deliver, [email])
    with django_assert_num_queries(1):
        run(deliver, [email])
    instrument(sampling.ALWAYS_OFF)
    with django_assert_num_queries(1):
        run(deliver, [email])


def test_an_instrumentation_that_was_there_first_is_told_too(span):
    signals.task_prerun.disconnect(dispatch_uid="celery_mailer.spans")
    signals.task_success.disconnect(dispatch_uid="celery_mailer.spans")
    email = make_email()
    assert span(render, [email]) == {}
    spans.connect()
    assert span(render, [email])["email.count"] == 1


def test_without_opentelemetry_nothing_is_connected():
    code = """if True:
        import sys
        sys.modules["opentelemetry.trace"] = None  # as if it were not installed
        import django
        django.setup()
        from celery.signals import task_prerun, task_success
        from celery_mailer import spans
        assert not spans.INSTALLED
        for signal in (task_prerun, task_success):
            assert not [key for key, _ in signal.receivers if "celery_mailer.spans" in key]
    """
    env = os.environ | {"DJANGO_SETTINGS_MODULE": "tests.settings"}
    subprocess.run([sys.executable, "-c", code], check=True, env=env)
