"""Tokens: what is signed comes back, and nothing else does."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_mailer import tokens
from celery_mailer.tokens import Mark, Purpose, Subscription
from celery_mailer.values import uuid7

URLS = st.text(st.characters(codec="utf-8"), max_size=60)
IDS = st.uuids().filter(lambda value: value.int)
MARKS = st.one_of(
    IDS.map(Mark),
    st.builds(
        Mark, st.none(), st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40),
        st.none() | IDS,
    ),
)  # fmt: skip


@given(MARKS, URLS)
def test_a_mark_comes_back_as_it_was_signed(mark, url):
    token = tokens.sign(Purpose.CLICK, tokens.pack_mark(mark, url))
    assert tokens.read_mark(Purpose.CLICK, token) == (mark, url)


@given(IDS, st.binary(min_size=32, max_size=32), st.text(st.characters(codec="utf-8"), max_size=40))
def test_a_subscription_comes_back_as_it_was_signed(email_id, digest, stream):
    subscription = Subscription(email_id, digest.hex(), stream)
    token = tokens.sign(Purpose.UNSUBSCRIBE, tokens.pack_subscription(subscription))
    assert tokens.read_subscription(Purpose.UNSUBSCRIBE, token) == subscription


@given(st.text())
def test_what_was_not_signed_is_nothing(text):
    assert tokens.read(Purpose.OPEN, text) is None


@pytest.mark.parametrize("other", [p for p in Purpose if p != Purpose.OPEN])
def test_a_token_for_one_purpose_is_none_for_another(other):
    token = tokens.sign(Purpose.OPEN, b"x")
    assert tokens.read(other, token) is None


@pytest.mark.parametrize("place", [0, 5, -1])
def test_a_token_with_one_character_changed_is_none(place):
    token = list(tokens.sign(Purpose.OPEN, b"some payload"))
    token[place] = "A" if token[place] != "A" else "B"
    assert tokens.read(Purpose.OPEN, "".join(token)) is None


def test_a_token_survives_a_new_secret_key(settings):
    token = tokens.sign(Purpose.OPEN, b"x")
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "new", [settings.SECRET_KEY]
    assert tokens.read(Purpose.OPEN, token) == b"x"


def test_a_token_of_a_key_that_was_given_up_is_none(settings):
    token = tokens.sign(Purpose.OPEN, b"x")
    settings.SECRET_KEY = "new"
    assert tokens.read(Purpose.OPEN, token) is None


def test_a_token_is_for_a_path_as_it_stands():
    token = tokens.sign(Purpose.CLICK, tokens.pack_mark(Mark(uuid7()), "https://example.com/ü?a=1&b=2#x"))
    assert set(token) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.")


def test_the_token_of_a_pixel_is_short():
    assert len(tokens.sign(Purpose.OPEN, tokens.pack_mark(Mark(UUID(int=1))))) <= 67


def test_the_address_follows_from_where_the_urls_are_included(settings):
    settings.CELERY_MAILER = {"TRACKING": {"BASE_URL": "https://m.example.com/"}}
    assert tokens.prefix(Purpose.OPEN) == "https://m.example.com/mail/o/"


def test_there_is_no_address_without_a_base_url(settings):
    settings.CELERY_MAILER = {}
    assert tokens.prefix(Purpose.OPEN) is None


def test_there_is_no_address_where_the_urls_are_not_included(settings):
    settings.ROOT_URLCONF = "celery_mailer.urls"
    assert tokens.prefix(Purpose.OPEN) is None
