"""From rows to the message, and to the bytes on the wire."""

import email
import re
from email.policy import default

import django
import pytest
from django.core.exceptions import ObjectDoesNotExist
from django.core.mail import EmailMultiAlternatives
from django.core.mail.backends.smtp import EmailBackend

from celery_mailer import mail
from celery_mailer.deliver.message import build, wire_bytes
from celery_mailer.models import Content, Email, Message
from tests.servers.scripted_smtp import ScriptedSmtp


def rows(*, to=("a@example.com",), cc=(), bcc=(), message_id="<1@example.com>", **content):
    row = Email(to=list(to), cc=list(cc), bcc=list(bcc), message_id=message_id)
    return row, Content(email=row, **{"from_email": "Shop <shop@example.com>", "subject": "s", **content})


def sent(**arguments):
    """The message as its reader's program has it."""
    return email.message_from_bytes(wire_bytes(build(*rows(**arguments))), policy=default)


def test_a_text_is_a_text_part():
    message = sent(text="words")
    assert (message.get_content_type(), message.get_content().strip()) == ("text/plain", "words")


def test_html_alone_is_an_html_part():
    message = sent(html="<p>words</p>")
    assert (message.get_content_type(), message.get_content().strip()) == ("text/html", "<p>words</p>")


def test_text_and_html_are_alternatives_of_which_html_comes_last():
    message = sent(text="words", html="<p>words</p>")
    assert message.get_content_type() == "multipart/alternative"
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"]


def test_a_mail_may_be_empty():
    assert sent().get_content().strip() == ""


def test_everyone_but_bcc_is_named():
    message = sent(to=["a@example.com", "Ann <b@example.com>"], cc=["c@example.com"], bcc=["d@example.com"])
    assert (message["To"], message["Cc"], message["Bcc"]) == (
        "a@example.com, Ann <b@example.com>",
        "c@example.com",
        None,
    )


def test_bcc_is_nowhere_in_the_bytes():
    message = build(*rows(bcc=["hidden@example.com"], text="words"))
    assert b"hidden" not in wire_bytes(message)
    assert message.recipients() == ["a@example.com", "hidden@example.com"]


def test_sender_subject_and_reply_to_are_the_callers():
    message = sent(subject="Grüße", reply_to=["help@example.com"])
    assert (message["From"], message["Subject"], message["Reply-To"]) == (
        "Shop <shop@example.com>",
        "Grüße",
        "help@example.com",
    )


def test_headers_are_the_callers():
    message = sent(headers={"X-Campaign": "spring", "Precedence": "bulk"})
    assert (message["X-Campaign"], message["Precedence"]) == ("spring", "bulk")


@pytest.mark.parametrize("headers", [{}, *({n: "<1@example.com>"} for n in ("Message-ID", "message-id"))])
def test_the_message_id_is_the_rows_and_stands_there_once(headers):
    assert sent(headers=headers).get_all("Message-ID") == ["<1@example.com>"]


def test_a_long_message_id_is_not_broken():
    long_id = f"<{'x' * 180}@example.com>"
    assert long_id.encode() in wire_bytes(build(*rows(message_id=long_id)))


def test_a_template_goes_out_as_it_was_rendered():
    row, content = rows(text="{{ name }}", context={"name": "Ann"})
    row.rendered = Message(email=row, subject="rendered", text="Ann")
    assert (build(row, content).subject, build(row, content).body) == ("rendered", "Ann")


@pytest.mark.django_db
def test_a_templates_source_never_goes_out():
    row, content = rows(text="{{ name }}", context={"name": "Ann"})
    with pytest.raises(ObjectDoesNotExist):
        build(row, content)


def test_tags_and_metadata_reach_backends_that_look_for_them():
    message = build(*rows(tags=["welcome"], metadata={"order": 1}))
    assert (message.tags, message.metadata) == (["welcome"], {"order": 1})


def test_without_tags_and_metadata_backends_find_none():
    message = build(*rows())
    assert not hasattr(message, "tags")
    assert not hasattr(message, "metadata")


def test_a_subject_with_a_line_break_cannot_be_written():
    with pytest.raises(ValueError, match=r"newline|linefeed"):
        wire_bytes(build(*rows(subject="a\nBcc: b@example.com")))


BODIES = {
    "text": {"text": "words\nmore"},
    "html": {"html": "<p>words</p>"},
    "both": {"text": "words", "html": "<p>Grüße</p>"},
    "dots and umlauts": {"text": ".\r\n..\nGrüße\n"},
    "long lines": {"text": "Grüße " * 500},
    "everyone": {
        "to": ["Jörg <a@bücher.example>"],
        "cc": ["c@example.com"],
        "bcc": ["d@example.com"],
        "reply_to": ["r@example.com"],
        "headers": {"X-A": "ü"},
        "subject": "Grüße " * 30,
    },
}


@pytest.mark.parametrize("body", BODIES)
def test_the_bytes_are_those_of_djangos_own_backend(body):
    row, content = rows(**BODIES[body])
    plain = EmailMultiAlternatives(
        subject=content.subject,
        body=content.text or content.html,
        from_email=content.from_email,
        to=row.to,
        cc=row.cc,
        bcc=row.bcc,
        reply_to=content.reply_to,
        headers={"Message-ID": row.message_id, **content.headers},
    )
    if content.text and content.html:
        plain.attach_alternative(content.html, "text/html")
    elif content.html:
        plain.content_subtype = "html"
    with ScriptedSmtp() as server:
        options = {"alias": "test"} if django.VERSION >= (6, 1) else {}
        EmailBackend(host="127.0.0.1", port=server.port, **options).send_messages([plain])
    ours = wire_bytes(build(row, content))
    assert comparable(ours) == comparable(server.taken[0].data)


def comparable(data):
    """``data`` without what differs between two writings of one message."""
    data = re.sub(rb"(?m)^Date: .*\r\n", b"", data)
    for boundary in set(re.findall(rb'boundary="([^"]+)"', data)):
        data = data.replace(boundary, b"boundary")
    return data.removesuffix(b"\r\n")  # SMTP ends the last line, if the message did not


def test_a_staging_site_writes_to_nobody_but_its_own(settings):
    settings.CELERY_MAILER = {"OVERRIDE_RECIPIENTS": ["dev@example.com"]}
    row, content = rows(to=["a@example.com"], cc=["b@example.com"], bcc=["c@example.com"], text="words")
    message = build(row, content)
    assert message.recipients() == ["dev@example.com"]
    assert b"b@example.com" not in wire_bytes(message)
    assert row.recipients == ["a@example.com", "b@example.com", "c@example.com"]


@pytest.mark.django_db(transaction=True)
def test_a_staging_sites_envelope_has_nobody_else_either(real_smtp, settings):
    settings.CELERY_MAILER = {**settings.CELERY_MAILER, "OVERRIDE_RECIPIENTS": ["dev@example.com"]}
    mail.send(
        "a@example.com", subject="s", message="m", cc=["b@example.com"], bcc=["c@example.com"], priority="now"
    )
    (received,) = real_smtp.received
    assert received.recipients == ["dev@example.com"]
    assert Email.objects.get().to == ["a@example.com"]
