"""A provider in one line: what every scheme makes of its parts, and that no fault repeats a secret."""

import pickle
import re
import traceback
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import pytest
from django.utils.module_loading import import_string
from hypothesis import given
from hypothesis import strategies as st

from celery_mailer.provider_url import SCHEMES, parse

SMTP = "django.core.mail.backends.smtp.EmailBackend"


def esp(module):
    return f"anymail.backends.{module}.EmailBackend"


URLS = {
    "smtp://localhost": (SMTP, {"host": "localhost", "port": 25}),
    "smtp://u@mail.example.com:2525": (SMTP, {"host": "mail.example.com", "port": 2525, "username": "u"}),
    "smtp+tls://u:p@mail.example.com?timeout=10": (
        SMTP,
        {
            "host": "mail.example.com",
            "port": 587,
            "use_tls": True,
            "username": "u",
            "password": "p",
            "timeout": 10.0,
        },
    ),
    "smtps://u%40example.com:p%2Fq%3A%23%25@mail.example.com": (
        SMTP,
        {
            "host": "mail.example.com",
            "port": 465,
            "use_ssl": True,
            "username": "u@example.com",
            "password": "p/q:#%",
        },
    ),
    "smtp://u@example.com:p@[::1]:26": (
        SMTP,
        {"host": "::1", "port": 26, "username": "u@example.com", "password": "p"},
    ),
    "  smtp://localhost/ ": (SMTP, {"host": "localhost", "port": 25}),
    "brevo://xkeysib-Ab-1": (esp("brevo"), {"api_key": "xkeysib-Ab-1"}),
    "mailersend://mlsn.Ab?batch_send_mode=use-bulk-email": (
        esp("mailersend"),
        {"api_token": "mlsn.Ab", "batch_send_mode": "use-bulk-email"},
    ),
    "mailgun://Key-1@mg.example.com": (
        esp("mailgun"),
        {"api_key": "Key-1", "sender_domain": "mg.example.com"},
    ),
    "mailgun://Key-1@?api_url=https%3A%2F%2Fapi.eu.mailgun.net%2Fv3": (
        esp("mailgun"),
        {"api_key": "Key-1", "api_url": "https://api.eu.mailgun.net/v3"},
    ),
    "mailjet://Pub:Sec": (esp("mailjet"), {"api_key": "Pub", "secret_key": "Sec"}),
    "mailtrap://Tok?sandbox_id=12": (esp("mailtrap"), {"api_token": "Tok", "sandbox_id": "12"}),
    "mandrill://md-Ab": (esp("mandrill"), {"api_key": "md-Ab"}),
    "postal://Key@postal.example.com": (
        esp("postal"),
        {"api_key": "Key", "api_url": "https://postal.example.com"},
    ),
    "postmark://Tok?message_stream=broadcast&timeout=5": (
        esp("postmark"),
        {"server_token": "Tok", "message_stream": "broadcast", "timeout": 5.0},
    ),
    "resend://re_Ab_Cd": (esp("resend"), {"api_key": "re_Ab_Cd"}),
    "resend://re_Ab_Cd@": (esp("resend"), {"api_key": "re_Ab_Cd"}),
    "scaleway://Sec@0f-Ab?region=nl-ams": (
        esp("scaleway"),
        {"secret_key": "Sec", "project_id": "0f-Ab", "region": "nl-ams"},
    ),
    "sendgrid://SG.Ab-c_d.Ef": (esp("sendgrid"), {"api_key": "SG.Ab-c_d.Ef"}),
    "sendgrid://SG%2FAb?ignore_unsupported_features=true": (
        esp("sendgrid"),
        {"api_key": "SG/Ab", "ignore_unsupported_features": True},
    ),
    "ses://": (esp("amazon_ses"), {}),
    "ses://eu-west-1": (esp("amazon_ses"), {"client_params": {"region_name": "eu-west-1"}}),
    "ses://AKID:se%2Fcret+x@eu-west-1?configuration_set_name=shop": (
        esp("amazon_ses"),
        {
            "configuration_set_name": "shop",
            "client_params": {
                "aws_access_key_id": "AKID",
                "aws_secret_access_key": "se/cret+x",
                "region_name": "eu-west-1",
            },
        },
    ),
    "sparkpost://Ab?subaccount=7": (esp("sparkpost"), {"api_key": "Ab", "subaccount": "7"}),
    "unisender-go://Key@go1.unisender.ru/ru/transactional/api/v1": (
        esp("unisender_go"),
        {"api_key": "Key", "api_url": "https://go1.unisender.ru/ru/transactional/api/v1"},
    ),
    "capture://": ("celery_mailer.deliver.providers.capture.EmailBackend", {}),
    "console://": ("django.core.mail.backends.console.EmailBackend", {}),
    "file:///var/mail/a%20b": (
        "django.core.mail.backends.filebased.EmailBackend",
        {"file_path": "/var/mail/a b"},
    ),
    "simulator://?slow=0.5": ("celery_mailer.deliver.providers.simulator.EmailBackend", {"slow": 0.5}),
}


