"""The queue changes nothing: what arrives is what Django's own backend would have sent."""

import difflib
import re
from collections.abc import Iterator
from copy import deepcopy
from datetime import UTC, date, datetime, timedelta, timezone
from email.headerregistry import Address
from email.message import MIMEPart
from email.mime.base import MIMEBase
from email.mime.image import MIMEImage

import django
import pytest
from django.core import mail
from django.core.mail import EmailMessage, EmailMultiAlternatives
from django.core.mail.backends import smtp
from django.utils.functional import lazystr
from hypothesis import HealthCheck, given, reject
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from celery_mailer import chain
from celery_mailer.backends import EmailBackend
from celery_mailer.deliver import providers
from celery_mailer.exceptions import InvalidEmail
from celery_mailer.models import Email
from celery_mailer.values import Priority, Status
from tests.conftest import smtp_provider
from tests.corpus import (
    ATTACHMENTS,
    BASE,
    CORPUS,
    HTML,
    NAMES,
    PARTS,
    PDF,
    PNG,
    attaching_part,
    both,
    make,
    setting,
)
from tests.servers.smtp import Received, SmtpServer

pytestmark = pytest.mark.django_db

MODERN = django.VERSION >= (6, 0)
MAILERS = django.VERSION >= (6, 1)
ANY = "smtp" if MAILERS else "default"  # the provider that the test settings make: Django's outbox

SOON = datetime(2100, 1, 1, 12, tzinfo=UTC)
PAST = datetime(2026, 1, 1, 12, 30, tzinfo=timezone(timedelta(hours=7)))


@pytest.fixture(scope="module")
def smtp_server() -> Iterator[SmtpServer]:
    """One server for all: it is what takes the time."""
    with SmtpServer() as server:
        yield server
        providers.close_all()


def queue(provider="default", **options):
    """Our backend, as the version of Django makes it."""
    return EmailBackend(alias="queue", using=provider, **options) if MAILERS else EmailBackend(**options)


def queued(message, **options) -> Email:
    """``message`` as it waits in the queue."""
    assert queue(**options).send_messages([message]) == 1
    return Email.objects.latest("pk")


def run(email: Email) -> None:
    """Take ``email`` through all stages."""
    chain.run([email.pk])
    email.refresh_from_db()
    assert email.status == Status.SENT, [attempt.text for attempt in email.attempts.all()]


# The same bytes.


def arrived(received: Received, message: EmailMessage) -> list[bytes]:
    """The envelope and the lines of what arrived, without what no two sendings have in common."""
    data, given = received.data, {name.lower() for name in message.extra_headers}
    for name in (name for name in ("Message-ID", "Date") if name.lower() not in given):
        # A header ends before the line that does not begin with a space (RFC 5322, section 2.2.3).
        pattern = rf"(?m)^{name}:.*\r\n(?:[ \t].*\r\n)*"
        data = re.sub(pattern.encode(), f"{name}: of this sending\r\n".encode(), data)
    for i, boundary in enumerate(dict.fromkeys(re.findall(rb"={15}\d+==", data))):
        data = data.replace(boundary, b"boundary %d" % i)
    # Who is named twice gets it once; or twice, which is the same.
    envelope = [received.sender, *dict.fromkeys(received.recipients)]
    return [*(address.encode() for address in envelope), *data.splitlines(keepends=True)]


def by_django(message: EmailMessage, server: SmtpServer) -> list[bytes]:
    """``message`` as it arrives through Django's own backend."""
    options = {"alias": "direct"} if MAILERS else {}
    backend = smtp.EmailBackend(host="127.0.0.1", port=server.port, **options)
    assert backend.send_messages([message]) == 1
    return arrived(server.received[-1], message)


def by_queue(message: EmailMessage, server: SmtpServer) -> list[bytes]:
    """``message`` as it arrives through the queue."""
    before = len(server.received)
    run(queued(message))
    assert len(server.received) == before + 1
    return arrived(server.received[-1], message)


def assert_same(ours: list[bytes], djangos: list[bytes]) -> None:
    """Fails with the lines that differ: pytest's own words for two such lists take long, and say little."""
    __tracebackhide__ = True
    if ours != djangos:
        lines = difflib.unified_diff(
            [*map(repr, djangos)], [*map(repr, ours)], "Django", "queue", n=1, lineterm=""
        )
        raise AssertionError("\n".join(["what arrives differs", *lines]))


