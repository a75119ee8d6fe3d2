"""Rows made and read quickly are those that Django makes and reads."""

import copy
import pickle

import pytest
from django.db import models
from django.db.models.signals import post_init, pre_init

from celery_mailer.models import Batch, Content, Email
from celery_mailer.models.fields import OrderedJSON, QuickJSON
from celery_mailer.models.insertion import new, point
from tests.factories import make_email

pytestmark = pytest.mark.django_db


def slow(row):
    """``row`` as ``Model.from_db`` makes it."""
    fields = [f.attname for f in row._meta.concrete_fields]
    method = models.Model.from_db.__func__
    return method(type(row), row._state.db, fields, [row.__dict__[name] for name in fields])


def parts(row):
    values = {name: value for name, value in row.__dict__.items() if name[0] != "_"}
    return values, row._state.adding, row._state.db, row._state.fields_cache


def test_a_row_is_what_django_makes_of_it():
    email = Email.objects.get(pk=make_email(headers={"X-A": "1"}, tags=["a"]).pk)
    assert parts(email) == parts(slow(email))
    content = Content.objects.get(pk=email.pk)
    assert parts(content) == parts(slow(content))


def test_a_field_that_was_deferred_is_read_when_it_is_asked_for(django_assert_num_queries):
    pk = make_email().pk
    email = Email.objects.defer("stream").get(pk=pk)
    assert email.get_deferred_fields() == {"stream"}
    with django_assert_num_queries(1):
        assert email.stream == "transactional"


def test_related_rows_come_along(django_assert_num_queries):
    pk = make_email(subject="along").pk
    with django_assert_num_queries(1):
        assert Email.objects.select_related("content", "rendered").get(pk=pk).content.subject == "along"


def test_a_row_can_be_saved_copied_and_pickled():
    email = Email.objects.get(pk=make_email().pk)
    email.reason = "changed"
    email.save()
    email.refresh_from_db()
    assert email.reason == "changed"
    for other in (copy.copy(email), pickle.loads(pickle.dumps(email))):
        assert parts(other) == parts(email)


@pytest.mark.parametrize("signal", [pre_init, post_init])
def test_who_listens_to_the_signals_of_init_hears_them(signal):
    pk = make_email().pk
    heard = []

    def listen(sender, **kwargs):
        heard.append(sender)

    signal.connect(listen, sender=Email)
    try:
        Email.objects.get(pk=pk)
    finally:
        signal.disconnect(listen, sender=Email)
    assert heard == [Email]


@pytest.mark.parametrize("field", [QuickJSON(), OrderedJSON()])
@pytest.mark.parametrize("text", ["[]", "{}", "[1]", '{"a": []}', "null", '""', "[ ]"])
def test_json_is_what_django_makes_of_it(field, text):
    plain = models.JSONField().from_db_value(text, None, None)
    assert field.from_db_value(text, None, None) == plain


def test_no_two_rows_share_what_is_empty():
    field = QuickJSON()
    assert field.from_db_value("[]", None, None) is not field.from_db_value("[]", None, None)


@pytest.mark.parametrize("model", [Email, Content])
def test_a_new_row_has_the_defaults_of_django(model):
    quick, plain = new(model), model()
    changing = {"id", "created_at"}
    assert {k: v for k, v in parts(quick)[0].items() if k not in changing} == {
        k: v for k, v in parts(plain)[0].items() if k not in changing
    }
    assert set(quick.__dict__) == set(plain.__dict__)


def test_no_two_new_rows_share_a_default():
    assert new(Email).to is not new(Email).to


@pytest.mark.parametrize(("model", "name", "other"), [(Content, "email", Email), (Email, "batch", Batch)])
def test_to_point_at_a_row_is_to_assign_it(model, name, other):
    pk = (make_email() if other is Email else Batch.objects.create(total=1)).pk
    targets = other.objects.get(pk=pk), other.objects.get(pk=pk)
    pointed, assigned = new(model), new(model)
    point(pointed, name, targets[0])
    setattr(assigned, name, targets[1])
    assert getattr(pointed, f"{name}_id") == getattr(assigned, f"{name}_id") == pk
    assert getattr(pointed, name) is targets[0]
    assert targets[0]._state.fields_cache.keys() == targets[1]._state.fields_cache.keys()
