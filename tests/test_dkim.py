"""DKIM signatures on what goes out by SMTP, as a receiver with the public key sees them."""

from contextlib import ExitStack
from email import message_from_bytes
from email.policy import default
from pathlib import Path

import django
import dkim
import pytest
from django.core.mail import EmailMessage, EmailMultiAlternatives
from django.core.mail.backends.smtp import EmailBackend

from celery_mailer import checks, conf, options
from celery_mailer.deliver import providers
from celery_mailer.deliver.providers.signing import Signer
from celery_mailer.deliver.providers.smtp import SmtpProvider
from celery_mailer.deliver.slice import deliver_emails
from celery_mailer.values import Outcome
from tests.conftest import leave_the_outbox, smtp_provider
from tests.factories import make_email
from tests.servers.scripted_smtp import ScriptedSmtp

SERVERS = Path(__file__).parent / "servers"
KEY_FILE = SERVERS / "dkim.key"
PUBLIC = "".join((SERVERS / "dkim.pub").read_text().splitlines()[1:-1])
DKIM = {"DOMAIN": "example.com", "SELECTOR": "s1", "KEY_FILE": str(KEY_FILE)}


def dns(name, timeout=5):
    assert name == b"s1._domainkey.example.com."
    return f"v=DKIM1; k=rsa; p={PUBLIC}".encode()


def verified(data):
    return dkim.verify(data, dnsfunc=dns)


def signed_headers(data):
    verifier = dkim.DKIM(data)
    assert verifier.verify(dnsfunc=dns)
    return [name.decode() for name in verifier.include_headers]


def rules(**changes):
    values = {"domain": "example.com", "selector": "s1", "key": KEY_FILE.read_text(), **changes}
    return options.Dkim(**values)


def mail(**arguments):
    values = {"subject": "s", "body": "b", "from_email": "Shop <shop@example.com>", "to": ["a@example.com"]}
    return EmailMessage(**{**values, **arguments})


@pytest.fixture
def deliver():
    """What a server gets of a message that a signing provider sends; ``extensions`` are the server's."""
    with ExitStack() as stack:

        def send(message, *extensions):
            server = stack.enter_context(ScriptedSmtp(extensions=("SIZE", *extensions)))
            alias = {"alias": "test"} if django.VERSION >= (6, 1) else {}
            backend = EmailBackend(host="127.0.0.1", port=server.port, timeout=5, **alias)
            provider = SmtpProvider("test", backend, options.Provider(dkim=rules()))
            stack.callback(provider.close)
            assert provider.open(5) is None
            result = provider.send(message, ["a@example.com"], 5)
            assert result.summary.outcome == Outcome.ACCEPTED
            return server.taken[0].data

        yield send


# What a receiver sees
@pytest.mark.parametrize("extensions", [(), ("PIPELINING", "8BITMIME")], ids=["plain", "pipelining"])
def test_what_arrives_is_signed(deliver, extensions):
    data = deliver(mail(), *extensions)
    assert data.startswith(b"DKIM-Signature:")
    assert verified(data)


@pytest.mark.parametrize(
    "body",
    ["", ".", "..\n.\n...a", "trailing space \n\n\n", "a\r\nb\rc\n", "x" * 900, "Grüße, 你好", "From here\n"],
    ids=ascii,
)
def test_any_body_is_signed_as_it_arrives(deliver, body):
    assert verified(deliver(mail(body=body), "8BITMIME"))


@pytest.mark.parametrize("subject", ["Grüße", "x" * 200, "a  b\t c"], ids=ascii)
def test_any_header_is_signed_as_it_arrives(deliver, subject):
    assert verified(deliver(mail(subject=subject, from_email="Jörg <shop@example.com>")))


def test_a_relay_that_takes_no_8_bit_mail_has_nothing_to_recode(deliver):
    message = EmailMultiAlternatives("s", "Grüße", "shop@example.com", ["a@example.com"])
    message.attach_alternative("<p>Grüße</p>", "text/html")
    message.attach("n.txt", "Grüße", "text/plain")
    data = deliver(message, "8BITMIME")
    assert data.isascii()
    assert verified(data)


def test_a_message_says_the_same_when_it_was_recoded(deliver):
    arrived = message_from_bytes(deliver(mail(body="Grüße\n你好\n"), "8BITMIME"), policy=default)
    assert arrived.get_content().split() == ["Grüße", "你好"]
    assert arrived["Subject"] == "s"


def test_the_headers_that_readers_trust_are_signed(deliver):
    unsubscribe = {
        "List-Unsubscribe": "<https://shop.example/u/1>",
        "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
    }
    names = signed_headers(
        deliver(mail(headers=unsubscribe, cc=["c@example.com"], reply_to=["r@example.com"]))
    )
    assert {"subject", "date", "to", "cc", "reply-to", "message-id", "content-type"} <= set(names)
    assert {"list-unsubscribe", "list-unsubscribe-post"} <= set(names)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"\r\n\r\nb", b"\r\n\r\nB"),
        (b"Subject: s", b"Subject: S"),
        (b"one-click", b"none"),
        (b"Subject:", b"From: other@example.com\r\nSubject:"),
    ],
    ids=["body", "subject", "unsubscribing", "second sender"],
)
def test_a_change_on_the_way_shows(deliver, old, new):
    data = deliver(mail(headers={"List-Unsubscribe-Post": "one-click"}))
    assert old in data
    assert not verified(data.replace(old, new, 1))


