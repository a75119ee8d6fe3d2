"""Composed directly: the bytes of Django's message, or nothing; and never nothing for what is common."""

import re
from datetime import timedelta
from email import message_from_bytes
from email.policy import default
from hashlib import sha256

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from django.core.exceptions import ObjectDoesNotExist
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from celery_mailer.deliver.message import build, wire_bytes
from celery_mailer.deliver.wire import compose, frames, headers
from celery_mailer.deliver.wire.unusual import Unusual
from celery_mailer.models import Attachment, Content, Email, Enclosure, Message
from celery_mailer.models.attachment import Form, storage
from tests.corpus import HEADERS, NAMES, PDF, SUBJECTS, TEXTS

PAGE = "<html><body style='margin: 0'>\n<p class=\"a\">{}</p>\n</body></html>\n"
LANGUAGES = {
    "English": "Dear Ann, your order = 2 lamps. We have it, and it is on its way to you. Thank you!\n",
    "Indonesian": "Terima kasih atas pesanan Anda. Barang akan kami kirim hari ini juga.\n",
    "German": "Grüße aus Köln: Ihre Bestellung ist unterwegs, die Straße haben wir geprüft.\n",
    "Arabic": "شكرا لطلبك، سنرسله إليك اليوم من متجرنا في القاهرة، ونتمنى لك يوما سعيدا\n",
    "emoji": "Your parcel is on its way 🚚🎉👩🏽‍🚀\n",
}


def rows(*, to=("ann@example.com",), cc=(), message_id="<1@example.com>", **content):
    row = Email(to=list(to), cc=list(cc), message_id=message_id)
    return row, Content(email=row, **{"from_email": "Shop <shop@example.com>", "subject": "s", **content})


def enclosed(name="a.pdf", mimetype="application/pdf", form=Form.BYTES, data=PDF, **more):
    """A stored file, as it hangs on an email."""
    attachment = Attachment(path=storage().save(sha256(data).hexdigest(), ContentFile(data)))
    return Enclosure(attachment=attachment, name=name, mimetype=mimetype, form=form, **more)


def comparable(data: bytes) -> bytes:
    """``data`` without what no two messages have in common."""
    for i, boundary in enumerate(dict.fromkeys(re.findall(rb"={15}\d+==", data))):
        data = data.replace(boundary, b"boundary %d" % i)
    return re.sub(rb"(?m)^Date: \w{3}, .*\r$", b"Date: now\r", data, count=1)


def assert_same(*rows):
    __tracebackhide__ = True
    composed = compose(*rows)
    assert composed is not None
    assert comparable(composed.data) == comparable(wire_bytes(build(*rows)))


def assert_same_or_none(*rows):
    """What is composed is what Django makes; so what Django refuses is not composed."""
    __tracebackhide__ = True
    if compose(*rows) is not None:
        assert_same(*rows)


# What is common is composed.


STREAMS = {"news": {"UNSUBSCRIBE": True, "TRACK_OPENS": "identified", "TRACK_CLICKS": "identified"}}


@pytest.mark.parametrize("mailto", [None, "leave@example.com"], ids=["https", "mailto"])
def test_a_mail_that_one_can_leave_and_that_is_tracked_is_composed(settings, mailto):
    tracking = {"ENABLED": True, "BASE_URL": "https://mail.example.com", "UNSUBSCRIBE_MAILTO": mailto}
    settings.CELERY_MAILER = {"STREAMS": STREAMS, "TRACKING": tracking}
    email, content = rows(
        html=PAGE.format('<a href="https://shop.example.com/">x</a>'),
        text="t",
        track_opens="",
        track_clicks="",
    )
    email.stream = "news"
    composed = compose(email, content)
    assert composed is not None
    assert b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n" in composed.data
    assert_same(email, content)
    assert b'shop.example.com/"' not in composed.data


@pytest.mark.parametrize(
    "given",
    [
        {"list-id": "<my.example.com>"},
        {"List-Unsubscribe-Post": "x=y"},
        {"list-unsubscribe": ""},
        {"List-Unsubscribe": "<https://shop.example.com/leave>"},
    ],
    ids=str,
)
def test_a_mail_with_some_list_headers_of_its_callers_is_composed(settings, given):
    tracking = {"BASE_URL": "https://mail.example.com"}
    settings.CELERY_MAILER = {"STREAMS": STREAMS, "TRACKING": tracking}
    email, content = rows(text="t", headers=given)
    email.stream = "news"
    assert_same(email, content)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("shape", ["text", "html", "text and html"])
