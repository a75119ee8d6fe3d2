"""Addresses: what is taken, how it is written, what goes into the envelope."""

from contextlib import suppress
from email.headerregistry import Address, AddressHeader

import django
import pytest
from django.core.mail import EmailMessage
from hypothesis import given
from hypothesis import strategies as st

from celery_mailer import addresses
from celery_mailer.addresses import bare, clean, clean_list, named, parse
from celery_mailer.deliver.message import wire_bytes
from celery_mailer.exceptions import InvalidEmail

MODERN = django.VERSION >= (6, 0)

TAKEN = [
    ("a@example.com", "a@example.com"),
    (" a@example.com\n", "a@example.com"),
    ("<a@example.com>", "<a@example.com>"),
    ("Ann <a@example.com>", "Ann <a@example.com>"),
    ('"Ann" <a@example.com>', '"Ann" <a@example.com>'),
    ('"Doe, Ann" <a@example.com>', '"Doe, Ann" <a@example.com>'),
    ("Ann Doe<a@example.com>", "Ann Doe<a@example.com>"),
    ("Jörg <a@example.com>", "Jörg <a@example.com>"),
    # What Django refuses without quotes gets some.
    ("Dr. Who <a@example.com>", '"Dr. Who" <a@example.com>' if MODERN else "Dr. Who <a@example.com>"),
    ("山田\u3000太郎 <a@example.com>", "山田\u3000太郎 <a@example.com>"),
    ("👩\u200d💻 <a@example.com>", "👩\u200d💻 <a@example.com>"),
    ("a@bücher.example", "a@bücher.example"),
    ("Ann <a@bücher.example>", "Ann <a@bücher.example>"),
    ("a@localhost", "a@localhost"),
    ("a@[127.0.0.1]", "a@[127.0.0.1]"),
    ('"a\\"b"@example.com', '"a\\"b"@example.com'),
]


@pytest.mark.parametrize(("given_", "written"), TAKEN)
def test_an_address_keeps_its_spelling(given_, written):
    assert clean("to", given_) == written


REFUSED = [
    "",
    "a",
    "@example.com",
    "a@",
    "a@b@example.com",
    "<",
    "Ann <",
    "a b@example.com",
    "a@example.com, b@example.com",
    "Doe, Ann <a@example.com>",
    "Ann <a@example.com> <b@example.com>",
    "group: a@example.com, b@example.com;",
    "a@example.com\r\nBcc: b@example.com",
    "a@example.com>\nRSET",
    "Ann\x00 <a@example.com>",
    "Ann\u2028 <a@example.com>",
    "Ann\ud83d <a@example.com>",
    "=?utf-8?q?a=0Ab?= <a@example.com>",
    "ä@example.com",
    "ſ@example.com",  # the validator, ignoring case, takes it for an s
    "a@x＞b.example",  # in ASCII: a@x>b.example
    "a@x＠b.example",  # in ASCII: a@x@b.example
    "a@℀.example",  # in ASCII: a@a/c.example
    "a@b\u00adc.example",  # an invisible hyphen
    "a@" + "ü" * 60 + ".example",  # in ASCII, the label is too long
    "a" * 320 + "@example.com",
]


@pytest.mark.parametrize("address", REFUSED)
def test_what_is_no_address_is_refused(address):
    with pytest.raises(InvalidEmail):
        clean("to", address)


def test_a_refusal_names_the_field_and_not_the_address():
    with pytest.raises(InvalidEmail, match=r"^cc\[1\]: is not a valid email address$") as caught:
        clean_list("cc", ["a@example.com", "secret"])
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, []),
        ("", []),
        ("a@example.com", ["a@example.com"]),
        (("a@example.com", "b@example.com"), ["a@example.com", "b@example.com"]),
        (["a@example.com", " b@example.com "], ["a@example.com", "b@example.com"]),
        ((a for a in ["a@example.com"]), ["a@example.com"]),
    ],
)
def test_a_list_may_be_given_in_several_ways(value, expected):
    assert clean_list("to", value) == expected


@pytest.mark.parametrize(
    ("address", "envelope"),
    [
        ("Ann <a@example.com>", "a@example.com"),
        ('"Doe, Ann" <a@example.com>', "a@example.com"),
        ("a@bücher.example", "a@xn--bcher-kva.example"),
        ("Ann <a@bücher.example>", "a@xn--bcher-kva.example"),
    ],
)
def test_the_envelope_has_the_bare_address_in_ascii(address, envelope):
    assert bare(address) == envelope


def test_two_addresses_are_not_one():
    with pytest.raises(ValueError, match="not one address"):
        parse("a@example.com, b@example.com")


name = st.text(max_size=20)
spec = st.builds("{}@{}".format, st.text(min_size=1, max_size=10), st.text(min_size=1, max_size=20))
sane_spec = st.builds(
    "{}@{}.example".format,
    st.text("abc.+'\"\\", min_size=1, max_size=8),
    st.text("aöß漢-.＞", min_size=1, max_size=8),
)


@given(st.one_of(st.text(), spec, sane_spec, st.builds("{} <{}>".format, name, st.one_of(spec, sane_spec))))
def test_whatever_is_taken_can_be_written(text):
    try:
        address = clean("to", text)
    except InvalidEmail:
        return
    assert clean("to", address) == address
    envelope = bare(address)
    assert envelope.isascii()
    assert envelope.isprintable()
    assert bare(envelope) == envelope
    data = wire_bytes(EmailMessage("s", "b", "shop@example.com", [address]))
    assert data.count(b"\r\n\r\n") == 1


def test_a_named_address_that_is_taken_is_found_by_the_search():
    # Guards the test above: its strategies do find addresses that are taken.
    found = []

    @given(st.builds("{} <{}>".format, name, sane_spec))
    def search(text):
        with suppress(InvalidEmail):
            found.append(clean("to", text))

    search()
    assert found


words = st.from_regex(r"\w{1,5}( \w{1,5}){0,2}", fullmatch=True)
plain_spec = st.from_regex(r"[a-zA-Z0-9_+.-]{1,6}@[a-zA-Z0-9.-]{1,6}", fullmatch=True)


@given(words, plain_spec)
def test_a_plain_address_is_taken_apart_as_the_parser_would(name, spec):
    text = f"{name} <{spec}>"
    if addresses._PLAIN.fullmatch(text):
        (box,) = AddressHeader.value_parser(text).mailboxes
        assert parse(text) == (box.display_name, box.addr_spec)
        assert named(name, spec) == str(Address(name, addr_spec=spec)) == text


def test_a_usual_name_with_an_address_is_plain():
    assert addresses._PLAIN.fullmatch("Ada Lovelace <ada.l+news@mail.example.com>")
