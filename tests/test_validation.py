"""What a caller hands in is checked at the door, and refused there with the field's name."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from email.headerregistry import Address

import django
import pytest
from django.core.exceptions import ValidationError
from django.utils import timezone, translation
from django.utils.functional import lazystr
from django.utils.safestring import mark_safe
from django.utils.translation import gettext_lazy
from hypothesis import given
from hypothesis import strategies as st

from celery_mailer.call import Call
from celery_mailer.enqueue import enqueue
from celery_mailer.exceptions import InvalidEmail
from celery_mailer.mail import send_many
from celery_mailer.models import Batch, Content, Email
from celery_mailer.models.context import Loader
from celery_mailer.validation import parse_priority, parse_time, row
from celery_mailer.values import EmailRequest, Priority

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
LEASE = timedelta(minutes=2)
HOUR = timedelta(hours=1)
ACME = '"Acme Inc." <a@b.example>' if django.VERSION >= (6, 0) else "Acme Inc. <a@b.example>"
NAIVE = datetime(2026, 6, 1, 10, 30, tzinfo=UTC).replace(tzinfo=None)


def checked(**arguments):
    """The email and the content, unsaved, that a call with ``arguments`` makes."""
    values = {"to": "a@b.example", "subject": "s", "message": "m", **arguments}
    return row(EmailRequest(**values), Call(NOW, LEASE))


def email_of(**arguments):
    return checked(**arguments)[0]


def content_of(**arguments):
    return checked(**arguments)[1]


def refusal(**arguments):
    """The fault with which ``arguments`` are refused: its field, and what is said of it."""
    with pytest.raises(InvalidEmail) as error:
        checked(**arguments)
    return error.value.field, error.value.fault


# How it is refused.


def test_a_refusal_is_caught_as_django_and_as_python_would():
    for kind in (ValidationError, ValueError, InvalidEmail):
        with pytest.raises(kind):
            checked(to="nobody")


def test_a_refusal_names_the_field_first():
    with pytest.raises(InvalidEmail) as error:
        checked(subject="a\nb")
    assert str(error.value) == "subject: has a line break"


ADDRESS = "victim@secret.example"


@pytest.mark.parametrize(
    "arguments",
    [
        {"to": f"{ADDRESS} "[::-1]},
        {"to": [f"{ADDRESS}, other@secret.example"]},
        {"to": f"{ADDRESS}\nBcc: other@secret.example"},
        {"cc": [f"Name {ADDRESS}"]},
        {"bcc": f"<{ADDRESS}"},
        {"reply_to": [f"{ADDRESS}\x00"]},
        {"from_email": f"{ADDRESS},"},
        {"subject": f"for {ADDRESS}\n"},
        {"message": f"\x00{ADDRESS}"},
        {"headers": {"X-To": f"{ADDRESS}\n"}},
        {"headers": {f"X: {ADDRESS}": "1"}},
        {"headers": {"Message-ID": ADDRESS * 20}},
        {"context": {"user": {ADDRESS}}},
        {"metadata": {"user": {ADDRESS}}},
        {"context": [ADDRESS]},
        {"tags": ADDRESS},
        {"priority": ADDRESS},
        {"scheduled_at": ADDRESS},
        {"idempotency_key": ADDRESS * 20},
        {"sensitive": ADDRESS},
    ],
)
def test_a_refusal_never_shows_an_address(arguments):
    field, fault = refusal(**arguments)
    assert "secret.example" not in field + fault
    assert "elpmaxe.terces" not in field + fault


# Recipients.


@pytest.mark.parametrize("field", ["to", "cc", "bcc", "reply_to"])
@pytest.mark.parametrize(
    "bad", ["nobody", "a@", "@b.example", "a b@c.example", "a@b.example, c@d.example", "<", 5, object()]
)
def test_a_bad_address_is_refused_with_its_place_in_the_list(field, bad):
    assert refusal(**{field: ["good@b.example", bad]}) == (f"{field}[1]", "is not a valid email address")


def test_a_bad_sender_is_refused():
    assert refusal(from_email="nobody") == ("from_email", "is not a valid email address")


def test_a_bad_default_sender_is_refused(settings):
    settings.DEFAULT_FROM_EMAIL = "nobody"
    assert refusal() == ("from_email", "is not a valid email address")


@pytest.mark.parametrize("field", ["to", "cc", "bcc", "reply_to", "from_email"])
@pytest.mark.parametrize("control", ["\n", "\r", "\r\n", "\x00", "\x0b", "\x7f", "\x85", "\u2028"])
def test_an_address_with_a_control_character_is_refused(field, control):
    bad = f"Ann{control}Bcc: x@y.example <a@b.example>"
    found, fault = refusal(**{field: bad if field == "from_email" else [bad]})
    assert (found.partition("[")[0], fault) == (field, "has control characters")


def test_a_name_that_hides_a_line_break_in_an_encoded_word_is_refused():
    assert refusal(to="=?utf-8?q?a=0ABcc:_x?= <a@b.example>")[0] == "to[0]"


@pytest.mark.parametrize("nobody", [None, "", [], (), set(), iter(())])
def test_an_email_to_nobody_is_refused(nobody):
    assert refusal(to=nobody) == ("to", "is empty, and so are cc and bcc")


@pytest.mark.parametrize("field", ["cc", "bcc"])
def test_an_email_may_be_to_others_alone(field):
    assert email_of(to=None, **{field: "a@b.example"}).recipients == ["a@b.example"]


@pytest.mark.parametrize(
    "given",
    [
        ["a@b.example", "c@d.example"],
        ("a@b.example", "c@d.example"),
        {"a@b.example": 1, "c@d.example": 2},
        (a for a in ["a@b.example", "c@d.example"]),
        [Address("", "a", "b.example"), lazystr("c@d.example")],
    ],
    ids=lambda given: type(given).__name__,
)
def test_several_recipients_may_come_in_any_collection(given):
    assert email_of(to=given).to == ["a@b.example", "c@d.example"]


def test_a_set_of_recipients_is_taken():
    assert sorted(email_of(to={"a@b.example", "c@d.example"}).to) == ["a@b.example", "c@d.example"]


@pytest.mark.parametrize(
    "one", ["a@b.example", lazystr("a@b.example"), Address("", "a", "b.example"), mark_safe("a@b.example")]
)
def test_one_recipient_may_come_alone(one):
    assert email_of(to=one).to == ["a@b.example"]


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        ("Ann <a@b.example>", "Ann <a@b.example>"),
        ('"Doe, John" <a@b.example>', '"Doe, John" <a@b.example>'),
        ('"Ann \\"Q\\" Doe" <a@b.example>', '"Ann \\"Q\\" Doe" <a@b.example>'),
        ("Jörg Müller <j@b.example>", "Jörg Müller <j@b.example>"),
        ("山田太郎 <y@b.example>", "山田太郎 <y@b.example>"),
        ("=?utf-8?q?J=C3=B6rg?= <j@b.example>", "=?utf-8?q?J=C3=B6rg?= <j@b.example>"),
        ("Acme Inc. <a@b.example>", ACME),
        ("O'Neil <a@b.example>", "O'Neil <a@b.example>"),
        ("a@bücher.example", "a@bücher.example"),
    ],
)
def test_a_display_name_survives(written, stored):
    email, content, _ = checked(to=written, from_email=written, reply_to=[written])
    assert (email.to, content.from_email, content.reply_to) == ([stored], stored, [stored])
    again = row(EmailRequest(to=email.to), Call(NOW, LEASE))[0]
    assert again.to == email.to


def test_the_sender_is_the_projects_by_default(settings):
    settings.DEFAULT_FROM_EMAIL = "Acme Inc <mail@acme.example>"
    assert content_of().from_email == "Acme Inc <mail@acme.example>"


# Words.


@pytest.mark.parametrize("field", ["subject", "message", "html_message"])
@pytest.mark.parametrize("bad", [5, b"bytes", ["list"], object()])
def test_what_is_no_text_is_refused(field, bad):
    assert refusal(**{field: bad}) == (field, f"is a {type(bad).__name__}, not a string")


@pytest.mark.parametrize("field", ["subject", "message", "html_message"])
def test_a_nul_character_is_refused(field):
    assert refusal(**{field: "a\x00b"}) == (field, "has a NUL character")


@pytest.mark.parametrize("field", ["subject", "message", "html_message"])
def test_half_of_a_surrogate_pair_is_refused(field):
    assert refusal(**{field: "a\ud800b"}) == (field, "has half of a surrogate pair")


# All that ``str.splitlines`` breaks at, and so Python's email package.
BREAKS = ["\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]


@pytest.mark.parametrize("line_break", BREAKS)
@pytest.mark.parametrize("pattern", ["Hello{}Bcc: x@y.example", "{}Hello", "Hello{}"])
def test_a_subject_with_a_line_break_is_refused(line_break, pattern):
    assert refusal(subject=pattern.format(line_break)) == ("subject", "has a line break")


@pytest.mark.parametrize("field", ["subject", "message", "html_message"])
def test_no_text_is_empty_text(field):
    content = content_of(**{field: None})
    assert {"subject": content.subject, "message": content.text, "html_message": content.html}[field] == ""


def test_a_lazy_string_is_resolved_in_the_callers_language():
    with translation.override("de"):
        content = content_of(
            subject=gettext_lazy("Monday"),
            context={"day": gettext_lazy("Tuesday"), "days": [gettext_lazy("Friday")]},
            headers={"X-Day": gettext_lazy("Sunday")},
        )
    with translation.override("en"):
        assert content.subject == "Montag"
        assert content.context == {"day": "Dienstag", "days": ["Freitag"]}
        assert content.headers == {"X-Day": "Sonntag"}


# Headers.


@pytest.mark.parametrize("headers", [["X: y"], "X: y", 5])
def test_headers_that_are_no_dict_are_refused(headers):
    assert refusal(headers=headers) == ("headers", f"is a {type(headers).__name__}, not a dict")


@pytest.mark.parametrize("name", ["", "X Y", "X:", "X\n", "X\r\nBcc", "Ä", "\x00", "X\t"])
def test_what_is_no_header_name_is_refused(name):
    assert refusal(headers={"Good": "1", name: "x"}) == ("headers[1]", "has a name that is none")


@pytest.mark.parametrize("line_break", BREAKS)
def test_a_header_with_a_line_break_is_refused(line_break):
    value = f"a{line_break}Bcc: x@y.example"
    assert refusal(headers={"X-A": value}) == ("headers['X-A']", "has a line break")


def test_a_header_with_a_nul_character_is_refused():
    assert refusal(headers={"X-A": "a\x00"}) == ("headers['X-A']", "has a NUL character")


@pytest.mark.parametrize("name", ["Bcc", "bcc", "BCC", "Subject", "Content-Type", "MIME-Version"])
def test_headers_that_are_written_from_elsewhere_are_refused(name):
    assert refusal(headers={name: "x"}) == (f"headers[{name!r}]", "cannot be given as a header")


def test_a_header_without_a_value_is_refused():
    assert refusal(headers={"X-A": None}) == ("headers['X-A']", "is None")


def test_a_header_may_be_a_number():
    assert content_of(headers={"X-Priority": 1}).headers == {"X-Priority": "1"}


@pytest.mark.parametrize("name", ["Message-ID", "message-id"])
def test_a_given_message_id_is_the_emails(name):
    assert email_of(headers={name: "<mine@b.example>"}).message_id == "<mine@b.example>"


@pytest.mark.parametrize("value", ["", "<" + "x" * 255 + ">"])
def test_a_message_id_that_does_not_fit_is_refused(value):
    assert refusal(headers={"Message-ID": value})[0] == "headers['Message-ID']"


def test_message_ids_are_made_and_differ():
    made = {email_of().message_id for _ in range(100)}
    assert len(made) == 100


def test_the_domain_of_message_ids_is_the_settings(settings):
    settings.CELERY_MAILER = {"MESSAGE_ID_FQDN": "mail.b.example"}
    assert email_of().message_id.endswith("@mail.b.example>")


# Names of the project's things.


@pytest.mark.parametrize("priority", Priority)
def test_a_priority_may_be_a_name_or_a_number(priority):
    for spelling in (priority, priority.label, int(priority)):
        assert parse_priority(spelling) == priority


@pytest.mark.parametrize("priority", ["urgent", "HIGH", "", 4, -1, True, 1.5, [], b"low"])
def test_an_unknown_priority_is_refused_with_the_known_ones(priority):
    assert refusal(priority=priority) == ("priority", "must be one of: now, high, medium, low")


def test_the_default_priority_is_the_settings(settings):
    settings.CELERY_MAILER = {"DEFAULT_PRIORITY": "low"}
    assert email_of().priority == Priority.LOW


def test_an_unknown_stream_is_refused_with_the_one_that_was_probably_meant():
    assert refusal(stream="marketting") == ("stream", "'marketting' is unknown; did you mean 'marketing'?")


def test_an_unknown_stream_that_resembles_none_is_refused_with_all_of_them():
    assert refusal(stream="xyz") == ("stream", "'xyz' is unknown; known: ['transactional', 'marketing']")


def test_an_email_is_transactional_by_default():
    assert email_of().stream == "transactional"


def test_an_unknown_provider_is_refused():
    assert refusal(provider="defualt") == ("provider", "'defualt' is unknown; did you mean 'default'?")


@pytest.mark.parametrize("bad", [5, [], object()])
def test_a_name_that_is_no_string_is_refused(bad):
    assert refusal(provider=[bad])[0] == "provider"
    assert refusal(stream=[bad])[0] == "stream"


def test_an_email_without_a_provider_goes_as_it_is_routed():
    assert email_of().provider == ""


def test_an_unknown_language_is_refused():
    assert refusal(language="en-gbb") == ("language", "'en-gbb' is unknown; did you mean 'en-gb'?")


@pytest.mark.parametrize(
    ("given", "stored"), [("de-at", "de-at"), ("de_AT", "de-at"), ("zh-Hant-HK", "zh-hant-hk")]
)
def test_a_regional_form_of_a_known_language_is_a_language(given, stored):
    assert content_of(language=given).language == stored


def test_the_language_is_the_callers_by_default():
    with translation.override("fr"):
        assert content_of().language == "fr"


def test_a_given_language_wins_over_the_callers():
    with translation.override("fr"):
        assert content_of(language="de").language == "de"


def test_without_any_language_there_is_none():
    with translation.override(None):
        assert content_of().language == ""


# Templates.


@pytest.mark.django_db
def test_a_template_that_does_not_exist_is_refused():
    assert refusal(template="mail/not_there.html") == ("template", "'mail/not_there.html' does not exist")


@pytest.mark.django_db
def test_a_template_outside_the_templates_is_refused():
    assert refusal(template="../../secret.html")[1].endswith("does not exist")


def test_a_template_with_bad_syntax_is_refused():
    field, fault = refusal(template="mail/bad_syntax.html")
    assert field == "template"
    assert fault.startswith("'mail/bad_syntax.html' has bad syntax: ")
    assert "nonsense" in fault


@pytest.mark.parametrize("template", [5, ["mail/welcome.html"], object()])
def test_a_template_that_is_no_name_is_refused(template):
    assert refusal(template=template) == (
        "template",
        f"is a {type(template).__name__}, not a name or an EmailTemplate",
    )


def test_html_beside_a_template_is_refused():
    found = refusal(template="mail/welcome.html", html_message="<p>")
    assert found == ("html_message", "cannot be given together with template")


def test_a_template_is_stored_by_its_name():
    assert content_of(template="mail/welcome.html").template == "mail/welcome.html"


# Contexts.


@pytest.mark.parametrize("field", ["context", "metadata"])
@pytest.mark.parametrize("bad", [["a"], "abc", 5])
def test_what_is_no_dict_is_refused(field, bad):
    assert refusal(**{field: bad}) == (field, f"is a {type(bad).__name__}, not a dict")


@pytest.mark.parametrize("field", ["context", "metadata"])
@pytest.mark.parametrize(
    "bad",
    [{1, 2}, object(), b"bytes", {"deep": [object()]}, float("nan"), [float("inf")], {("a", "b"): 1}, print],
    ids=["set", "object", "bytes", "deep", "nan", "inf", "key", "function"],
)
def test_a_value_that_cannot_be_stored_is_refused_with_its_key(field, bad):
    found, fault = refusal(**{field: {"good": 1, "bad": bad}})
    assert found.startswith(f"{field}['bad']")
    assert fault


def test_a_value_that_contains_itself_is_refused():
    loop = []
    loop.append(loop)
    assert refusal(context={"loop": loop})[0] == "context['loop']"


def test_a_value_that_is_nested_beyond_all_measure_is_refused():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    assert refusal(context={"deep": deep})[0] == "context['deep']"


@pytest.mark.parametrize("bad", ["a\x00b", ["a\x00b"], {"a\x00b": 1}, "\x00"])
def test_a_nul_character_in_a_context_is_refused(bad):
    field, fault = refusal(context={"bad": bad})
    assert field.startswith("context['bad']")
    assert fault == "has a NUL character"


@pytest.mark.parametrize("text", [r"\u0000", r"\\u0000", r"a\x00", "\\"])
def test_what_only_looks_like_a_nul_character_is_kept(text):
    assert content_of(context={"text": [text]}).context == {"text": [text]}


def test_half_of_a_surrogate_pair_in_a_context_is_refused():
    assert refusal(context={"bad": "\ud800"}) == ("context['bad']", "has half of a surrogate pair")


def test_a_context_is_kept():
    context = {"a": 1, "b": [1.5, None, True], "c": {"d": "ü"}, "e": []}
    assert content_of(context=context).context == context


def test_no_context_and_an_empty_one_are_two_things():
    assert content_of().context is None
    assert content_of(context={}).context == {}


def test_what_the_caller_changes_afterwards_does_not_change_the_email():
    items = [1]
    content = content_of(context={"items": items})
    items.append(2)
    assert content.context == {"items": [1]}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.dates() | st.binary(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), json_values, max_size=3))
def test_whatever_the_context_is_it_is_stored_or_refused(context):
    try:
        stored = content_of(context=context).context
    except InvalidEmail:
        return
    assert Loader().decode("context", stored) == context


# Tags and flags.


@pytest.mark.parametrize("tags", ["newsletter", {"a", "b"}, 5])
def test_tags_that_are_no_list_are_refused(tags):
    assert refusal(tags=tags) == ("tags", f"is a {type(tags).__name__}, not a list")


@pytest.mark.parametrize("tag", [5, None, "a\nb"])
def test_a_tag_is_one_line_of_text(tag):
    if tag is None:
        assert content_of(tags=[tag]).tags == [""]
    else:
        assert refusal(tags=["good", tag])[0] == "tags"


@pytest.mark.parametrize("value", ["yes", 1, None, [], Decimal(1)])
def test_a_flag_is_true_or_false(value):
    assert refusal(sensitive=value) == ("sensitive", f"is a {type(value).__name__}, not True or False")


@pytest.mark.parametrize("key", ["", "x" * 256, 5, b"key"])
def test_an_idempotency_key_is_a_string_that_fits(key):
    assert refusal(idempotency_key=key) == ("idempotency_key", "must be a string of 1 to 255 characters")


def test_an_idempotency_key_with_a_nul_character_is_refused():
    assert refusal(idempotency_key="a\x00") == ("idempotency_key", "has a NUL character")


# Times.


def test_scheduled_after_it_expires_is_refused():
    found = refusal(scheduled_at=NOW + 2 * HOUR, expires_at=NOW + HOUR)
    assert found == ("scheduled_at", "is later than expires_at")


def test_scheduled_in_the_future_is_not_now():
    found = refusal(scheduled_at=NOW + HOUR, priority="now")
    assert found == ("scheduled_at", "lies in the future, but the email is to be sent now")


def test_scheduled_in_the_past_may_be_now():
    assert email_of(scheduled_at=NOW - HOUR, priority="now").priority == Priority.NOW


def test_scheduled_mail_is_due_at_its_time():
    email = email_of(scheduled_at=NOW + HOUR)
    assert (email.scheduled_at, email.due_at) == (NOW + HOUR, NOW + HOUR)


@pytest.mark.parametrize("scheduled_at", [None, NOW - HOUR, NOW])
def test_other_mail_is_due_when_its_message_must_have_been_lost(scheduled_at):
    assert email_of(scheduled_at=scheduled_at).due_at == NOW + LEASE


@pytest.mark.parametrize("field", ["scheduled_at", "expires_at"])
@pytest.mark.parametrize("bad", ["tomorrow", "2026-13-01", "2026-02-30T10:00", "", "12:00"])
def test_what_is_no_time_is_refused(field, bad):
    assert refusal(**{field: bad}) == (field, "is not an ISO 8601 date or datetime")


@pytest.mark.parametrize("bad", [5, timedelta(1), [], NOW.time()])
def test_what_is_of_no_times_type_is_refused(bad):
    assert refusal(expires_at=bad) == ("expires_at", f"is a {type(bad).__name__}, not a datetime")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (datetime(2026, 6, 1, 10, 30, tzinfo=UTC), datetime(2026, 6, 1, 10, 30, tzinfo=UTC)),
        (NAIVE, datetime(2026, 6, 1, 8, 30, tzinfo=UTC)),
        (date(2026, 6, 1), datetime(2026, 5, 31, 22, tzinfo=UTC)),
        ("2026-06-01T10:30:00Z", datetime(2026, 6, 1, 10, 30, tzinfo=UTC)),
        ("2026-06-01T10:30:00+03:00", datetime(2026, 6, 1, 7, 30, tzinfo=UTC)),
        ("2026-06-01 10:30", datetime(2026, 6, 1, 8, 30, tzinfo=UTC)),
        ("2026-06-01", datetime(2026, 5, 31, 22, tzinfo=UTC)),
        (None, None),
    ],
)
def test_times_come_in_several_forms_and_naive_ones_are_local(value, expected):
    with timezone.override("Europe/Berlin"):
        assert parse_time("expires_at", value) == expected


def test_times_are_naive_in_a_project_without_time_zones(settings):
    settings.USE_TZ = False
    settings.TIME_ZONE = "UTC"
    assert parse_time("expires_at", NOW) == NOW.replace(tzinfo=None)
    assert parse_time("expires_at", "2026-06-01T12:00") == NOW.replace(tzinfo=None)


# Nothing is written.

BAD = [
    {"to": "nobody"},
    {"subject": "a\nb"},
    {"headers": {"Bcc": "x@y.example"}},
    {"template": "mail/not_there.html", "subject": "", "message": ""},
    {"context": {"bad": object()}},
    {"priority": "urgent"},
    {"provider": "nobody"},
]


@pytest.mark.django_db
@pytest.mark.parametrize("bad", BAD)
def test_nothing_is_written_of_what_is_refused(bad):
    with pytest.raises(InvalidEmail):
        enqueue([EmailRequest(**{"to": "a@b.example", "subject": "s", **bad})])
    assert not Email.objects.exists()


@pytest.mark.django_db
@pytest.mark.parametrize("place", [0, 1, 2])
def test_nothing_is_written_when_one_of_many_is_refused(place):
    many = [{"recipients": "a@b.example", "subject": "s"} for _ in range(3)]
    many[place]["recipients"] = "nobody"
    with pytest.raises(InvalidEmail):
        send_many(many)
    for model in (Email, Content, Batch):
        assert not model.objects.exists()


# The time zone, and the project's own rule for addresses.


def test_the_time_zone_is_the_callers():
    with timezone.override("Asia/Tokyo"):
        assert content_of().time_zone == "Asia/Tokyo"


def test_a_time_zone_without_a_name_is_not_kept():
    with timezone.override(timezone.get_fixed_timezone(90)):
        assert content_of().time_zone == ""


def no_free_mail(address):
    if address.endswith("@free.example"):
        raise ValueError("is a free mailer's")


def only_ours(address):
    if not address.endswith("@example.com"):
        raise ValidationError("is none of ours")


@pytest.mark.parametrize(
    ("rule", "address", "fault"),
    [
        ("no_free_mail", "Ada <a@free.example>", "is a free mailer's"),
        ("only_ours", "a@b.example", "is none of ours"),
    ],
)
@pytest.mark.parametrize("field", ["to", "cc", "bcc"])
def test_the_projects_own_rule_is_asked(settings, rule, address, fault, field):
    settings.CELERY_MAILER = {"ADDRESS_VALIDATOR": f"{__name__}.{rule}"}
    given = {"to": "ok@example.com", field: ["ok@example.com", address]}
    assert refusal(**given) == (f"{field}[1]", fault)
