from contextlib import nullcontext, suppress
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django.utils.translation import gettext_lazy

from celery_mailer import audience
from celery_mailer.exceptions import InvalidEmail
from celery_mailer.models import Batch, Email
from celery_mailer.models.attachment import enclosures_of
from celery_mailer.seen import Seen
from celery_mailer.signals import email_queued
from celery_mailer.tasks import send_bulk_email, send_template_email
from tests.shop.models import Order, User

pytestmark = pytest.mark.django_db

PEOPLE = [
    {"email": "ada@example.com", "name": "Ada"},
    {"email": "bob@example.com", "context": {"day": "Monday"}},
]


@pytest.fixture(autouse=True)
def started(monkeypatch):
    """The ids of the chains that were started."""
    calls = []
    monkeypatch.setattr("celery_mailer.chain.start", lambda ids, priority: calls.append(ids) or True)
    return calls


@pytest.fixture
def small_slices(monkeypatch):
    monkeypatch.setattr("celery_mailer.bulk.SLICE", 3)


def emails():
    return list(Email.objects.order_by("pk").select_related("content"))


def addresses():
    return [address for email in emails() for address in email.to]


def bulk_of(recipients, **arguments):
    result = send_bulk_email.delay(recipients=recipients, **{"subject": "x", **arguments})
    return Batch.objects.get(pk=result.id)


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


# What is wrong with a recipient, and what is wrong with the call.


@pytest.mark.parametrize(
    ("recipient", "fault"),
    [
        ("nonsense", ["email", "is not a valid email address"]),
        ({"email": ""}, ["email", "is empty"]),
        ({"name": "Ada"}, ["email", "is empty"]),
        ({"email": "a@example.com", "name": "a\r\nBcc: b@example.com"}, ["email", "has control characters"]),
        ({"email": "a@example.com", "language": "tlh"}, ["language", None]),
        ({"email": "a@example.com", "context": 5}, ["context", "is a int, not a dict"]),
        (
            {"email": "a@example.com", "context": {"x": object()}},
            ["context['x']", "a object cannot be stored"],
        ),
        ({"email": "a@example.com", "nmae": "Ada"}, ["recipients", "has the unknown key 'nmae'"]),
        (5, ["recipients", "is a int, not an address, a dict or a row"]),
    ],
)
def test_a_bad_recipient_is_reported_and_the_others_get_their_mail(recipient, fault):
    batch = bulk_of(["ada@example.com", recipient, "bob@example.com"])
    assert addresses() == ["ada@example.com", "bob@example.com"]
    assert (batch.total, batch.taken, batch.invalid, batch.duplicates) == (2, 3, 1, 0)
    ((position, field, said),) = batch.faults
    assert [position, field] == [1, fault[0]]
    assert fault[1] in (said, None)


def test_a_report_holds_no_address():
    batch = bulk_of(["ada@example.com", "secret@@example.com"])
    assert "secret" not in str(batch.faults)


def test_a_report_is_bounded():
    batch = bulk_of(["ada@example.com"] + ["nonsense"] * 150)
    assert (batch.invalid, len(batch.faults)) == (150, 100)