def test_a_relay_may_add_to_it_what_relays_add(deliver):
    data = deliver(mail())
    assert verified(b"Received: from a by b\r\nX-Spam: no\r\n" + data + b"\r\n")


@pytest.mark.django_db(transaction=True)
def test_an_email_goes_out_signed(settings):
    with ScriptedSmtp() as server:
        settings.CELERY_MAILER = {"PROVIDERS": {"default": smtp_provider(server.port, DKIM=DKIM)}}
        leave_the_outbox(settings)
        deliver_emails([make_email().pk])
        providers.close_all()
    assert verified(server.taken[0].data)


def test_without_the_setting_nothing_is_signed(settings):
    settings.CELERY_MAILER = {"PROVIDERS": {"default": smtp_provider(25)}}
    leave_the_outbox(settings)
    assert providers.get("default")._signer is None
    providers.close_all()


# The key
def test_a_key_is_taken_with_any_line_ends():
    text = KEY_FILE.read_text().replace("\n", "\r\n ")
    assert Signer(rules(key=text)).sign(b"From: a@example.com\r\n\r\n")


CUT = "\n".join([*KEY_FILE.read_text().splitlines()[:5], "-----END PRIVATE KEY-----"])


@pytest.mark.parametrize("key", ["secret-but-no-key", PUBLIC, CUT, "ключ"], ids=range(4))
def test_a_key_that_is_none_is_found_at_once_and_not_told(key):
    with pytest.raises(ValueError, match="DKIM key is no RSA private key") as caught:
        Signer(rules(key=key))
    assert caught.value.__suppress_context__


def test_a_key_is_in_no_representation_of_the_settings():
    assert "S3cr3t" not in repr(options.Provider(dkim=rules(key="S3cr3t")))


@pytest.mark.django_db(transaction=True)
def test_without_its_key_a_provider_sends_nothing_unsigned(settings):
    with ScriptedSmtp() as server:
        lost = {**DKIM, "KEY_FILE": "/no/such/key"}
        settings.CELERY_MAILER = {"PROVIDERS": {"default": smtp_provider(server.port, DKIM=lost)}}
        leave_the_outbox(settings)
        email = make_email()
        deliver_emails([email.pk])
    attempt = email.attempts.get()
    assert (attempt.outcome, attempt.kind) == ("deferred", "provider")
    assert "/no/such/key" in attempt.text
    assert server.taken == []


# The settings
@pytest.mark.parametrize("missing", ["DOMAIN", "SELECTOR", "KEY_FILE"])
def test_a_signature_needs_a_domain_a_selector_and_a_key(settings, missing):
    section = {name: value for name, value in DKIM.items() if name != missing}
    settings.CELERY_MAILER = {"PROVIDERS": {"default": smtp_provider(25, DKIM=section)}}
    assert [p.path for p in conf.problems()] == ["CELERY_MAILER['PROVIDERS']['default']['DKIM']"]


def test_a_signature_has_one_key_only(settings):
    settings.CELERY_MAILER = {"PROVIDERS": {"default": smtp_provider(25, DKIM={**DKIM, "KEY": "S3cr3t"})}}
    (problem,) = conf.problems()
    assert "S3cr3t" not in str(problem)


def test_a_whole_section_has_no_problem(settings):
    settings.CELERY_MAILER = {"PROVIDERS": {"default": smtp_provider(25, DKIM=DKIM)}}
    assert conf.problems() == ()


class Own(EmailBackend):
    """A backend that sends in its own way."""

    def send_messages(self, email_messages):
        raise AssertionError


@pytest.mark.parametrize("backend", [f"{__name__}.Own", "anymail.backends.mailgun.EmailBackend"])
def test_a_backend_that_sends_in_its_own_way_cannot_be_signed_for(settings, backend):
    entry = {"BACKEND": backend, "OPTIONS": {}, "DKIM": DKIM}
    settings.CELERY_MAILER = {"PROVIDERS": {"default": entry}}
    leave_the_outbox(settings)
    (message,) = checks.check_way_out()
    assert message.id == "celery_mailer.E001"
    assert backend in message.msg


def test_nor_does_it_send_unsigned(settings):
    entry = smtp_provider(25, DKIM=DKIM) | {"BACKEND": f"{__name__}.Own"}
    settings.CELERY_MAILER = {"PROVIDERS": {"default": entry}}
    leave_the_outbox(settings)
    with pytest.raises(ValueError, match="Own"):
        providers.get("default")
