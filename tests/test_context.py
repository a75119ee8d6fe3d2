"""A context goes through JSON and a worker, and comes out as it went in."""

import json
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext_lazy, override
from hypothesis import given
from hypothesis import strategies as st

from celery_mailer.exceptions import InvalidEmail, RenderError
from celery_mailer.models import context as module
from celery_mailer.models.context import Loader, encode


def through(value):
    stored = json.loads(json.dumps(encode("context", value), allow_nan=False))
    loader = Loader()
    loader.expect(stored)
    return loader.decode("context", stored)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        7,
        1.5,
        "text with {{ braces }} and ü",
        datetime(2026, 11, 21, 20, 0, tzinfo=UTC),
        datetime(2026, 11, 21, 20, 0, 0, 123456),  # noqa: DTZ001 naive ones stay naive
        date(2026, 11, 21),
        time(20, 15),
        timedelta(days=3, seconds=4, microseconds=5),
        timedelta(days=-1, hours=3),
        Decimal("12.340"),
        UUID("0192f3a0-7c1e-7a52-9d3b-5f0b8c6d2e41"),
        [1, [2, {"three": Decimal(3)}]],
        {"$": "looks like a tag", "nested": {"$": {"$": 1}}},
    ],
    ids=repr,
)
def test_a_value_survives(value):
    assert through(value) == value
    assert type(through(value)) is type(value)


def test_what_is_safe_stays_safe_and_what_is_not_does_not_become_so():
    assert isinstance(through(mark_safe("<b>")), SafeString)
    assert not isinstance(through("<b>"), SafeString)


def test_a_lazy_translation_is_written_in_the_active_language():
    with override("de"):
        assert encode("context", gettext_lazy("Yes")) == "Ja"


def test_a_tuple_becomes_a_list():
    assert through((1, 2)) == [1, 2]


_plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))
_values = st.recursive(
    _plain
    | _text
    | st.dates()
    | st.datetimes()
    | st.timedeltas()
    | st.uuids()
    | st.decimals(allow_nan=False),
    lambda inner: st.lists(inner) | st.dictionaries(_text | st.just("$"), inner),
)


@given(st.dictionaries(_text, _values))
def test_any_context_survives(context):
    assert through(context) == context


@pytest.mark.parametrize(
    ("value", "path", "fault"),
    [
        ({"a": object()}, "context['a']", "a object cannot be stored"),
        ({"a": [1, lambda: 2]}, "context['a'][1]", "a function cannot be stored"),
        ({"a": {"b": b"bytes"}}, "context['a']['b']", "a bytes cannot be stored"),
        ({"a": float("nan")}, "context['a']", "is not a finite number"),
        ({"a": "nul\x00"}, "context['a']", "has a NUL character"),
        ({"a": "half \ud83d"}, "context['a']", "has half of a surrogate pair"),
        ({"a": {1}}, "context['a']", "a set cannot be stored"),
        ({"a": {(1, 2): 3}}, "context['a']", "has a key that is a tuple"),
        ({"a": User(username="new")}, "context['a']", "an unsaved User cannot be stored"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_what_cannot_be_stored_is_refused_with_its_place(value, path, fault):
    with pytest.raises(InvalidEmail) as error:
        encode("context", value)
    assert (error.value.field, error.value.fault) == (path, fault)


@dataclass
class Money:
    amount: int
    currency: str


def test_an_own_type_joins_by_registration(monkeypatch):
    monkeypatch.setattr(module, "_codecs", dict(module._codecs))
    module.register("money", Money, lambda m: [m.amount, m.currency], lambda v: Money(*v))
    assert through({"price": Money(5, "EUR")}) == {"price": Money(5, "EUR")}


def test_a_type_that_is_registered_only_where_it_was_written_is_a_render_error():
    with pytest.raises(RenderError, match="nothing is registered as 'coin'"):
        Loader().decode("context", {"$": "coin", "v": 1})


@pytest.mark.django_db
class TestRows:
    def test_an_instance_is_loaded_fresh(self):
        user = User.objects.create(username="then")
        stored = encode("context", {"user": user})
        User.objects.update(username="now")
        assert Loader().decode("context", stored)["user"].username == "now"

    def test_no_field_of_an_instance_is_stored(self):
        user = User.objects.create(username="u", email="secret@example.com")
        assert "secret" not in json.dumps(encode("context", user))

    def test_a_queryset_keeps_its_rows_and_their_order(self):
        for name in "cab":
            Group.objects.create(name=name)
        stored = encode("context", Group.objects.order_by("-name"))
        Group.objects.create(name="later")
        rows = Loader().decode("context", stored)
        assert [g.name for g in rows] == ["c", "b", "a"]
        assert rows.count() == 3

    def test_a_deleted_row_is_a_clear_error(self):
        user = User.objects.create(username="u")
        stored = encode("context", {"user": user})
        pk = user.pk
        user.delete()
        with pytest.raises(RenderError, match=rf"context\['user'\]: auth.user {pk} does not exist any more"):
            Loader().decode("context", stored)

    def test_a_slice_of_contexts_costs_one_query_for_each_model(self, django_assert_num_queries):
        users = [User.objects.create(username=str(i)) for i in range(5)]
        groups = [Group.objects.create(name=str(i)) for i in range(5)]
        contexts = [encode("context", {"user": u, "group": g}) for u, g in zip(users, groups, strict=True)]
        with django_assert_num_queries(2):
            loader = Loader()
            for stored in contexts:
                loader.expect(stored)
            names = [loader.decode("context", stored)["user"].username for stored in contexts]
        assert names == ["0", "1", "2", "3", "4"]

    def test_a_row_that_was_not_announced_is_found_too(self):
        first, second = User.objects.create(username="1"), User.objects.create(username="2")
        loader = Loader()
        loader.expect(encode("context", first))
        assert loader.decode("context", encode("context", first)) == first
        assert loader.decode("context", encode("context", second)) == second

    def test_related_rows_are_read_in_the_template_as_usual(self):
        user = User.objects.create(username="u")
        user.user_permissions.add(Permission.objects.first())
        loaded = Loader().decode("context", encode("context", {"user": user}))["user"]
        assert loaded.user_permissions.count() == 1