def test_what_the_template_needs_may_be_the_recipients(monkeypatch):
    batch = bulk_of(
        [{"email": "a@example.com", "context": {"name": "A", "order": 1}}, "b@example.com"],
        template="declared.html",
    )
    assert addresses() == ["a@example.com"]
    assert batch.faults == [[1, "context", "lacks what the template needs: order"]]


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ({"recipients": []}, "recipients: is empty"),
        ({"recipients": "ada@example.com"}, "recipients: is a str, not a list or a queryset"),
        ({"recipients": {"email": "ada@example.com"}}, "recipients: is a dict"),
        ({"recipients": 5}, "recipients: is a int"),
        ({"recipients": [5]}, "recipients: is a int, not an address, a dict or a row"),
        (
            {"recipients": [{"email": "a@example.com", "nmae": "Ada"}]},
            "recipients: has the unknown key 'nmae'",
        ),
        ({"template": "nowhere.html"}, "template: 'nowhere.html' does not exist"),
        ({"context": 5}, "context: is a int, not a dict"),
        ({"context": {"x": object()}}, r"context\['x'\]: a object cannot be stored"),
        ({"language": "tlh"}, "language"),
        ({"stream": "rapids"}, "stream"),
        ({"priority": "urgent"}, "priority"),
        ({"to": "a@example.com"}, "cannot be given"),
        ({"cc": "a@example.com"}, "cannot be given"),
        ({"idempotency_key": ""}, "idempotency_key: must be a string"),
        ({"canary": -1}, "canary: must be a number"),
        ({"canary": True}, "canary: must be a number"),
        ({"canary": 1, "priority": "now"}, "canary: cannot be given"),
        ({"canary": 1, "canary_failures": 2}, "canary_failures: must be a share"),
    ],
)
def test_what_is_wrong_with_the_call_is_refused_and_nothing_is_written(arguments, fault):
    with pytest.raises(InvalidEmail, match=fault):
        send_bulk_email.delay(**{"subject": "x", "recipients": PEOPLE, **arguments})
    assert not Email.objects.exists()
    assert not Batch.objects.exists()


def test_a_language_that_is_the_recipients_own_is_their_fault():
    batch = bulk_of([{"email": "a@example.com", "language": "tlh"}, "b@example.com"])
    assert (batch.total, batch.invalid) == (1, 1)


# Duplicates.


@pytest.mark.parametrize(
    "again", ["ada@example.com", "ADA@example.COM", {"email": "ada@example.com", "name": "A"}]
)
def test_who_is_there_twice_gets_one_email(again):
    batch = bulk_of([{"email": "Ada@Example.com", "context": {"n": 1}}, "bob@example.com", again])
    assert addresses() == ["Ada@Example.com", "bob@example.com"]
    assert (batch.total, batch.taken, batch.duplicates, batch.invalid) == (2, 3, 1, 0)


def test_duplicates_are_recognised_across_slices(small_slices):
    batch = bulk_of(["a@example.com", "b@example.com", "c@example.com"] * 3)
    assert (batch.total, batch.duplicates) == (3, 6)


def test_another_batch_may_have_the_same_addresses():
    assert [bulk_of(PEOPLE).total for _ in range(2)] == [2, 2]


def test_an_address_that_is_wrongly_taken_for_known_gets_its_email(monkeypatch):
    monkeypatch.setattr("celery_mailer.seen.Seen.add", lambda self, address: True)
    assert bulk_of(PEOPLE).total == 2


def test_the_filter_forgets_no_address_and_rarely_errs():
    seen = Seen()
    wrong = sum(seen.add(f"u{i}@example.com") for i in range(20_000))
    assert wrong < 20
    assert all(seen.add(f"u{i}@example.com") for i in range(20_000))


# Sources.


def test_recipients_may_come_from_a_generator_which_is_never_all_in_memory(small_slices):
    ahead = []

    def source():
        for i in range(10):
            ahead.append(i - Email.objects.count())
            yield f"u{i}@example.com"

    assert bulk_of(source()).total == 10
    assert max(ahead) <= 3


@pytest.fixture
def users():
    return User.objects.bulk_create(
        User(email=f"u{i}@example.com", first_name=f"F{i}", last_name="L", newsletter_subscribed=i != 2)
        for i in range(7)
    )


def test_recipients_may_be_a_queryset(users, small_slices):
    bulk_of(User.objects.filter(newsletter_subscribed=True))
    assert [e.to for e in emails()] == [[f"F{i} L <u{i}@example.com>"] for i in range(7) if i != 2]
    reference = {"$": "model", "model": "tests_shop.user", "pk": users[0].pk, "db": "default"}
    assert emails()[0].content.context == {"email": "u0@example.com", "name": "F0 L", "user": reference}


