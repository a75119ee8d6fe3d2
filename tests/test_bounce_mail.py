"""A folder of mail as it comes back from all kinds of servers: classified right, recipient and code."""

import csv
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_mailer.models import Event, Suppression
from celery_mailer.tracking.bounce_mail import read
from celery_mailer.tracking.events import record
from tests.factories import make_email

FOLDER = Path(__file__).parent / "bounces"
PLACEHOLDER = b"<177763680000.4242.1@mail.shop.example>"


def expectations():
    """By file, what it says of each recipient."""
    found = defaultdict(list)
    with (FOLDER / "expected.csv").open(newline="") as lines:
        for file, *said in csv.reader(lines):
            found[file].append(tuple(said))
    del found["file"]
    return dict(found)


EXPECTED = expectations()
BOUNCES = [file for file, said in EXPECTED.items() if said != [("",) * 6]]


def sample(file):
    return (FOLDER / file).read_bytes()


def told(raw):
    return [
        (h.kind, h.bounce, h.recipient, str(h.code or ""), h.enhanced_code, h.message_id) for h in read(raw)
    ]


def test_the_folder_has_at_least_forty():
    assert len(EXPECTED) >= 40
    assert set(EXPECTED) == {path.name for path in FOLDER.glob("*.eml")}


@pytest.mark.parametrize("file", BOUNCES)
def test_what_comes_back_is_understood(file):
    assert told(sample(file)) == EXPECTED[file]


@pytest.mark.parametrize("file", sorted(EXPECTED.keys() - set(BOUNCES)))
def test_what_is_no_bounce_is_left_alone(file):
    assert read(sample(file)) == []


@pytest.mark.parametrize("file", BOUNCES)
def test_line_ends_of_the_wire_make_no_difference(file):
    assert told(sample(file).replace(b"\n", b"\r\n")) == EXPECTED[file]


def test_its_time_and_its_own_id_are_those_of_the_report():
    (happening,) = read(sample("postfix-unknown-user.eml"))
    assert happening.at == datetime(2026, 5, 1, 12, 0, 5, tzinfo=UTC)
    assert happening.event_id == "<postfix-unknown-user@mx.example.net>"
    assert happening.provider == "mx.example.net"


@pytest.mark.parametrize("field", ["Delivered-To", "X-Original-To", "To"])
def test_an_id_in_the_address_it_came_to_names_the_email(field):
    raw = sample("simple-mapi-without-original.eml")
    came_to = f"{field}: bounces+0192F3A07C1E7A529D3B5F0B8C6D2E41@shop.example\n".encode()
    (happening,) = read(came_to + raw.replace(b"To: bounces@shop.example\n", b""))
    assert happening.email_id == UUID("0192f3a0-7c1e-7a52-9d3b-5f0b8c6d2e41")


@pytest.mark.parametrize("encoding", ["base64", "quoted-printable"])
def test_a_report_that_was_encoded_on_its_way_is_read(encoding):
    import base64
    import quopri

    raw = sample("courier-base64-report.eml")
    head, mark, rest = raw.partition(b"Content-Type: message/delivery-status\n\n")
    fields, end, tail = rest.partition(b"\n\n--=_report")
    coded = base64.encodebytes(fields) if encoding == "base64" else quopri.encodestring(fields)
    encoded = mark.rstrip(b"\n") + b"\nContent-Transfer-Encoding: " + encoding.encode() + b"\n\n" + coded
    assert told(head + encoded + end + tail) == EXPECTED["courier-base64-report.eml"]


@pytest.mark.parametrize("date", [b"Date: never", b"Date: Fri, 01 May 2026 12:00:05", b"X-Date: gone"])
def test_a_date_that_cannot_be_read_is_no_reason_to_lose_a_bounce(date):
    raw = sample("qmail-no-mailbox.eml").replace(b"Date: Fri, 01 May 2026 12:00:05 +0000", date, 1)
    (happening,) = read(raw)
    assert happening.at.tzinfo is not None


@pytest.mark.django_db
@pytest.mark.parametrize("file", BOUNCES)
def test_every_bounce_can_be_recorded(file):
    assert record(read(sample(file))) == len(EXPECTED[file])
    assert record(read(sample(file))) == 0


@pytest.mark.django_db
def test_a_bounce_finds_its_email_and_suppresses():
    email = make_email(to="ada@example.org")
    raw = sample("postfix-unknown-user.eml").replace(PLACEHOLDER, email.message_id.encode())
    record(read(raw))
    assert Event.objects.get().email == email
    assert Suppression.objects.get().address == "ada@example.org"


@pytest.mark.django_db
def test_a_complaint_that_hides_the_recipient_is_known_by_the_email():
    email = make_email(to="ada@example.org")
    raw = sample("arf-redacted.eml").replace(PLACEHOLDER, email.message_id.encode())
    record(read(raw))
    assert Suppression.objects.get().reason == "complaint"
    assert Suppression.objects.get().address == "ada@example.org"


@pytest.mark.django_db
def test_a_bounce_that_somebody_made_up_suppresses_nobody():
    make_email(to="ada@example.org")
    record(read(sample("postfix-unknown-user.eml")))
    assert Event.objects.get().email is None
    assert not Suppression.objects.exists()


@given(st.binary(max_size=2000))
def test_no_mail_is_too_odd_to_be_looked_at(raw):
    assert isinstance(read(raw), list)


@given(st.sampled_from(BOUNCES), st.lists(st.tuples(st.integers(0, 3000), st.binary(max_size=8)), max_size=5))
def test_no_damage_on_the_way_raises(file, wounds):
    raw = bytearray(sample(file))
    for at, wound in wounds:
        raw[at : at + len(wound)] = wound
    assert all(h.key for h in read(bytes(raw)))
