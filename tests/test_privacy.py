"""What is stored of one person: erased without a trace, and handed out."""

import json
from io import StringIO

import pytest
from django.apps import apps
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.core.management import call_command
from django.utils import timezone

from celery_mailer.models import (
    CapturedMessage,
    Content,
    Decision,
    Email,
    EmailTemplate,
    Event,
    FurtherRecipient,
    Message,
    ProviderMessage,
    Suppression,
)
from celery_mailer.models.recipient import searchable
from celery_mailer.models.suppression import Entry, suppress, suppressed
from celery_mailer.models.transitions import DOUBT, move
from celery_mailer.tracking import privacy
from celery_mailer.tracking.events import Happening, record
from celery_mailer.tracking.privacy import erase_recipient, export_recipient, text_columns
from celery_mailer.values import EventKind
from tests.factories import claim, make_attempt, make_email, stored

pytestmark = pytest.mark.django_db

ADA = "ada@example.com"
TO = "Ada Lovelace <Ada@Example.com>"


# An address, and how text, HTML, URLs and servers' words write it.
WRITTEN = (
    "'{}' email={} /{} *{}* _{}_ `{}` |{}| {{{}}} #{} to:{} <{}> -{} +{} mailto:{}?x {}- {}. !{} ~{} ={}"
    r" ?a={}&b %3C{}%3E ?e=mailto%3A{}%20 &lt;{}&gt; \n{}\n \u003c{}\u003e user='{}' unknown; rcpt={}"
)
SPELLED = {
    ADA: [
        ADA,
        r"ada\u0040example.com",
        "ada%40example.com",
        "ada&#64;example.com",
        "ada&#x40;example.com",
        "ADA%40EXAMPLE.COM",
    ],
    "ann+tag@example.com": ["ann+tag@example.com", "ann%2Btag%40example.com", "ann%2btag@example.com"],
    "o'brien@example.com": [
        *("o'brien@example.com", "o&#x27;brien@example.com", "o&#39;brien@example.com"),
        *("o%27brien%40example.com", "o'brien%40example.com", r"o\u0027brien@example.com"),
    ],
    "a&b@example.com": ["a&amp;b@example.com", "a%26b%40example.com", r"a\u0026b@example.com"],
    "jörg@example.com": ["JÖRG@example.com", "j%C3%B6rg%40example.com", r"J\u00d6RG@example.com"],
}


def written(address):
    return WRITTEN.replace("{}", address).replace("{{", "{").replace("}}", "}")


def finish(email):
    Email.objects.filter(pk=email.pk).update(
        status="sent", due_at=None, lease_until=None, finished_at=timezone.now()
    )


def a_life(address=ADA, to=TO):
    """Rows of every kind that name ``address``; the email that has most of them."""
    words = written(address)
    texts = {"subject": f"For {address}", "message": f"Dear {words}", "html_message": f"<p>{words}</p>"}
    email = make_email(
        to=to, **texts, headers={"X-For": address}, context={"who": {"address": address}, address: 1},
        metadata={"user": address}, tags=[address], reply_to=[address],
        attachments=[(f"{address}.txt", "x", "text/plain")],
    )  # fmt: skip
    Message.objects.create(email=email, subject=address, text=address, html=address)
    recipients = {address: ["rejected", 550, words]}
    attempt = make_attempt(email, claim([email]), "rejected", text=words, recipients=recipients)
    Decision.objects.create(email=email, move="reject", status="failed", detail=words)
    ProviderMessage.objects.create(email=email, provider="default", message_id=f"id:{address}")
    finish(email)
    happened = {"at": timezone.now(), "recipient": address, "text": words}
    record([Happening(EventKind.BOUNCED, email_id=email.pk, bounce="hard", **happened)])
    record([Happening(EventKind.DELIVERED, message_id=f"<{address}>", **happened)])
    raw = f"To: {address}\r\n\r\nx".encode()
    CapturedMessage.objects.create(email=email, recipients=[address], subject=address, raw=raw)
    CapturedMessage.objects.create(recipients=[address.upper()], subject="s", raw=raw)
    suppress([Entry(address, "manual", note=f"asked by {address}")])
    EmailTemplate.objects.create(name="t", subject="s", content=words)
    who, what = User.objects.create(username="eve"), ContentType.objects.get_for_model(Suppression)
    LogEntry.objects.create(
        user=who, content_type=what, object_repr=address, action_flag=CHANGE, change_message=words
    )
    make_email(to="staff@example.com", message=words, context={words: [words]}, metadata={"said": words})
    assert attempt.recipients
    return email


def everything():
    """Every value of every column of every table, as text."""
    for model in apps.get_models():
        for row in model._default_manager.values():
            for column, value in row.items():
                raw = bytes(value) if isinstance(value, bytes | memoryview) else None
                text = raw.decode() if raw is not None else json.dumps(value, default=str, ensure_ascii=False)
                yield f"{model.__name__}.{column}", text.lower()