def test_a_queryset_is_read_in_pages(users, monkeypatch):
    monkeypatch.setattr(audience, "PAGE", 3)
    with CaptureQueriesContext(connection) as queries:
        assert bulk_of(User.objects.all()).total == 7
    assert sum("tests_shop_user" in q["sql"] and "LIMIT 3" in q["sql"] for q in queries) == 4


@pytest.mark.parametrize(
    "ordered",
    [
        lambda u: u.order_by("-email"),
        lambda u: u.order_by("-email")[:7],
        lambda u: u.order_by("pk").reverse(),
    ],
)
def test_a_queryset_keeps_an_order_of_its_own(users, ordered):
    bulk_of(ordered(User.objects))
    assert [e.address for e in emails()] == [f"u{i}@example.com" for i in reversed(range(7))]


@pytest.mark.django_db(transaction=True)
def test_a_queryset_with_an_order_is_read_while_slices_are_committed(
    users, small_slices, started, monkeypatch
):
    monkeypatch.setattr(audience, "PAGE", 2)
    assert bulk_of(User.objects.order_by("-email")).total == 7
    assert [len(ids) for ids in started] == [3, 3, 1]


def test_a_queryset_may_have_been_cut(users):
    assert bulk_of(User.objects.order_by("pk")[2:4]).total == 2


def test_instances_may_come_in_a_list(users):
    assert bulk_of(users[:3]).total == 3


def test_the_address_may_be_in_another_field(users):
    orders = [Order.objects.create(user=user) for user in users[:2]]
    bulk_of(Order.objects.select_related("user"), email_field="user__email")
    assert addresses() == ["u0@example.com", "u1@example.com"]
    assert [e.content.context["order"]["pk"] for e in emails()] == [order.pk for order in orders]


def test_a_field_that_does_not_exist_is_refused(users):
    with pytest.raises(InvalidEmail, match="email_field: 'mail' leads nowhere"):
        bulk_of(User.objects.all(), email_field="mail")


def test_columns_of_values_are_context(users):
    bulk_of(User.objects.order_by("pk").values("email", "first_name"))
    assert emails()[3].content.context == {"email": "u3@example.com", "name": "", "first_name": "F3"}


def test_values_may_have_the_address_under_another_name(users):
    Order.objects.create(user=users[0])
    bulk_of(Order.objects.values("pk", "user__email"), email_field="user__email")
    assert emails()[0].content.context == {
        "email": "u0@example.com",
        "name": "",
        "pk": Order.objects.get().pk,
    }


def test_a_column_of_addresses_will_do(users):
    assert bulk_of(User.objects.values_list("email", flat=True)).total == 7


def test_a_queryset_in_the_common_context_is_asked_once(users):
    with CaptureQueriesContext(connection) as queries:
        bulk_of([f"x{i}@example.com" for i in range(50)], context={"users": User.objects.all()})
    assert sum("tests_shop_user" in q["sql"] for q in queries) == 1
    assert {len(e.content.context["users"]["pks"]) for e in emails()} == {7}


def test_what_is_lazily_translated_is_for_each_recipient():
    people = [{"email": f"{code}@example.com", "language": code} for code in ("de", "fr", "de-at")]
    bulk_of(people, context={"day": gettext_lazy("Monday")})
    assert [e.content.context["day"] for e in emails()] == ["Montag", "lundi", "Montag"]


def test_attachments_are_read_once(tmp_path, media, monkeypatch):
    (tmp_path / "a.txt").write_text("a")
    reads = []
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: reads.append(path) or read(path))
    bulk_of(PEOPLE, attachments=[tmp_path / "a.txt"])
    assert len(reads) == 1
    assert [len(enclosures_of([e.pk])[e.pk]) for e in emails()] == [1, 1]
    assert all(e.content.has_attachments for e in emails())


# Transactions, and a process that died.


