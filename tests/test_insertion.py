"""Rows inserted the quick way are the rows that ``bulk_create`` makes."""

import pytest
from django.db import IntegrityError, connection, transaction
from django.forms.models import model_to_dict
from django.utils import timezone

from celery_mailer.models import Attempt, Content, Email
from celery_mailer.models.insertion import ENOUGH, insert
from celery_mailer.values import Outcome, Priority
from tests.factories import make_email

pytestmark = pytest.mark.django_db

ODD = "tab\t, line\n, back\\slash, \\N, \\., quote ' \" and ü 🎉"


def emails(number):
    return [
        Email(
            priority=Priority.HIGH,
            stream="transactional",
            to=[f"u{i}@example.com", '"Ünal, A." <b@exämple.com>'],
            message_id=f"<{i}@example.com>",
            due_at=timezone.now(),
        )
        for i in range(number)
    ]


def contents(number):
    made = [make_email() for _ in range(number)]
    Content.objects.all().delete()
    odd = {"subject": ODD, "headers": {"Z": ODD, "A": "1"}, "tags": [ODD], "metadata": {"n": 1, "t": ODD}}
    return [Content(email=e, from_email="a@example.com", context={"x": [1, None, ODD]}, **odd) for e in made]


def stored(row):
    return model_to_dict(type(row)._base_manager.get(pk=row.pk))


@pytest.mark.parametrize("number", [1, 2, ENOUGH])
@pytest.mark.parametrize("make", [emails, contents])
def test_every_number_of_rows_is_stored_as_it_was(make, number):
    rows = make(number)
    insert(rows, "default")
    assert [stored(row) for row in rows] == [model_to_dict(row) for row in rows]


@pytest.mark.parametrize("number", [1, 2, ENOUGH])
def test_what_was_inserted_can_be_saved_again(number):
    rows = emails(number)
    insert(rows, "default")
    rows[0].reason = "changed"
    rows[0].save()
    assert Email.objects.filter(reason="changed").count() == 1
    assert rows[0]._state.db == "default"


@pytest.mark.parametrize("number", [1, 2, ENOUGH])
def test_a_row_that_is_there_already_is_an_error(number):
    rows = emails(number)
    insert(rows, "default")
    with pytest.raises(IntegrityError), transaction.atomic():
        insert(rows, "default")


@pytest.mark.parametrize("number", [1, 2, ENOUGH])
def test_with_new_only_a_row_that_is_there_stays_and_the_others_come(number):
    rows = emails(number)
    insert(rows, "default")
    again = [Email(id=row.pk, priority=Priority.LOW, stream="x", due_at=timezone.now()) for row in rows]
    insert([*again, *emails(1)], "default", new_only=True)
    assert Email.objects.filter(priority=Priority.HIGH).count() == number + 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("number", [1, ENOUGH])
def test_new_only_outside_a_transaction_needs_none(number):
    rows = emails(number)
    insert(rows, "default")
    insert(rows, "default", new_only=True)
    assert not connection.in_atomic_block
    assert Email.objects.count() == number


@pytest.mark.parametrize("number", [1, ENOUGH])
def test_choices_and_times_are_stored(number):
    email, now = make_email(), timezone.now()
    made = {"claim": email.pk, "provider": "x", "started_at": now, "finished_at": now}
    facts = [Attempt(email=email, outcome=Outcome.ACCEPTED, **made) for _ in range(number)]
    insert(facts, "default")
    assert set(Attempt.objects.values_list("outcome", "started_at")) == {("accepted", now)}


def test_nothing_is_nothing():
    insert([], "default")