def traces(*spellings):
    return {where for where, text in everything() if any(s.lower() in text for s in spellings)}


def test_the_life_is_in_every_table_that_can_name_an_address():
    a_life()
    make_email(to=["b@example.com", TO])
    tables = {where.partition(".")[0] for where in traces(ADA)}
    tables -= {"TemplateVersion"}  # made with the template
    assert tables == {
        *("Attempt", "CapturedMessage", "Content", "Decision", "Email", "EmailTemplate", "Enclosure"),
        *("Event", "FurtherRecipient", "LogEntry", "Message", "ProviderMessage", "Suppression"),
    }


def test_erasing_leaves_no_trace_of_the_address_in_any_table():
    a_life()
    make_email(to=["b@example.com", TO], cc=[ADA], message=f"Dear Ada ({ADA})")
    make_email(
        to="staff@example.com", message=f"New user: {ADA}", context=None, metadata={"u": "ada%40example.com"}
    )
    erase_recipient(" ADA@example.COM".strip())
    assert traces(ADA, "ada%40example", "lovelace") == set()


def test_erasing_leaves_no_trace_of_an_address_with_an_international_domain():
    a_life("ada@bücher.example", "Ada <ada@BÜCHER.example>")
    erase_recipient("ada@xn--bcher-kva.example")
    assert traces("ada@bücher.example", "ada@xn--bcher-kva.example") == set()


@pytest.mark.parametrize("address", SPELLED)
def test_erasing_finds_the_address_however_it_is_encoded(address):
    for spelling in SPELLED[address]:
        make_email(to="staff@example.com", message=written(spelling), metadata={"said": written(spelling)})
    erase_recipient(address)
    assert traces(*SPELLED[address], *(json.dumps(spelling)[1:-1] for spelling in SPELLED[address])) == set()


def test_what_servers_said_of_the_person_is_dropped():
    email = make_email(to=TO)
    recipients = {ADA: ["rejected", 550, "Lovelace is unknown"]}
    attempt = make_attempt(
        email, claim([email]), "rejected", text="Lovelace is unknown", recipients=recipients
    )
    finish(email)
    erase_recipient(ADA)
    attempt.refresh_from_db()
    assert (attempt.text, attempt.recipients, attempt.outcome) == ("", {}, "rejected")


def test_what_the_admin_logged_of_other_apps_stays():
    who, what = User.objects.create(username="eve"), ContentType.objects.get_for_model(User)
    LogEntry.objects.create(user=who, content_type=what, object_repr=ADA, action_flag=CHANGE)
    erase_recipient(ADA)
    assert LogEntry.objects.get().object_repr == ADA


def test_a_pseudonym_that_is_longer_than_the_address_fits_into_the_column():
    note = f"{ADA} {'x' * 239}"
    suppress([Entry("staff@example.com", "manual", note=note)])
    erase_recipient(ADA)
    note = Suppression.objects.get().note
    assert (len(note), ADA in note) == (255, False)


def test_others_keep_their_addresses():
    others = [
        *("xada@example.com", "ada@example.com.au", "o.ada@example.com", "ada@example.community"),
        *("user+ada@example.com", "mary-ada@example.com", "x_ada@example.com", "ada@example.com-x.de"),
    ]
    words = " ".join([*others, "user%2Bada%40example.com"])
    email = make_email(to=others, message=f"{words} {ADA}")
    erase_recipient(ADA)
    assert stored(email).to == others
    text = Content.objects.get().text
    assert text.startswith(words)
    assert text.endswith("@erased.invalid")


def test_others_keep_what_was_captured_for_them():
    CapturedMessage.objects.create(recipients=["xada@example.com"], subject="s", raw=b"x")
    erase_recipient(ADA)
    assert CapturedMessage.objects.exists()


def test_what_the_emails_said_is_dropped():
    email = a_life()
    erase_recipient(ADA)
    content = Content.objects.get(email=email)
    assert (content.text, content.html, content.context, content.metadata, content.dropped) == (
        "",
        "",
        None,
        {},
        True,
    )
    assert not Message.objects.exists()
    assert not email.enclosures.exists()
    assert not CapturedMessage.objects.exists()


def test_the_rows_stay_under_a_pseudonym():
    email = a_life()
    erase_recipient(ADA)
    email = stored(email)
    assert email.status == "sent"
    assert email.to == [email.address]
    assert email.address.endswith("@erased.invalid")
    assert Event.objects.filter(recipient=email.address).count() == 2


def test_what_waits_is_cancelled():
    email = make_email(to=TO)
    assert erase_recipient(ADA)["cancelled"] == 1
    assert (stored(email).status, stored(email).reason) == ("cancelled", "erased")