def test_a_mail_in_any_language_is_composed(language, shape):
    words = LANGUAGES[language]
    texts = {"text": words * 5, "html": PAGE.format(words.strip() * 9)}
    assert_same(*rows(subject=words.strip()[:60], **{n: text for n, text in texts.items() if n in shape}))


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("kind", ["text", "html"])
def test_any_text_is_composed(kind, name):
    assert_same(*rows(**{"text": "words", "html": "<p>words</p>", kind: TEXTS[name]}))


@pytest.mark.parametrize("name", SUBJECTS)
def test_any_subject_is_composed(name):
    assert_same(*rows(subject=str(SUBJECTS[name])))


@pytest.mark.parametrize("length", range(60, 90))
def test_a_header_is_folded_where_django_folds_it(length):
    words = ("word " * 20)[: length - 1] + "e"
    name = f"{words[:50]} <a@{'b' * (length - 60)}.example.com>"
    assert_same(*rows(subject=words, to=[name], headers={"X-A": words, "X-B": "x" * length}))


@pytest.mark.parametrize("name", NAMES)
def test_no_name_comes_out_otherwise_than_by_django(name):
    assert_same_or_none(*rows(from_email=NAMES[name], to=[NAMES[name]] * 2, reply_to=[NAMES[name]]))


@pytest.mark.parametrize("name", ["simple", "with a comma", "non-ascii", "other alphabets", "emoji", "plus"])
def test_people_with_names_are_composed(name):
    assert_same(*rows(from_email=NAMES[name], to=[NAMES[name], "b@example.com"], cc=[NAMES[name]]))


@pytest.mark.parametrize("name", HEADERS)
def test_no_header_comes_out_otherwise_than_by_django(name):
    assert_same_or_none(*rows(headers={n: str(value) for n, value in HEADERS[name].items()}))


@pytest.mark.parametrize("name", ["unsubscribe", "own", "references", "non-ascii", "long", "sender", "date"])
def test_the_usual_headers_are_composed(name):
    assert_same(*rows(headers=HEADERS[name]))


def test_a_rendered_message_is_composed():
    row, content = rows(subject="{{ a }}", context={"a": 1})
    row.rendered = Message(email=row, subject="rendered", text="Ann", html="<p>Ann</p>")
    assert_same(row, content)


def test_everybodys_mail_goes_to_the_override(settings):
    settings.CELERY_MAILER = {"OVERRIDE_RECIPIENTS": ["dev@example.com"]}
    given = rows(cc=["c@example.com"], text="words")
    assert_same(*given)
    assert b"ann@example.com" not in compose(*given).data


def test_the_sender_is_bare():
    assert compose(*rows(from_email='"Shop, The" <shop@example.com>')).sender == "shop@example.com"


def test_two_mails_have_two_boundaries():
    one, other = (compose(*rows(text="a", html="b")).data for _ in range(2))
    assert set(re.findall(rb"={15}\d+==", one)).isdisjoint(re.findall(rb"={15}\d+==", other))


@pytest.mark.parametrize("local", [True, False])
def test_the_date_is_now_in_the_zone_that_django_would_name(settings, local):
    settings.EMAIL_USE_LOCALTIME = local
    given = rows(text="a")
    dates = [
        message_from_bytes(d, policy=default)["Date"]
        for d in (compose(*given).data, wire_bytes(build(*given)))
    ]
    assert dates[0].datetime - dates[1].datetime < timedelta(seconds=2)
    assert str(dates[0])[-5:] == str(dates[1])[-5:]


# Files.


FILES = {
    "pdf": {},
    "text": {"name": "a.txt", "mimetype": "text/plain", "form": Form.TEXT, "data": "Grüße\r\nx".encode()},
    "text with long lines": {"name": "a.csv", "mimetype": "text/csv", "form": Form.TEXT, "data": b"a," * 900},
    "no text, though it says so": {"name": "a.txt", "mimetype": "text/plain", "data": b"\xff"},
    "text that is binary": {"mimetype": "application/json", "form": Form.TEXT, "data": b"{}"},
    "no name": {"name": ""},
    "non-ascii name": {"name": "Rechnung für März.pdf"},
    "long name": {"name": "n" * 120 + ".pdf"},
    "quotes in its name": {"name": 'a "b" \\ c.pdf'},
    "parameters": {"mimetype": "text/calendar; method=REQUEST", "data": b"BEGIN:VCALENDAR\r\n"},
    "empty": {"data": b""},
    "large": {"data": bytes(range(256)) * 400},
}


@pytest.mark.parametrize("name", FILES)
def test_no_file_comes_out_otherwise_than_by_django(name):
    assert_same_or_none(*rows(text="words"), [enclosed(**FILES[name])])


@pytest.mark.parametrize("name", ["pdf", "text", "no name", "non-ascii name", "long name", "empty", "large"])
@pytest.mark.parametrize("shape", ["text", "html", "text and html", "nothing else"])
def test_a_mail_with_files_is_composed(shape, name):
    texts = {n: f"{n} words" for n in ("text", "html") if n in shape}
    assert_same(*rows(**texts), [enclosed(), enclosed(**FILES[name])])


