"""The endpoint for load balancers and monitors."""

from datetime import timedelta

import pytest
from django.db import OperationalError
from django.http import HttpResponse
from django.test import RequestFactory
from django.utils import timezone

from celery_mailer import health
from celery_mailer.models import Email
from tests.factories import make_email

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def forget():
    health._ages_at.cache_clear()


def ask(query="", method="get"):
    response = getattr(RequestFactory(), method)(f"/health{query}")
    return health.health(response)


def answered(query=""):
    response = ask(query)
    return response.status_code, response.content.decode()


def wait_for_an_hour(**arguments):
    make_email(**arguments)
    Email.objects.update(created_at=timezone.now() - timedelta(hours=1))


def test_mail_is_taken():
    assert answered() == (200, '{"status": "ok"}')


def test_without_a_database_it_is_not(monkeypatch):
    def refused(*fields, **options):
        raise OperationalError("password authentication failed for user 'shop'")

    monkeypatch.setattr(Email.objects, "values_list", refused)
    assert answered() == (503, '{"status": "the database cannot be read"}')


def test_it_costs_one_query(django_assert_num_queries):
    wait_for_an_hour()
    with django_assert_num_queries(1):
        ask()


def test_mail_that_waits_is_no_reason_to_take_a_host_out_of_service():
    wait_for_an_hour()
    assert answered()[0] == 200


def test_a_monitor_hears_of_mail_that_waits_for_too_long():
    wait_for_an_hour(priority="low")
    assert answered("?max_wait=3000") == (503, '{"status": "late", "lanes": ["low"]}')


def test_a_monitor_hears_nothing_of_mail_that_does_not_wait_for_so_long():
    wait_for_an_hour()
    assert answered("?max_wait=4000") == (200, '{"status": "ok"}')


def test_what_waits_is_not_looked_up_for_each_call(django_assert_num_queries, monkeypatch):
    monkeypatch.setattr(health, "monotonic", lambda: 17.0)
    ask("?max_wait=10")
    with django_assert_num_queries(1):
        ask("?max_wait=20")


def test_what_is_no_number_is_refused():
    assert answered("?max_wait=soon")[0] == 400


def test_nobody_keeps_the_answer():
    assert "no-store" in ask()["Cache-Control"]


def test_it_needs_no_login():
    assert health.health.login_required is False


@pytest.mark.parametrize(("method", "status"), [("head", 200), ("post", 405), ("delete", 405)])
def test_it_only_answers_to_questions(method, status):
    response = ask(method=method)
    assert isinstance(response, HttpResponse)
    assert response.status_code == status