@pytest.mark.parametrize("url", URLS)
def test_an_address_is_an_entry_of_providers(url):
    backend, options = URLS[url]
    assert parse(url) == {"BACKEND": backend, "OPTIONS": options}


@pytest.mark.filterwarnings("ignore:django-anymail has dropped official support for SendGrid")
@pytest.mark.parametrize("url", [url for url, (backend, _) in URLS.items() if backend != SMTP])
def test_the_backend_takes_these_options(url):
    entry = parse(url)
    import_string(entry["BACKEND"])(**entry["OPTIONS"])


def test_every_scheme_is_tried():
    assert {url.strip().partition(":")[0] for url in URLS} == set(SCHEMES)


def test_every_esp_of_anymail_has_a_scheme():
    from anymail import backends

    known = {scheme.backend for scheme in SCHEMES.values()}
    modules = {path.stem for path in Path(backends.__file__).parent.glob("*.py")}
    # its bases, what it has for tests, and the name that Brevo once had
    modules -= {"__init__", "base", "base_requests", "console", "sendinblue", "test"}
    assert {esp(module) for module in modules} <= known


FAULTS = {
    "": "scheme",
    "S3cret": "scheme",
    "S3cret:x": "scheme",
    "resend:S3cret": "scheme",
    "smpt://u:S3cret@host": "Did you mean smtp://?",
    "nonsense-scheme://S3cret": "Known: smtp://",
    "smtp://": "host",
    "smtp://u:S3cret@": "host",
    "smtp://u:S3/cret@host": "port; write special characters",
    "smtp://u:S3#cret@host": "port; write special characters",
    "smtp://u:S3cret@host:S3cret": "port",
    "smtp://u:S3cret@host:99999": "port",
    "smtp://u:S3[cret@host": "special characters",
    "smtp://u:@host": "half a login",
    "smtp://:S3cret@host": "half a login",
    "smtp://u:S3cret@host/path": "after the host",
    "smtp://u:S3cret@host#S3cret": "after the host",
    "smtp://u:S3cret@host?timeout=S3cret": "wrong value for 'timeout'",
    "smtp://u:S3cret@host?timeout=-1": "wrong value for 'timeout'",
    "smtp://u:S3cret@host?timeout=nan": "wrong value for 'timeout'",
    "smtp://u:S3cret@host?timeot=5": "Did you mean 'timeout'?",
    "smtp://u:S3cret@host?S3cret=S3cret": "Known: timeout",
    "resend://": "api_key",
    "resend://u:S3cret": "password",
    "resend://S3cret@host": "host",
    "resend://S3cret?ignore_unsupported_features=maybe": "wrong value",
    "mailjet://S3cret": "secret_key",
    "mailgun://S3cret": "api_key",
    "postal://S3cret@": "api_url",
    "ses://AKID:S3cret": "without an @",
    "ses://AKID:S3/cret@eu-west-1": "without an @",
    "console://S3cret": "host",
    "file://relative/path": "host",
    "file://": "file_path",
    "capture://?S3cret=1": "Known: none",
}


@pytest.mark.parametrize("url", FAULTS)
def test_a_fault_is_explained_without_a_word_of_the_address(url):
    with pytest.raises(ValueError, match=re.escape(FAULTS[url])) as caught:
        parse(url)
    told = "".join(traceback.format_exception_only(caught.value)) + str(pickle.dumps(caught.value))
    assert "S3" not in told
    assert "cret" not in told.replace("secret", "")
    assert caught.value.__cause__ is None


def test_what_went_wrong_inside_is_not_shown_either():
    with pytest.raises(ValueError, match="port") as caught:
        parse("smtp://u:p@host:S3cret")
    shown = "".join(traceback.format_exception(caught.value))
    assert "S3cret" not in shown.replace('parse("smtp://u:p@host:S3cret")', "")


@given(st.text(min_size=1), st.text(min_size=1))
def test_any_login_can_be_written(user, password):
    url = f"smtp://{quote(user, safe='')}:{quote(password, safe='')}@host"
    options = parse(url)["OPTIONS"]
    assert (options["username"], options["password"]) == (user, password)


@given(st.text(), st.sampled_from(["", "smtp://", "resend://", "ses://", "unisender-go://"]))
def test_no_text_is_more_than_a_value_error(text, scheme):
    with suppress(ValueError):
        assert parse(scheme + text)["BACKEND"]
