"""A folder of mail as it comes back from all kinds of servers: classified right, recipient and code."""

import codecs
import csv
from collections import defaultdict
from datetime import UTC, datetime
from email import message_from_bytes
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_mailer.models import Event, Suppression
from celery_mailer.return_path import with_token
from celery_mailer.tracking.bounce_mail import read
from celery_mailer.tracking.events import record
from celery_mailer.tracking.mail_parts import LONGEST, LONGEST_HEADER, MOST_RECIPIENTS, header, text_of
from tests.factories import make_email

EMAIL = UUID("0192f3a0-7c1e-7a52-9d3b-5f0b8c6d2e41")
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
def test_a_token_in_the_address_it_came_to_names_the_email(field):
    raw = sample("simple-mapi-without-original.eml")
    came_to = f"{field}: {with_token('bounces@shop.example', EMAIL)}\n".encode()
    (happening,) = read(came_to + raw.replace(b"To: bounces@shop.example\n", b""))
    assert happening.email_id == EMAIL


def test_an_address_that_we_did_not_sign_names_no_email():
    came_to = f"Delivered-To: {with_token('bounces@shop.example', EMAIL).replace('+a', '+b', 1)}\n".encode()
    (happening,) = read(came_to + sample("simple-mapi-without-original.eml"))
    assert happening.email_id is None


def test_what_it_was_forwarded_to_does_not_hide_the_address_it_came_to():
    came_to = f"Delivered-To: ops@other.example\nDelivered-To: {with_token('b@shop.example', EMAIL)}\n"
    (happening,) = read(came_to.encode() + sample("simple-mapi-without-original.eml"))
    assert happening.email_id == EMAIL


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


@pytest.mark.parametrize(
    "date",
    [
        b"Date: never",
        b"Date: Fri, 31 Dec 9999 23:59:59 -1400",
        b"Date: Fri, 01 May 2026 12:00:05",
        b"X-Date: gone",
    ],
)
def test_a_date_that_cannot_be_read_is_no_reason_to_lose_a_bounce(date):
    raw = sample("qmail-no-mailbox.eml").replace(b"Date: Fri, 01 May 2026 12:00:05 +0000", date, 1)
    (happening,) = read(raw)
    assert happening.at.astimezone(UTC)


REPORT = """\
From: MAILER-DAEMON@mx.example.net
Content-Type: multipart/report; report-type=delivery-status; boundary=B

--B
Content-Type: text/plain; charset={charset}

{text}
--B
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example.net

Final-Recipient: {recipient}
Action: failed
Status: 5.1.1

--B--
"""


@pytest.mark.parametrize("character", ["D800", "00"])
def test_an_address_that_cannot_be_stored_is_cleaned(character):
    raw = REPORT.format(
        charset="utf-8", text="", recipient=f"utf-8; a\\x{{{character}}}b@example.com"
    ).encode()
    (happening,) = read(raw)
    assert storable(happening.recipient)
    assert happening.recipient.endswith("b@example.com")


@pytest.mark.parametrize(("charset", "half"), [("utf-7", "+2AA-"), ("raw_unicode_escape", "\\ud800")])
def test_words_that_cannot_be_stored_are_cleaned(charset, half):
    raw = REPORT.format(
        charset=charset, text=f"a@example.com {half} unknown", recipient="rfc822; a@example.com"
    ).encode()
    (happening,) = read(raw)
    assert storable(happening.text)
    assert happening.text.endswith("unknown")


def test_a_header_with_broken_base64_is_read_as_it_is():
    raw = sample("qmail-no-mailbox.eml").replace(b"Subject: ", b"Subject: =?utf-8?b?a?= ", 1)
    assert told(raw) == EXPECTED["qmail-no-mailbox.eml"]


def part_with(text, charset):
    return message_from_bytes(f"Content-Type: text/plain; charset={charset}\n\n".encode() + text)


@pytest.mark.parametrize("charset", ["utf-8", "utf-16-le", "shift_jis", "gb18030", "iso-2022-jp", "utf-7"])
def test_a_long_text_is_read_from_its_beginning(charset):
    text = text_of(part_with(("a" + "日" * LONGEST).encode(charset), charset))
    assert text.startswith("a日日日")
    assert LONGEST // 5 < len(text) <= LONGEST


def test_of_a_long_text_only_so_much_is_decoded(monkeypatch):
    lengths = []

    def measure(raw, errors):
        lengths.append(len(raw))
        return "", len(raw)

    codec = codecs.CodecInfo(encode=None, decode=measure, name="measured")
    find = {"measured": codec}.get
    codecs.register(find)
    try:
        text_of(part_with(b"x" * (2 * LONGEST), "measured"))
    finally:
        codecs.unregister(find)
    assert lengths == [LONGEST]


@pytest.mark.parametrize("charset", ["punycode", "idna", "unicode_escape", "raw-unicode-escape", "x-unknown"])
def test_what_no_mail_is_written_in_is_not_decoded(charset):
    assert text_of(part_with(b"a-b9b9 \\u0041", charset)) == "a-b9b9 \\u0041"


def test_of_a_long_header_only_the_beginning_is_read():
    mail = message_from_bytes(b"Subject: " + b"word " * LONGEST_HEADER + b"\n\n")
    assert 0 < len(header(mail, "Subject")) <= LONGEST_HEADER


MANY = [f"v{n}@example.com" for n in range(MOST_RECIPIENTS + 50)]
BY_HEADER = (
    f"From: MAILER-DAEMON@x.example\nTo: {{to}}\nX-Failed-Recipients: {', '.join(MANY)}\n\nfailed\n".format
)


def by_report(to):
    others = "".join(f"\nFinal-Recipient: rfc822; {r}\nAction: failed\nStatus: 5.1.1\n" for r in MANY)
    raw = REPORT.format(charset="utf-8", text="", recipient="rfc822; a@example.com")
    return f"To: {to}\n{raw.replace('Status: 5.1.1', f'Status: 5.1.1{chr(10)}{others}')}"


@pytest.mark.parametrize("forged", [BY_HEADER, by_report], ids=["header", "report"])
def test_no_mail_brings_back_more_than_so_many(forged):
    assert len(read(forged(to=with_token("b@shop.example", EMAIL)).encode())) == MOST_RECIPIENTS


@pytest.mark.parametrize("forged", [BY_HEADER, by_report], ids=["header", "report"])
def test_a_mail_that_names_no_email_says_one_thing(forged):
    assert len(read(forged(to="b@shop.example").encode())) == 1


def storable(text):
    return "\0" not in text and text.encode()


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