def test_a_file_is_read_and_encoded_once_for_many_mails(monkeypatch):
    opened = []
    open_ = FileSystemStorage.open
    monkeypatch.setattr(FileSystemStorage, "open", lambda *a, **k: opened.append(a) or open_(*a, **k))
    files = [enclosed(data=b"of this test")]
    assert len({compose(*rows(text=f"mail {i}"), files).data for i in range(3)}) == 3
    assert len(opened) == 1


@pytest.mark.parametrize(
    "given",
    [
        {"form": Form.PART, "data": b"Content-Type: image/png\n\nx"},
        {"form": Form.BASE, "data": b"Content-Type: image/png\n\nx"},
        {"headers": {"Content-Description": "x"}},
        {"content_id": "1@celery-mailer"},
        {"mimetype": "message/rfc822", "data": b"Subject: a\n\nb"},
        {"mimetype": "multipart/mixed"},
    ],
    ids=["part", "legacy part", "headers", "inline image", "mail", "multipart"],
)
def test_a_file_with_rules_of_its_own_is_left_to_django(given):
    html = "<img src='cid:1@celery-mailer'>"
    assert compose(*rows(html=html), [enclosed(), enclosed(**given)]) is None


def test_a_storage_that_does_not_answer_says_so(monkeypatch):
    def broken(*args, **kwargs):
        raise ConnectionError("no route")

    file = enclosed(data=b"of this test, too")
    monkeypatch.setattr(FileSystemStorage, "open", broken)
    with pytest.raises(ConnectionError):
        compose(*rows(), [file])


# What is not.


@pytest.mark.parametrize(
    "content",
    [
        {"shape": {"subtype": "markdown"}},
        {"shape": {"encoding": "iso-8859-1"}},
        {"shape": {"alternatives": [["text/calendar", "text", "x"]]}},
        {"headers": {"From": "b@example.com"}},
        {"headers": {"Bcc": "b@example.com"}},
        {"headers": {"Content-Language": "de"}},
        {"headers": {"MIME-Version": "1.0"}},
        {"headers": {"X-A": "a", "x-a": "b"}},
        {"headers": {"X-A": 1}},
        {"headers": {"X A": "a"}},
        {"text": "half a pair: \ud800"},
        {"from_email": ""},
    ],
    ids=str,
)
def test_what_is_unusual_is_left_to_django(content):
    assert compose(*rows(**content)) is None


def test_another_charset_is_left_to_django(settings):
    settings.DEFAULT_CHARSET = "iso-8859-1"
    assert compose(*rows(text="Grüße")) is None


@pytest.mark.parametrize("break_", ["\n", "\r", "\r\n", "\n "])
@pytest.mark.parametrize("field", ["subject", "from_email", "message_id", "to", "X-A"])
def test_a_header_with_a_line_break_is_left_to_django_which_refuses_it(field, break_):
    value = f"a@example.com{break_}Bcc: b@example.com"
    given = {"headers": {field: value}} if field == "X-A" else {field: [value] if field == "to" else value}
    assert compose(*rows(**given)) is None
    with pytest.raises(Exception, match=r"(?i)line|address|header"):
        wire_bytes(build(*rows(**given)))


@pytest.mark.django_db
def test_a_mail_that_was_not_rendered_is_not_composed():
    with pytest.raises(ObjectDoesNotExist):
        compose(*rows(template="a.html"))


def test_a_frame_in_which_something_is_missing_is_none(monkeypatch):
    monkeypatch.setattr(frames, "FIELDS", [*frames.FIELDS, b"X-New"])
    frames._frame.cache_clear()
    try:
        assert compose(*rows(text="a")) is None
    finally:
        frames._frame.cache_clear()


def test_a_folded_header_that_would_begin_another_one_is_left_to_the_library(monkeypatch):
    monkeypatch.setattr(
        headers, "_modern" if headers.MODERN else "_legacy", lambda n, v: b"A: b\r\nBcc: c\r\n"
    )
    with pytest.raises(Unusual):
        headers._folded("A", "b c")


def test_the_workers_time_limit_passes_through(monkeypatch):
    def late(name, value):
        raise SoftTimeLimitExceeded

    monkeypatch.setattr(headers, "_modern" if headers.MODERN else "_legacy", late)
    with pytest.raises(SoftTimeLimitExceeded):
        compose(*rows(subject="Grüße in Eile"))


# Anything: the same bytes, or nothing.

