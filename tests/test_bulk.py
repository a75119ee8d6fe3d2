import pytest

from celery_mailer.exceptions import InvalidEmail
from celery_mailer.models import Batch, Email
from celery_mailer.tasks import send_bulk_email, send_template_email

pytestmark = pytest.mark.django_db

PEOPLE = [
    {"email": "ada@example.com", "name": "Ada"},
    {"email": "bob@example.com", "context": {"day": "Monday"}},
]


@pytest.fixture(autouse=True)
def no_broker(monkeypatch):
    monkeypatch.setattr("celery_mailer.chain.start", lambda ids, priority: True)


def emails():
    return list(Email.objects.order_by("pk").select_related("content"))


def test_everybody_gets_an_email_of_their_own_in_one_batch():
    result = send_bulk_email.delay(subject="Hi {{ name }}", recipients=PEOPLE)
    batch = Batch.objects.get()
    assert result.id == str(batch.pk)
    assert batch.total == 2
    assert [e.to for e in emails()] == [["Ada <ada@example.com>"], ["bob@example.com"]]
    assert {e.batch for e in emails()} == {batch}


def test_each_context_is_laid_over_the_common_one():
    send_bulk_email.delay(subject="x", recipients=PEOPLE, context={"day": "Sunday", "name": "friend"})
    assert [e.content.context for e in emails()] == [
        {"email": "ada@example.com", "name": "Ada", "day": "Sunday"},
        {"email": "bob@example.com", "name": "friend", "day": "Monday"},
    ]


def test_an_address_alone_is_a_recipient():
    send_bulk_email.delay(subject="x", recipients=["ada@example.com"])
    assert emails()[0].to == ["ada@example.com"]


def test_a_recipient_may_have_a_language():
    send_bulk_email.delay(
        subject="x", recipients=[{"email": "a@example.com", "language": "de"}], language="fr"
    )
    assert emails()[0].content.language == "de"


@pytest.mark.parametrize("name", ["Doe, Ada", 'Ada "the" Doe', "Grüße", "a\\b"])
def test_a_name_may_have_anything_in_it(name):
    send_bulk_email.delay(subject="x", recipients=[{"email": "a@example.com", "name": name}])
    assert emails()[0].to[0].endswith("<a@example.com>")
    assert emails()[0].content.context["name"] == name


def test_bulk_mail_is_not_urgent_unless_somebody_says_so():
    send_bulk_email.delay(subject="x", recipients=PEOPLE)
    send_bulk_email.delay(subject="x", recipients=PEOPLE, priority="high")
    assert [e.priority for e in emails()] == [0, 0, 2, 2]


@pytest.mark.parametrize(
    ("recipients", "fault"),
    [
        ([], "recipients: is empty"),
        ([5], r"recipients\[0\]: is a int, not an address or a dict"),
        ([{"name": "Ada"}], r"recipients\[0\]: has no email"),
        ([{"email": "a@example.com", "nmae": "Ada"}], r"recipients\[0\]: has the unknown key 'nmae'"),
        (["a@example.com", "nonsense"], "to"),
        ([{"email": "a@example.com", "name": "a\r\nBcc: b@example.com"}], "to"),
    ],
)
def test_a_bad_recipient_is_named_and_nothing_is_written(recipients, fault):
    with pytest.raises(InvalidEmail, match=fault):
        send_bulk_email.delay(subject="x", recipients=recipients)
    assert not Email.objects.exists()


@pytest.mark.parametrize("name", ["to", "cc", "idempotency_key"])
def test_what_is_for_one_email_is_refused(name):
    with pytest.raises(InvalidEmail, match="cannot be given"):
        send_bulk_email.delay(subject="x", recipients=PEOPLE, **{name: "a@example.com"})


def test_an_argument_that_does_not_exist_is_refused():
    with pytest.raises(TypeError, match="'subjetc'"):
        send_bulk_email.delay(subjetc="x", recipients=PEOPLE)


def test_the_same_task_twice_is_one_batch():
    for _ in range(2):
        send_bulk_email.apply_async(kwargs={"subject": "x", "recipients": PEOPLE}, task_id="the same")
    assert len(emails()) == 2
    assert Batch.objects.count() == 1


def test_options_of_the_call_are_those_of_each_email():
    send_bulk_email.apply_async(kwargs={"subject": "x", "recipients": PEOPLE}, countdown=600)
    assert all(e.scheduled_at for e in emails())


@pytest.mark.django_db(transaction=True)
def test_called_directly_it_sends_now(mailoutbox):
    batch = send_bulk_email(subject="Hi {{ name }}", message="x", recipients=PEOPLE)
    assert batch.emails.filter(status="sent").count() == 2
    assert [m.subject for m in mailoutbox] == ["Hi Ada", "Hi"]


# One email from a template.


def test_a_template_email_is_queued():
    result = send_template_email.delay("bill.html", {"name": "Ada"}, ["ada@example.com"])
    (email,) = emails()
    assert result.id == str(email.pk)
    assert (email.content.template, email.content.context) == ("emails/bill.html", {"name": "Ada"})


@pytest.mark.django_db(transaction=True)
def test_a_template_email_called_directly_is_sent_now(mailoutbox):
    email = send_template_email(
        template="bill.html", context={"name": "A&B"}, to=["ada@example.com"], subject="Mine", language="en"
    )
    assert email.status == "sent"
    (message,) = mailoutbox
    assert (message.subject, message.body) == ("Mine", "Bills for A&B")
    assert message.alternatives[0].content == "<p>Bills for A&amp;B</p>"


def test_a_template_email_takes_what_every_door_takes():
    send_template_email.delay(
        "bill.html", to="ada@example.com", priority="high", tags=["x"], language="de-at"
    )
    (email,) = emails()
    assert (email.priority, email.content.tags, email.content.language) == (2, ["x"], "de-at")


def test_what_a_template_needs_must_be_there():
    with pytest.raises(InvalidEmail, match="context: lacks what the template needs: order, name"):
        send_template_email.delay("declared.html", {"nickname": "A"}, "ada@example.com")


def test_a_template_email_refuses_what_it_does_not_know():
    with pytest.raises(TypeError, match="'contxt'"):
        send_template_email.delay("bill.html", contxt={}, to="ada@example.com")