# Where the queue still writes what Django's own backend would write in another way, and means the same.
# ``filename`` without a value is left out.
DIFFERENT = {"attachment: empty name", "attachments: of all kinds"} if MODERN else set()
known = pytest.mark.xfail(reason="another spelling of the same", strict=True)
MESSAGES = [pytest.param(name, marks=known) if name in DIFFERENT else name for name in CORPUS]


@pytest.mark.parametrize("name", MESSAGES)
def test_what_arrives_is_what_django_would_have_sent(name, real_smtp):
    assert_same(by_queue(CORPUS[name](), real_smtp), by_django(CORPUS[name](), real_smtp))


@pytest.mark.parametrize("name", ["message id", "message id behind others", "date and message id"])
def test_a_message_id_of_ones_own_is_the_rows(name):
    assert queued(CORPUS[f"header: {name}"]()).message_id == "<own@example.com>"


def test_the_corpus_is_large():
    assert len(CORPUS) >= 150


# The same bytes, whatever the message: compositions that nobody thought of.

WORDS = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=100)
TEXTS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0") | st.sampled_from("\r\n\t. "),
    max_size=300,
)
LETTERS = st.text(st.characters(categories=["L", "N", "P", "S", "M"]) | st.just(" "), min_size=1, max_size=40)
FILE_NAMES = st.none() | LETTERS | st.sampled_from(["a.txt", "a.csv", "a.pdf", "ü.html", "a.tar.gz", "a"])
MIMETYPES = st.sampled_from(
    ["text/plain", "text/html", "text/csv", "application/pdf", "application/json", "image/png", "audio/x-own"]
)
MAILBOXES = st.builds(
    lambda name, address: str(Address(name, addr_spec=address)),
    st.just("") | LETTERS.map(str.strip),
    st.sampled_from(["a@example.com", "b.c+d@example.com", "ann@a.b.example"]),
) | st.sampled_from(sorted(NAMES.values()))
PEOPLE = st.lists(MAILBOXES, max_size=3)
FIELDS = st.fixed_dictionaries(
    {
        "subject": WORDS,
        "body": TEXTS,
        "from_email": MAILBOXES,
        "to": st.lists(MAILBOXES, min_size=1, max_size=3),
        "cc": PEOPLE,
        "bcc": PEOPLE,
        "reply_to": PEOPLE,
        "headers": st.dictionaries(
            st.sampled_from(["X-One", "X-Two", "References", "List-Unsubscribe", "Comments"]),
            WORDS,
            max_size=3,
        ),
        "alternatives": st.lists(
            st.tuples(TEXTS, st.sampled_from(["text/html", "text/calendar", "text/x-amp-html"]))
            | st.tuples(st.binary(max_size=100), st.sampled_from(["application/json", "image/png"])),
            max_size=3,
        ),
    }
)
ATTRIBUTES = st.fixed_dictionaries(
    {}, optional={"content_subtype": st.just("html"), "encoding": st.sampled_from(["utf-8", "iso-8859-1"])}
)
FILES = st.tuples(FILE_NAMES, st.binary(max_size=300) | TEXTS, MIMETYPES)
OTHERWISE = {"one megabyte", "empty name", "message, standard"}
FINISHES = st.lists(
    FILES.map(lambda file: lambda message: message.attach(*file))
    | st.sampled_from(sorted(ATTACHMENTS.keys() - {"one megabyte", "empty name", "message, standard"})).map(
        ATTACHMENTS.get
    )
    | st.sampled_from(sorted(PARTS)).map(PARTS.get).map(attaching_part),
    max_size=3,
)