CHARACTERS = st.sampled_from("aZ 0.,;:=?_%<>()[]@\"'\\-\täß€ش日🚚\u00a0\u200d\u2028\x85") | st.characters(
    codec="utf-8"
)
PIECES = ["x", "ab ", "=", "a=b", "ü", "aü ", "ش", "x" * 75 + "=", "x" * 74 + "ü"]
LENGTHS = [74, 75, 76, 77, 78, 79, 80, 150, 997, 998, 999, 1000, 2100]
ODD_LINES = ["", ".", "..", ".a", "From me", "--", " ", "a ", "a\t", "=", "a=3D", "=?utf-8?q?a?="]
LINES = st.one_of(
    st.text(CHARACTERS, max_size=30),
    st.sampled_from(ODD_LINES),
    st.builds(lambda piece, n: (piece * n)[:n], st.sampled_from(PIECES), st.sampled_from(LENGTHS)),
)
LINE_ENDS = st.sampled_from(["\n", "\n", "\r\n", "\r", "\n\n", ""])
BODIES = st.lists(st.builds(str.__add__, LINES, LINE_ENDS), max_size=14).map("".join)

WORDS = [
    "a",
    "Your",
    "order",
    "Grüße",
    "طلبك",
    "日本",
    "🎉",
    "=?x?=",
    "1,2;3",
    '"q"',
    "x" * 70,
    "ü" * 40,
    "(c)",
]
ODD_VALUES = ["", " ", " a", "a ", "a  b", "a\tb", "a\nb", "a\r\nBcc: b@example.com", "a\n b", "%s %(x)s"]
VALUES = st.one_of(
    st.lists(st.sampled_from(WORDS), max_size=14).map(" ".join),
    st.integers(50, 90).map(lambda n: ("ab cd efg " * 9)[:n]),
    st.text(CHARACTERS, max_size=90),
    st.sampled_from(ODD_VALUES),
)
PERSONS = [
    "Ann",
    "Ann Doe",
    "Ann  Doe",
    "Änn",
    '"Doe, Ann"',
    r'"A \"B\" C"',
    "Dr. Who",
    "日本",
    "=?utf-8?q?a?=",
]
SPECS = [
    "a@example.com",
    "a.b+c@example.com",
    "a@localhost",
    "a@bücher.example",
    "ü@example.com",
    "a",
    "a@b@c",
]
ODD_SPECS = [
    '"a b"@example.com',
    "a" * 64 + "@example.com",
    "a..b@example.com",
    ".a@b.example",
    "a@[127.0.0.1]",
]
ADDRESSES = st.sampled_from(SPECS + ODD_SPECS)
MAILBOXES = ADDRESSES | st.builds("{} <{}>".format, st.sampled_from(PERSONS) | VALUES, ADDRESSES)
PEOPLE = st.lists(MAILBOXES, max_size=4)
FIELDS = st.sampled_from(
    [
        *(
            "X-A",
            "x-a",
            "List-Unsubscribe",
            "Message-ID",
            "message-id",
            "Date",
            "date",
            "Sender",
            "References",
        ),
        *("In-Reply-To", "Return-Path", "Resent-To", "Resent-Date", "To", "from", "Subject", "Bcc"),
        *("Content-Type", "Content-Language", "MIME-Version", "X A", "X:", "", "Ü"),
    ]
)
LINKS = "<mailto:a@example.com>, <https://example.com/u/" + "k" * 60 + ">"
GIVEN = st.sampled_from([LINKS, "<1@example.com>", "Mon, 01 Jun 2026 12:00:00 +0200"])
IDS = st.sampled_from(
    ["<1@example.com>", "<1@localhost>", "<" + "1" * 80 + "@example.com>", "1", "", "<a b@c>"]
)
CONTENTS = st.fixed_dictionaries(
    {"subject": VALUES, "text": BODIES, "html": BODIES},
    optional={
        "from_email": MAILBOXES,
        "to": PEOPLE,
        "cc": PEOPLE,
        "reply_to": PEOPLE,
        "headers": st.dictionaries(FIELDS, VALUES | GIVEN | MAILBOXES, max_size=4),
        "message_id": IDS,
    },
)


@hypothesis_settings(max_examples=100)
@given(CONTENTS)
def test_whatever_a_mail_holds_it_is_djangos_bytes_or_nothing(content):
    assert_same_or_none(*rows(**content))


@hypothesis_settings(max_examples=100)
@given(text=BODIES, html=BODIES)
def test_whatever_the_texts_are_they_are_composed(text, html):
    assert_same(*rows(text=text, html=html))


@hypothesis_settings(max_examples=100)
@given(subject=VALUES, value=VALUES)
def test_whatever_words_a_header_has_they_are_djangos_bytes_or_nothing(subject, value):
    assert_same_or_none(*rows(subject=subject, headers={"X-Name": value}))