def test_what_waits_for_others_too_goes_to_them_alone():
    email = make_email(to=[TO, "b@example.com"], bcc=[ADA])
    erase_recipient(ADA)
    email = stored(email)
    assert (email.status, email.to, email.bcc, email.address) == (
        "queued",
        ["b@example.com"],
        [],
        "b@example.com",
    )
    assert Content.objects.get().text == "m"


def test_what_is_being_sent_is_left_and_said():
    email = make_email(to=TO)
    claim([email])
    assert erase_recipient(ADA)["in_flight"] == 1
    assert stored(email).to == [TO]
    assert Content.objects.get().text == "m"


@pytest.fixture
def between(monkeypatch):
    """What happens once between the look at the emails and their cancellation."""

    def when(happens):
        def moved(*args, **kwargs):
            while todo:
                todo.pop()()
            return move(*args, **kwargs)

        todo = [happens]
        monkeypatch.setattr(privacy, "move", moved)

    return when


@pytest.mark.parametrize("to", [[TO], [TO, "b@example.com"]])
def test_what_is_claimed_in_the_meantime_is_left_and_said(to, between):
    email = make_email(to=to)
    between(lambda: claim([email]))
    counts = erase_recipient(ADA)
    assert (counts["in_flight"], counts["emails"], counts["cancelled"]) == (1, 0, 0)
    assert (stored(email).to, stored(email).address) == (to, searchable(to[0]))
    assert Content.objects.get().text == "m"


def test_what_is_sent_in_the_meantime_is_erased_as_what_was_sent(between):
    email = make_email(to=[TO, "b@example.com"])
    between(lambda: finish(email))
    assert erase_recipient(ADA)["emails"] == 1
    assert stored(email).to[0].endswith("@erased.invalid")
    assert Content.objects.get().dropped


def test_what_is_in_doubt_is_sent_again_to_others_alone():
    email = make_email(to=[TO, "b@example.com"])
    make_attempt(email, claim([email]), "uncertain", kind="no_answer")
    move([email.pk], DOUBT)
    erase_recipient(ADA)
    email = stored(email)
    assert (email.status, email.to, email.address) == ("uncertain", ["b@example.com"], "b@example.com")
    assert Content.objects.get().text == "m"


def test_it_can_be_repeated():
    a_life()
    first, second = erase_recipient(ADA), erase_recipient(ADA)
    assert first["emails"] == 1
    assert {name for name, number in second.items() if number} <= {"suppressions"}


def test_more_emails_than_one_step_are_all_erased():
    for i in range(105):
        make_email(to=[f"u{i}@example.com", ADA])
    assert erase_recipient(ADA)["emails"] == 105
    assert not FurtherRecipient.objects.filter(address=ADA).exists()


def test_the_person_stays_suppressed():
    a_life()
    erase_recipient(ADA)
    assert suppressed([ADA]).keys() == {ADA}
    assert not Suppression.objects.exclude(address="").exists()


def test_every_column_that_may_hold_an_address_is_looked_through():
    columns = {m.__name__: text_columns(m) for m in apps.get_app_config("celery_mailer").get_models()}
    assert {"to", "cc", "bcc", "address", "message_id", "reason"} <= set(columns["Email"])
    assert {"context", "metadata", "headers", "text", "from_email"} <= set(columns["Content"])


def test_the_export_has_what_is_stored():
    email = a_life()
    found = export_recipient(ADA)
    (only,) = found["emails"]
    assert (only["id"], only["text"], only["attachments"]) == (str(email.pk), ADA, [f"{ADA}.txt"])
    assert [e["kind"] for e in found["events"]] == ["bounced", "delivered"]
    assert {s["reason"] for s in found["suppressions"]} == {"manual", "hard_bounce"}
    assert found == json.loads(json.dumps(found))


def test_the_export_names_nobody_else():
    make_email(to=["b@example.com", ADA], cc=["c@example.com"])
    make_email(to="d@example.com")
    found = export_recipient(ADA)
    assert [e["roles"] for e in found["emails"]] == [["to"]]
    assert not any(f"{other}@example.com" in json.dumps(found) for other in "bcd")


def test_after_erasing_there_is_nothing_to_export_but_the_suppressions():
    a_life()
    erase_recipient(ADA)
    found = export_recipient(ADA)
    assert (found["emails"], found["events"]) == ([], [])
    assert found["suppressions"]


def test_the_commands():
    a_life()
    exported, erased = StringIO(), StringIO()
    call_command("mailer_export_recipient", ADA, stdout=exported)
    call_command("mailer_erase", ADA, "--json", stdout=erased)
    assert json.loads(exported.getvalue())["address"] == ADA
    assert json.loads(erased.getvalue())["emails"] == 1


def test_the_command_says_what_is_left():
    claim([make_email(to=TO)])
    out, err = StringIO(), StringIO()
    call_command("mailer_erase", ADA, stdout=out, stderr=err)
    assert "in_flight: 1" in out.getvalue()
    assert "run this again" in err.getvalue()