@pytest.mark.django_db(transaction=True)
def test_each_slice_is_committed_and_started_before_the_next_is_read(small_slices, started):
    seen = []

    def source():
        for i in range(8):
            seen.append(len(started))
            yield f"u{i}@example.com"

    bulk_of(source())
    assert seen == [0, 0, 0, 1, 1, 1, 2, 2]
    assert [len(ids) for ids in started] == [3, 3, 2]


def test_in_a_transaction_everything_starts_at_its_commit(
    small_slices, started, django_capture_on_commit_callbacks
):
    with django_capture_on_commit_callbacks(execute=True):
        bulk_of(f"u{i}@example.com" for i in range(8))
        assert started == []
    assert [pk for ids in started for pk in ids] == [e.pk for e in emails()]
    assert [len(ids) for ids in started] == [3, 3, 2]


@pytest.mark.django_db(transaction=True)
def test_what_is_rolled_back_was_never_there(small_slices, started):
    with suppress(LookupError), transaction.atomic():
        bulk_of(f"u{i}@example.com" for i in range(8))
        raise LookupError
    assert not Batch.objects.exists()
    assert not emails()
    assert started == []


def test_a_call_that_raises_in_a_transaction_has_written_nothing(small_slices):
    with pytest.raises(LookupError):
        bulk_of(breaks_after(5))
    assert not Batch.objects.exists()
    assert not emails()


def breaks_after(number, error=LookupError):
    for i in range(number):
        yield f"u{i}@example.com"
    raise error


@pytest.mark.django_db(transaction=True)
def test_the_same_call_completes_what_a_process_that_died_has_begun(small_slices):
    with pytest.raises(LookupError):
        bulk_of(breaks_after(5), idempotency_key="news")
    batch = Batch.objects.get()
    assert (batch.total, batch.reading) == (3, True)
    people = ["new@example.com", "nonsense", "u1@example.com", *[f"u{i}@example.com" for i in range(7)]]
    again = bulk_of(people, idempotency_key="news")
    assert again.pk == batch.pk
    assert sorted(addresses()) == ["new@example.com"] + [f"u{i}@example.com" for i in range(7)]
    assert (again.total, again.taken, again.invalid, again.duplicates, again.reading) == (8, 10, 1, 1, False)


def test_a_complete_batch_is_not_read_again():
    first = bulk_of(PEOPLE, idempotency_key="news")
    assert bulk_of(breaks_after(0), idempotency_key="news") == first
    assert len(emails()) == 2


def test_two_that_take_the_same_recipients_at_once_send_each_one_email(small_slices):
    def both():
        """The other one takes them all while this one has read its first slice."""
        for i in range(8):
            if i == 4:
                bulk_of((f"u{n}@example.com" for n in range(8)), idempotency_key="news")
            yield f"u{i}@example.com"

    batch = bulk_of(both(), idempotency_key="news")
    assert sorted(addresses()) == [f"u{i}@example.com" for i in range(8)]
    assert batch.total == 8


@pytest.mark.django_db(transaction=True)
def test_a_broker_that_is_down_is_not_asked_for_each_slice(small_slices, monkeypatch):
    asked = []
    monkeypatch.setattr("celery_mailer.chain.start", lambda ids, priority: asked.append(ids))
    bulk_of(f"u{i}@example.com" for i in range(9))
    assert len(asked) == 1


@pytest.mark.parametrize("own_transaction", [False, True])
@pytest.mark.django_db(transaction=True)
def test_the_project_is_told_of_every_email(small_slices, own_transaction):
    told = []

    def hear(emails, **kwargs):
        told.extend(email.pk for email in emails)

    email_queued.connect(hear)
    try:
        with transaction.atomic() if own_transaction else nullcontext():
            bulk_of(f"u{i}@example.com" for i in range(8))
    finally:
        email_queued.disconnect(hear)
    assert told == [e.pk for e in emails()]


@pytest.mark.django_db(transaction=True)
def test_scheduled_mail_is_left_to_the_dispatcher(started):
    bulk_of(PEOPLE, scheduled_at=timezone.now() + timedelta(days=1))
    assert started == [[]]


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