@hypothesis_settings(
    max_examples=50,
    deadline=None,
    report_multiple_bugs=False,
    # The fixtures hold nothing of an example but rows and received mails, of which the last counts.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(FIELDS, ATTRIBUTES, FINISHES)
def test_what_arrives_is_the_same_whatever_the_message(real_smtp, fields, attributes, finishes):
    def fresh():
        return make(EmailMultiAlternatives, both(setting(**attributes), *finishes), **fields)

    try:
        expected = by_django(fresh(), real_smtp)
    except Exception:
        reject()  # what Django cannot send needs no comparison
    assert_same(by_queue(fresh(), real_smtp), expected)


# What it returns.


def test_the_count_is_a_number():
    count = queue(provider=ANY).send_messages([make(), make()])
    assert (count, type(count)) == (2, int)


def test_the_same_message_sent_twice_is_two_emails():
    message = make()
    first, second = queued(message, provider=ANY), queued(message, provider=ANY)
    assert first.pk != second.pk
    assert first.message_id != second.message_id


def test_the_same_message_twice_in_one_call_is_two_emails():
    message = make()
    assert queue(provider=ANY).send_messages([message, message]) == 2
    assert Email.objects.count() == 2


# What other backends look at: here Django's outbox, to which its test runner leads all mail.


def captured(message) -> EmailMessage:
    """``message`` as a provider's backend gets it."""
    run(queued(message, provider=ANY))
    (got,) = mail.outbox
    return got


ANYMAIL = {
    "metadata": {"order": 17, "user": "Änn", "id": "017"},
    "tags": ["welcome", "Grüße"],
    "envelope_sender": "bounces@example.com",
    "track_opens": True,
    "track_clicks": False,
    "merge_data": {"ann@example.com": {"name": "Änn", "n": 1, "price": 9.5, "items": [{"a": None}]}},
    "merge_global_data": {"shop": "The Shöp", "on": True},
    "merge_metadata": {"ann@example.com": {"order": 17}},
    "merge_headers": {"ann@example.com": {"List-Unsubscribe": "<https://example.com/u/1>"}},
    "template_id": "welcome-1",
    "esp_extra": {"a": [1, 2.5, None, True, {"b": "ü"}], "c": {}},
    "send_at": PAST,
}


@pytest.mark.parametrize("name", ANYMAIL)
def test_an_attribute_of_anymails_reaches_the_provider(name):
    got = captured(make(EmailMessage, setting(**{name: ANYMAIL[name]})))
    assert getattr(got, name) == ANYMAIL[name]


def test_all_attributes_of_anymails_reach_the_provider_together():
    got = captured(make(EmailMultiAlternatives, setting(**ANYMAIL)))
    assert {name: getattr(got, name) for name in ANYMAIL} == ANYMAIL


@pytest.mark.parametrize("name", ANYMAIL)
def test_an_attribute_of_anymails_that_was_not_given_is_not_there(name):
    assert not hasattr(captured(make()), name)


@pytest.mark.parametrize("name", ANYMAIL)
def test_anymails_own_word_for_not_given_is_taken_for_that(name):
    unset = type("UNSET", (), {})
    assert not hasattr(captured(make(EmailMessage, setting(**{name: unset}))), name)


@pytest.mark.parametrize("name", ["merge_data", "merge_metadata", "merge_headers"])
def test_no_merge_data_still_asks_for_one_mail_to_each(name):
    assert getattr(captured(make(EmailMessage, setting(**{name: {}}))), name) == {}


@pytest.mark.parametrize("value", [date(2026, 6, 1), 1_780_000_000, 1_780_000_000.5, SOON])
def test_a_time_to_send_keeps_its_type(value):
    got = captured(make(EmailMessage, setting(send_at=value))).send_at
    assert (got, type(got)) == (value, type(value))


def test_a_template_may_be_known_by_its_number():
    assert captured(make(EmailMessage, setting(template_id=17))).template_id == 17


def test_lazy_words_in_attributes_are_resolved():
    lazy = {"ann@example.com": {"name": lazystr("Änn")}}
    got = captured(make(EmailMessage, setting(merge_data=lazy))).merge_data
    assert type(got["ann@example.com"]["name"]) is str
    assert got == {"ann@example.com": {"name": "Änn"}}


def test_a_template_of_the_providers_needs_no_body():
    got = captured(make(EmailMessage, setting(template_id="t"), subject="", body=""))
    assert (got.subject, got.body, got.template_id) == ("", "", "t")


def test_the_fields_are_as_they_were_given():
    given = {
        "subject": "Grüße",
        "body": "Grüße\r\n",
        "from_email": '"Shop, The" <shop@example.com>',
        "to": ["Änn <ann@example.com>", "bob@example.com"],
        "cc": ["c@bücher.example"],
        "bcc": ["d@example.com"],
        "reply_to": ["r@example.com"],
    }
    got = captured(make(EmailMultiAlternatives, **given))
    assert {name: getattr(got, name) for name in given} == given


def test_headers_are_as_they_were_given():
    given = {"X-A": "ü", "x-b": "2", "Message-ID": "<own@example.com>"}
    assert captured(make(headers=given)).extra_headers == given


def test_alternatives_are_as_they_were_given():
    given = [("<p>ü</p>", "text/html"), ("BEGIN:VCALENDAR\r\n", "text/calendar"), (b"\xff", "image/png")]
    got = captured(make(alternatives=given)).alternatives
    assert [tuple(alternative) for alternative in got] == given
    assert (got[0].content, got[0].mimetype) == given[0]


def test_the_kind_of_body_and_the_encoding_are_as_they_were_given():
    got = captured(make(EmailMessage, setting(content_subtype="html", encoding="iso-8859-1"), body=HTML))
    assert (got.body, got.content_subtype, got.encoding) == (HTML, "html", "iso-8859-1")


def test_attachments_are_as_they_were_given():
    given = [
        ("a.pdf", PDF, "application/pdf"),
        ("ü.txt", "Grüße\r\n", "text/plain"),
        (None, PNG, "image/png"),
    ]
    got = captured(make(attachments=given)).attachments
    assert [tuple(attachment) for attachment in got] == given
    assert (got[0].filename, got[0].content, got[0].mimetype) == given[0]


def shows_the_logo(part) -> bool:
    facts = part["Content-ID"], part.get_content_disposition(), part.get_content_type()
    return facts == ("<logo@example.com>", "inline", "image/png") and part.get_payload(decode=True) == PNG


def test_an_inline_image_is_still_a_part_with_its_content_id():
    (part,) = captured(make(EmailMessage, attaching_part(PARTS["inline image"]))).attachments
    assert isinstance(part, MIMEBase | MIMEPart)
    assert shows_the_logo(part)


@pytest.mark.skipif(not MODERN, reason="Django 6.0 began to take them")
def test_an_inline_image_of_the_newer_kind_is_still_a_part_with_its_content_id():
    (part,) = captured(make(EmailMessage, attaching_part(PARTS["modern inline image"]))).attachments
    assert isinstance(part, MIMEPart)
    assert shows_the_logo(part)


# The caller's object.


def test_the_message_handed_in_is_not_changed():
    message = make(
        EmailMultiAlternatives,
        setting(**ANYMAIL, celery_mailer={"priority": "high"}),
        to=["ann@example.com", "ann@example.com", " Ann <ann@example.com>"],
        cc=["c@example.com"],
        headers={"X-A": "a", "X-Mailer-Stream": "transactional", "x-mailer-expires-at": SOON.isoformat()},
        alternatives=[(HTML, "text/html")],
        attachments=[("a.pdf", PDF, "application/pdf"), ("a.txt", "a")],
    )
    before = deepcopy(vars(message))
    run(queued(message, provider=ANY))
    assert vars(message) == before


def test_a_part_handed_in_is_not_changed():
    part = MIMEImage(PNG)
    part.add_header("Content-ID", "<logo>")
    message = make(EmailMessage, attaching_part(lambda: part))
    headers, content = part.items(), part.get_payload()
    run(queued(message, provider=ANY))
    assert message.attachments == [part]
    assert (part.items(), part.get_payload()) == (headers, content)


def test_what_is_done_to_the_message_later_comes_too_late():
    message = make(EmailMultiAlternatives, headers={"X-A": "a"})
    email = queued(message, provider=ANY)
    message.body = "Other"
    message.to.append("bob@example.com")
    message.extra_headers["X-A"] = "b"
    message.attach("a.pdf", PDF)
    run(email)
    (got,) = mail.outbox
    assert (got.body, got.to, got.attachments) == (BASE["body"], BASE["to"], [])
    assert got.extra_headers["X-A"] == "a"


# Options for the queue.

OPTIONS = {
    "priority": ("high", Priority.HIGH),
    "stream": ("digest", "digest"),
    "scheduled_at": (SOON, SOON),
    "expires_at": (SOON, SOON),
    "provider": ("bulk", "bulk"),
}
IN_HEADERS = {
    "X-Mailer-Priority": ("priority", "high", Priority.HIGH),
    "X-Mailer-Stream": ("stream", "digest", "digest"),
    "X-Mailer-Scheduled-At": ("scheduled_at", "2100-01-01T12:00:00+00:00", SOON),
    "X-Mailer-Expires-At": ("expires_at", "2100-01-01T19:00:00+07:00", SOON),
    "X-Mailer-Provider": ("provider", "bulk", "bulk"),
}


@pytest.fixture
def bulk(settings, real_smtp):
    """A second provider, which leads to the same server."""
    entry = smtp_provider(real_smtp.port)
    streams = {"digest": {}}
    settings.CELERY_MAILER = {"PROVIDERS": {"default": entry, "bulk": entry}, "STREAMS": streams}


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_may_be_given_by_the_messages_attribute(name, bulk):
    value, expected = OPTIONS[name]
    email = queued(make(EmailMessage, setting(celery_mailer={name: value})))
    assert getattr(email, name) == expected


def test_all_options_may_be_given_by_the_messages_attribute(bulk):
    options = {name: value for name, (value, _) in OPTIONS.items()}
    email = queued(make(EmailMessage, setting(celery_mailer=options)))
    assert {name: getattr(email, name) for name in OPTIONS} == {
        n: expected for n, (_, expected) in OPTIONS.items()
    }


@pytest.mark.parametrize("spelled", [str.title, str.lower, str.upper])
@pytest.mark.parametrize("header", IN_HEADERS)
def test_an_option_may_be_given_by_a_header(header, spelled, bulk):
    name, value, expected = IN_HEADERS[header]
    email = queued(make(headers={spelled(header): value}))
    assert getattr(email, name) == expected


@pytest.mark.parametrize("spelled", [str.title, str.lower, str.upper])
def test_the_headers_for_the_queue_do_not_arrive(spelled, bulk, real_smtp):
    given = {header: value for header, (_, value, _) in IN_HEADERS.items()}
    given |= {"X-Mailer-Scheduled-At": PAST.isoformat(), "X-Mailer": "our shop", "X-A": "a"}
    run(queued(make(headers={spelled(header): value for header, value in given.items()})))
    names = [name.lower() for name in real_smtp.received[-1].message]
    assert [name for name in names if name.startswith("x-")] == ["x-mailer", "x-a"]


def test_a_message_with_options_arrives_as_without_them(bulk, real_smtp):
    options = setting(celery_mailer={"priority": "low", "stream": "digest", "provider": "bulk"})
    assert_same(by_queue(make(EmailMessage, options), real_smtp), by_django(make(EmailMessage), real_smtp))


def test_a_messages_own_option_goes_before_the_backends():
    message = make(EmailMessage, setting(celery_mailer={"priority": "high"}))
    assert queued(message, provider=ANY, priority="low").priority == Priority.HIGH


def test_a_messages_own_header_goes_before_the_backends_option():
    message = make(headers={"X-Mailer-Priority": "high"})
    assert queued(message, provider=ANY, priority="low").priority == Priority.HIGH


def test_an_unknown_option_is_refused_by_its_name():
    message = make(EmailMessage, setting(celery_mailer={"priority": "high", "prioritty": "low"}))
    with pytest.raises(InvalidEmail, match="prioritty"):
        queue(provider=ANY).send_messages([message])
    assert not Email.objects.exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [("priority", "urgent"), ("stream", "nowhere"), ("expires_at", "soon"), ("provider", "none")],
)
def test_an_option_of_no_sense_is_refused_by_its_name(name, value):
    with pytest.raises(InvalidEmail, match=name):
        queue(provider=ANY).send_messages([make(EmailMessage, setting(celery_mailer={name: value}))])


@pytest.mark.parametrize(
    ("header", "value"), [("X-Mailer-Priority", "urgent"), ("X-Mailer-Scheduled-At", "tomorrow")]
)
def test_a_header_of_no_sense_is_refused(header, value):
    with pytest.raises(InvalidEmail):
        queue(provider=ANY).send_messages([make(headers={header: value})])
