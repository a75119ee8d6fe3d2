"""The admin's pages about emails and batches."""

import re
from datetime import UTC, datetime, timedelta
from email.mime.image import MIMEImage
from io import BytesIO

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from celery_mailer import chain
from celery_mailer.admin import lists, words
from celery_mailer.admin.preview import remote_images
from celery_mailer.enqueue import enqueue
from celery_mailer.models import Batch, Content, Decision, Email, EmailTemplate, Message, Suppression
from celery_mailer.models import transitions as t
from celery_mailer.models.recipient import FurtherRecipient
from celery_mailer.models.suppression import Entry, release, suppress
from celery_mailer.render.stage import render_emails
from celery_mailer.values import EmailRequest, Kind, Outcome, Phase, Priority, Status, SuppressionReason
from tests.factories import claim, make_attempt, make_email, make_emails, stored
from tests.test_inline_images import PNG

pytestmark = pytest.mark.django_db

LIST = "/admin/celery_mailer/email/"
HTML = '<p>Hello</p><img src="cid:logo"><img src="https://t.example.com/p.gif">'


def user_with(*codenames, **fields):
    user = User.objects.create_user("bob", "bob@example.com", is_staff=True, **fields)
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    return user


@pytest.fixture
def login(client):
    """Logs in somebody with these permissions."""

    def log_in(*codenames):
        client.force_login(user_with(*codenames))
        return client

    return log_in


@pytest.fixture
def admin(client):
    client.force_login(User.objects.create_superuser("ada", "ada@example.com"))
    return client


@pytest.fixture
def started(monkeypatch):
    """The ids that chains were started for."""
    ids = []
    monkeypatch.setattr(chain, "start", lambda pks, priority: ids.extend(pks) or True)
    return ids


def page(email, name="change", *more):
    return reverse(f"admin:celery_mailer_email_{name}", args=[email.pk, *more])


def in_doubt(**arguments):
    email = make_email(**arguments)
    t.move([email.pk], t.DOUBT, claim=claim([email]))
    return email


def text_of(response):
    return " ".join(re.sub(r"<[^>]+>", " ", response.content.decode()).split())


def listed(response):
    return [email.pk for email in response.context["cl"].result_list]


# The list.


def test_the_list_shows_what_there_is_to_know(admin):
    make_email(to=["ada@example.com", "b@example.com"], subject="Invoice 17", priority="high")
    text = text_of(admin.get(LIST))
    for word in ("queued", "high", "transactional", "ada@example.com +1", "Invoice 17"):
        assert word in text


def test_the_list_shows_the_rendered_subject(admin):
    email = make_email(subject="For {{ name }}", context={"name": "Ada"})
    render_emails([email.pk])
    assert "For Ada" in text_of(admin.get(LIST))


def test_the_list_does_not_show_the_subject_of_a_sensitive_email(admin):
    make_email(subject="Your code is hunter-two", sensitive=True)
    assert "hunter-two" not in text_of(admin.get(LIST))


def test_the_list_costs_the_same_however_long_it_is(admin):
    def queries():
        with CaptureQueriesContext(connection) as found:
            assert admin.get(LIST).status_code == 200
        return len(found)

    make_emails(2)
    few = queries()
    for email in make_emails(30, subject="{{ n }}", context={"n": 1}):
        render_emails([email.pk])
    assert queries() == few


def test_the_list_reads_no_bodies_and_counts_no_further_than_its_bound(admin):
    make_emails(2)
    with CaptureQueriesContext(connection) as found:
        admin.get(LIST)
    statements = [query["sql"] for query in found]
    assert not any(".html" in sql or '."context"' in sql for sql in statements)
    counts = [sql for sql in statements if "COUNT(" in sql and "celery_mailer_email" in sql]
    assert counts
    assert all(f"LIMIT {lists.BOUND}" in sql for sql in counts)


def test_a_list_that_was_cut_says_so(admin, monkeypatch):
    make_emails(5)
    assert "can be paged through" not in text_of(admin.get(LIST))
    monkeypatch.setattr(lists, "BOUND", 3)
    assert "The newest 3 can be paged through" in text_of(admin.get(LIST))


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [("status", "failed", 0), ("priority", "0", 1), ("stream", "marketing", 2), ("status", "queued", 3)],
)
def test_filters(admin, name, value, found):
    emails = [make_email(priority="low"), make_email(stream="marketing"), make_email(stream="marketing")]
    emails.append(make_email())
    t.move([emails[3].pk], t.EXPIRE, reason="expired")
    assert len(listed(admin.get(LIST, {name: value}))) == found


@pytest.mark.parametrize(
    ("status", "implied"), [("queued", "due_at"), ("deferred", "due_at"), ("sending", "lease_until")]
)
def test_a_filter_names_the_condition_of_the_index_that_serves_it(admin, status, implied):
    rows = admin.get(LIST, {"status": status}).context["cl"].queryset
    assert f'"{implied}" IS NOT NULL' in str(rows.query).replace("`", '"')


@pytest.mark.parametrize("lookup", ["to__contains", "cc__icontains", "bcc"])
def test_the_list_is_not_filtered_by_json(admin, lookup):
    assert admin.get(LIST, {lookup: "x"}).status_code == 400


@pytest.mark.parametrize(
    ("term", "found"),
    [
        ("ada@example.com", 1),
        (" Ada Lovelace <ADA@Example.com> ", 1),
        ("boss@example.com", 1),
        ("hidden@example.com", 1),
        ("grüße@exämple.com", 0),
        ("info@bücher.example", 1),
        ("ada", 0),
        ("example.com", 0),
    ],
)
def test_search_by_address(admin, term, found):
    make_email(to="Ada Lovelace <Ada@example.com>", cc="boss@example.com", bcc="hidden@example.com")
    make_email(to="info@bücher.example")
    assert len(listed(admin.get(LIST, {"q": term}))) == found


def test_search_by_id_and_by_message_id(admin):
    email = make_emails(3)[1]
    for term in (email.pk, email.pk.hex, email.message_id, email.message_id.strip("<>")):
        assert listed(admin.get(LIST, {"q": term})) == [email.pk]


def test_search_looks_only_into_indexes(admin):
    if connection.vendor != "sqlite":
        pytest.skip("the plan is read as SQLite writes it")
    from celery_mailer.admin.emails import _search

    plan = Email.objects.filter(_search("ada@example.com")).explain()
    assert "mailer_email_address_idx" in plan
    assert "mailer_email_message_id_idx" in plan
    assert "SCAN" not in plan


def test_only_emails_with_several_recipients_have_rows_of_them():
    make_emails(2)
    assert not FurtherRecipient.objects.exists()
    email = make_email(to=["a@example.com", "b@example.com"], bcc="B@example.com")
    assert list(email.further_recipients.values_list("address", flat=True)) == ["b@example.com"]


def test_an_email_that_is_saved_by_itself_is_found_too():
    from celery_mailer import mail

    email = mail.send(["a@example.com", "b@example.com"], subject="s", message="m", commit=False)
    email.save()
    assert stored(email).address == "a@example.com"
    assert email.further_recipients.get().address == "b@example.com"


def test_the_date_hierarchy_names_days_and_narrows_by_them(admin):
    now = timezone.now().replace(year=2026, month=3, day=10, hour=18)
    old, new = make_emails(2)
    Email.objects.filter(pk=old.pk).update(created_at=now.replace(year=2025))
    Email.objects.filter(pk=new.pk).update(created_at=now)
    calendar = admin.get(LIST).context["cl"].calendar
    assert [choice["title"] for choice in calendar["choices"]] == ["2025", "2026"]
    response = admin.get(LIST + calendar["choices"][1]["link"])
    assert listed(response) == [new.pk]
    months = response.context["cl"].calendar
    assert [choice["title"] for choice in months["choices"]] == [
        "January 2026",
        "February 2026",
        "March 2026",
    ]
    days = admin.get(LIST + months["choices"][2]["link"]).context["cl"].calendar
    assert len(days["choices"]) == 10
    last = admin.get(LIST + days["choices"][-1]["link"])
    assert listed(last) == [new.pk]
    assert last.context["cl"].calendar["back"]["title"] == "March 2026"


def test_selected_emails_can_be_cancelled(admin):
    first, second, third = make_emails(3)
    selected = {"action": "cancel_selected", "_selected_action": [first.pk, second.pk]}
    assert admin.post(LIST, selected).status_code == 302
    assert [stored(e).status for e in (first, second, third)] == ["cancelled", "cancelled", "queued"]
    assert {d.detail for d in Decision.objects.all()} == {"by ada"}


def test_too_many_are_not_acted_on_at_once(admin, monkeypatch):
    emails = make_emails(3)
    monkeypatch.setattr(lists, "BOUND", 2)
    monkeypatch.setattr("celery_mailer.admin.emails.BOUND", 2)
    selected = {"action": "cancel_selected", "_selected_action": [emails[0].pk], "select_across": "1"}
    response = admin.post(LIST, selected, follow=True)
    assert "too many" in text_of(response)
    assert stored(emails[0]).status == "queued"


def test_without_permissions_there_are_no_actions(login):
    make_email()
    response = login("view_email").get(LIST)
    assert response.status_code == 200
    assert "cancel_selected" not in response.content.decode()


# The page of one email.


def test_the_timeline_tells_all_in_order(admin):
    email = make_email(subject="{{ n }}", context={"n": 1})
    render_emails([email.pk])
    token = claim([email])
    make_attempt(
        email, token, "deferred", provider="smtp1", kind="temporary", code=451, text="4.7.1 Greylisted"
    )
    t.move([email.pk], t.DEFER, reason="temporary", due_at=timezone.now(), claim=token)
    t.move([email.pk], t.WAKE, due_at=timezone.now())
    token = claim([email])
    answers = {"a@example.com": ["accepted", 250, "ok"], "b@example.com": ["rejected", 550, "no such user"]}
    make_attempt(email, token, provider="smtp2", code=250, text="queued as 4F2A", recipients=answers)
    t.move([email.pk], t.SENT, reason="partly_rejected", claim=token)
    text = text_of(admin.get(page(email))).partition("Timeline")[2]
    told = [
        "Queued",
        "Rendered",
        "Attempt by smtp1: deferred",
        "asks to try again later",
        "451 4.7.1 Greylisted",
        "To be tried again",
        "Attempt by smtp2: accepted",
        "250 queued as 4F2A",
        "550 no such user",
        "Sent",
    ]
    places = [text.find(word) for word in told]
    assert -1 not in places
    assert places == sorted(places)


def test_the_page_shows_text_headers_and_files(admin):
    email = make_email(
        subject="Invoice",
        message="Dear Ada,",
        headers={"X-Order": "17"},
        attachments={"invoice.pdf": BytesIO(b"%PDF")},
        cc="boss@example.com",
    )
    text = text_of(admin.get(page(email)))
    for word in (
        "Dear Ada,",
        "X-Order 17",
        "invoice.pdf",
        "application/pdf",
        "boss@example.com",
        email.message_id,
    ):
        assert word.replace("<", "&lt;").replace(">", "&gt;") in text


def test_what_an_email_says_cannot_run_on_its_page(admin):
    email = make_email(
        subject="<script>alert(1)</script>", message="<script>alert(2)</script>", html_message=HTML
    )
    page_ = admin.get(page(email)).content.decode()
    assert "<script>alert" not in page_
    assert re.search(r'<iframe [^>]*sandbox=""[^>]*src="[^"]+/html/"', page_)
    assert "1 image from elsewhere is not loaded" in page_


def test_the_pages_have_no_inline_scripts_and_styles(admin):
    email = make_email(html_message=HTML, to=["a@example.com", "b@example.com"])
    own = admin.get(page(email)).content.decode().partition('id="content-main"')[2]
    assert not re.search(r"<style|<script(?![^>]*src=)| style=| on\w+=", own)


def test_an_email_that_waits_to_be_rendered_shows_what_it_would_say(admin):
    email = make_email(subject="For {{ name }}", message="Dear {{ name }}", context={"name": "Ada"})
    text = text_of(admin.get(page(email)))
    assert "Dear Ada" in text
    assert "not rendered yet" in text
    assert not Message.objects.exists()


def test_a_template_fault_is_shown_on_the_page(admin):
    email = make_email(subject="{{ x.y }}", message="{% if a b %}", context={})
    assert "It cannot be rendered" in text_of(admin.get(page(email)))


@pytest.mark.parametrize(
    ("fields", "why"), [({"sensitive": True}, "It is sensitive"), ({"dropped": True}, "no longer stored")]
)
def test_what_must_not_be_seen_is_not_shown_to_anybody(admin, fields, why):
    email = make_email(
        subject="Your code", message="hunter-two", html_message="<p>hunter-two</p>", sensitive=True
    )
    Content.objects.update(**({"sensitive": False} | fields))
    text = text_of(admin.get(page(email)))
    assert why in text
    assert "hunter-two" not in text
    for name in ("html", "source"):
        assert admin.get(page(email, name)).status_code == 404


def test_what_emails_say_needs_a_permission_of_its_own(login):
    email = make_email(
        message="Dear Ada", html_message="<p>Dear Ada</p>", attachments={"a.txt": BytesIO(b"x")}
    )
    client = login("view_email")
    response = client.get(page(email))
    assert response.status_code == 200
    assert "Dear Ada" not in text_of(response)
    urls = [page(email, "html"), page(email, "source"), page(email, "file", email.enclosures.get().pk)]
    assert [client.get(url).status_code for url in urls] == [403, 403, 403]


def test_the_pages_are_for_those_who_are_logged_in(client):
    email = make_email(html_message=HTML)
    for url in (page(email), page(email, "html"), page(email, "source"), LIST):
        assert client.get(url).status_code == 302


def test_nobody_adds_or_edits_an_email(admin):
    email = make_email()
    assert admin.get(LIST + "add/").status_code == 403
    assert admin.post(page(email), {"subject": "x"}).status_code == 403


def test_deleting_needs_djangos_permission(login):
    email = make_email()
    client = login("view_email")
    assert client.post(page(email, "delete"), {"post": "yes"}).status_code == 403
    User.objects.get().user_permissions.add(Permission.objects.get(codename="delete_email"))
    assert client.post(page(email, "delete"), {"post": "yes"}).status_code == 302
    assert not Email.objects.exists()


@pytest.mark.parametrize("pk", ["nonsense", "01a1f3a0-7c1e-7a52-9d3b-5f0b8c6d2e42"])
def test_an_email_that_does_not_exist_is_a_404(admin, pk):
    assert admin.get(f"{LIST}{pk}/change/").status_code == 404


# The message behind glass.


def test_the_html_comes_with_a_strict_policy(admin):
    response = admin.get(page(make_email(html_message=HTML), "html"))
    assert response["Content-Security-Policy"] == (
        "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'self'"
    )
    assert response["X-Frame-Options"] == "SAMEORIGIN"
    assert response["X-Content-Type-Options"] == "nosniff"
    assert response["Referrer-Policy"] == "no-referrer"
    assert "no-store" in response["Cache-Control"]


def test_inline_images_are_in_the_html(admin):
    image = MIMEImage(PNG)
    image["Content-ID"] = "<logo>"
    image["Content-Disposition"] = "inline"
    html = admin.get(page(make_email(html_message=HTML, attachments=[image]), "html")).content.decode()
    assert '<img src="data:image/png;base64,' in html
    assert "https://t.example.com/p.gif" in html  # which the policy keeps from being loaded


def test_images_of_a_template_are_in_the_html_before_and_after_it_is_rendered(admin, media):
    media.mkdir()
    (media / "logo.png").write_bytes(PNG)
    html = "{% load celery_mailer %}<img src=\"{% inline_image '" + str(media / "logo.png") + "' %}\">"
    email = make_email(html_message=html, context={})
    before = admin.get(page(email, "html")).content.decode()
    render_emails([email.pk])
    after = admin.get(page(email, "html")).content.decode()
    assert 'src="data:image/png;base64,' in before
    assert 'src="data:image/png;base64,' in after


def test_a_plain_email_has_no_html(admin):
    assert admin.get(page(make_email(), "html")).status_code == 404


@pytest.mark.parametrize(
    ("html", "number"),
    [
        ('<img src="cid:x"><img src="data:image/png;base64,AA">', 0),
        ('<img src="http://a/1.png"><img src="//a/2.png"><IMG SRC="HTTPS://a/3.png">', 3),
        ('<img src="http://a/1.png"><img src="http://a/1.png">', 1),
        ('<td background="https://a/b.png" style="background: url( \'https://a/c.png\' )">', 2),
        ("<style>p { background: url(https://a/d.png) }</style>", 1),
        ('<img srcset="https://a/1.png 1x, https://a/2.png 2x">', 2),
        ('<a href="https://a/">https://a/x.png</a>', 0),
    ],
)
def test_images_from_elsewhere_are_counted(html, number):
    assert remote_images(html) == number


def test_the_source_is_what_goes_over_the_wire(admin):
    email = make_email(message="Grüße", attachments={"a.txt": BytesIO(b"hello")})
    response = admin.get(page(email, "source"))
    assert response["Content-Type"] == "text/plain; charset=utf-8"
    assert response["Content-Security-Policy"].startswith("sandbox;")
    assert f"Message-ID: {email.message_id}" in response.content.decode()
    assert 'filename="a.txt"' in response.content.decode()


def test_the_source_can_be_saved(admin):
    email = make_email()
    response = admin.get(page(email, "source"), {"download": ""})
    assert response["Content-Disposition"] == f'attachment; filename="{email.pk}.eml"'
    assert response["Content-Type"] == "application/octet-stream"


def test_a_file_is_saved_and_never_opened(admin):
    email = make_email(attachments=[("page.html", "<script>", "text/html")])
    response = admin.get(page(email, "file", email.enclosures.get().pk))
    assert b"".join(response.streaming_content) == b"<script>"
    assert response["Content-Type"] == "application/octet-stream"
    assert response["Content-Disposition"] == 'attachment; filename="page.html"'
    assert response["X-Content-Type-Options"] == "nosniff"
    response.close()


def test_a_mime_part_is_saved_as_the_file_in_it(admin):
    image = MIMEImage(PNG)
    image.add_header("Content-Disposition", "attachment", filename="logo.png")
    email = make_email(attachments=[image])
    response = admin.get(page(email, "file", email.enclosures.get().pk))
    assert b"".join(response.streaming_content) == PNG


def test_a_file_of_another_email_is_not_there(admin):
    email, other = make_email(attachments={"a.txt": BytesIO(b"x")}), make_email()
    assert admin.get(page(other, "file", email.enclosures.get().pk)).status_code == 404


def test_a_file_that_is_lost_is_said_to_be(admin):
    email = make_email(attachments={"a.txt": BytesIO(b"x")})
    from celery_mailer.models.attachment import storage

    storage().delete(email.enclosures.get().attachment.path)
    assert admin.get(page(email)).status_code == 200
    assert admin.get(page(email, "source")).status_code == 404
    assert admin.get(page(email, "file", email.enclosures.get().pk)).status_code == 404


def test_there_are_words_for_all_that_may_stand_on_a_timeline():
    assert {move.name for move in t.MOVES if not move.plain} <= words.DECISIONS.keys()
    assert {str(kind) for kind in Kind if kind} <= words.REASONS.keys()
    assert [set(known) for known in (words.STATUSES, words.OUTCOMES, words.LANES, words.PHASES)] == [
        set(values) for values in (Status, Outcome, Priority, Phase)
    ]


# What can be done.

ACTS = {
    "cancel": (make_email, "cancel_email"),
    "retry": (make_email, "resend_email"),
    "resend": (in_doubt, "resend_email"),
    "confirm": (in_doubt, "decide_email"),
    "repeat": (in_doubt, "decide_email"),
    "give_up": (in_doubt, "decide_email"),
    "suppress": (make_email, "add_suppression"),
}


@pytest.mark.parametrize("name", ACTS)
def test_an_act_needs_a_post(admin, name):
    email = ACTS[name][0]()
    before = list(Email.objects.values_list("pk", "status", "due_at"))
    assert admin.get(page(email, "act", name)).status_code == 405
    assert list(Email.objects.values_list("pk", "status", "due_at")) == before


@pytest.mark.parametrize("name", ACTS)
def test_an_act_needs_its_permission(login, name, started):
    make, permission = ACTS[name]
    email = make()
    others = {p for _, p in ACTS.values()} - {permission}
    client = login("view_email", "read_email", "delete_email", *others)
    assert name not in [act.name for act in client.get(page(email)).context["acts"]]
    assert client.post(page(email, "act", name)).status_code == 403
    User.objects.get().user_permissions.add(Permission.objects.get(codename=permission))
    assert name in [act.name for act in client.get(page(email)).context["acts"]]
    assert client.post(page(email, "act", name)).status_code == 302


def test_an_act_needs_the_csrf_token():
    email = make_email()
    client = Client(enforce_csrf_checks=True)
    client.force_login(User.objects.create_superuser("ada"))
    assert client.post(page(email, "act", "cancel")).status_code == 403
    assert stored(email).status == "queued"


@pytest.mark.parametrize(
    ("name", "status"),
    [("confirm", "sent"), ("repeat", "deferred"), ("give_up", "failed"), ("cancel", "cancelled")],
)
def test_a_person_decides_what_became_of_an_uncertain_email(admin, name, status):
    email = in_doubt()
    admin.post(page(email, "act", name))
    assert stored(email).status == status
    decision = Decision.objects.filter(email=email).latest("pk")
    assert (decision.reason, decision.detail) == ("by_hand", "by ada")
    assert "by ada" in text_of(admin.get(page(email)))


def test_what_is_sent_again_is_due_at_once(admin):
    email = in_doubt()
    admin.post(page(email, "act", "repeat"))
    assert stored(email).due_at <= timezone.now()


def test_a_deferred_email_is_sent_now(admin, started, django_capture_on_commit_callbacks):
    email = make_email()
    t.move([email.pk], t.DEFER, due_at=timezone.now() + timedelta(hours=5), claim=claim([email]))
    with django_capture_on_commit_callbacks(execute=True):
        admin.post(page(email, "act", "retry"))
    assert started == [email.pk]
    assert stored(email).status == "queued"
    assert stored(email).due_at < timezone.now() + timedelta(hours=1)
    assert Decision.objects.latest("pk").move == "retry"


def test_a_scheduled_email_is_sent_now(admin, real_smtp, monkeypatch, django_capture_on_commit_callbacks):
    monkeypatch.setattr(chain, "start", lambda ids, priority: chain.run(ids))
    email = make_email(scheduled_at=timezone.now() + timedelta(days=5))
    with django_capture_on_commit_callbacks(execute=True):
        admin.post(page(email, "act", "retry"))
    assert stored(email).status == "sent"
    assert len(real_smtp.received) == 1


def test_resending_leads_to_the_new_email_which_names_the_old(admin, started):
    old = in_doubt()
    response = admin.post(page(old, "act", "resend"))
    new = Email.objects.get(resent_from=old)
    assert response["Location"] == page(new)
    assert str(old.pk) in text_of(admin.get(page(new)))
    assert str(new.pk) in text_of(admin.get(page(old)))


def test_what_was_dropped_cannot_be_resent(admin):
    email = make_email(sensitive=True)
    t.move([email.pk], t.CANCEL)
    assert "resend" not in [act.name for act in admin.get(page(email)).context["acts"]]
    assert "no longer stored" in text_of(admin.post(page(email, "act", "resend"), follow=True))
    assert Email.objects.count() == 1


def test_the_recipients_are_suppressed_by_hand_for_the_stream(admin):
    email = make_email(to=["Ada <Ada@Example.com>", "b@example.com"], cc="c@example.com")
    admin.post(page(email, "act", "suppress"))
    rows = Suppression.objects.order_by("address")
    assert [row.address for row in rows] == ["ada@example.com", "b@example.com", "c@example.com"]
    told = {(row.stream, row.reason, row.note, row.email, row.expires_at) for row in rows}
    assert told == {("transactional", "manual", "by ada", email, None)}
    assert "Suppress" in text_of(admin.get(page(email, "history")))
    assert stored(email).status == "queued"


def question(client, email):
    """What is asked before the recipients are suppressed, or nothing."""
    content = client.get(page(email)).content.decode()
    found = re.search(r'action="[^"]*/act/suppress/">(.*?)</form>', content, re.DOTALL)
    return found and found[1]


def test_it_is_said_who_would_be_suppressed(admin):
    email = make_email(to=["a@example.com", "b@example.com"], bcc='"<i>" <c@example.com>')
    suppress([Entry("B@example.com", SuppressionReason.MANUAL)])
    asked = question(admin, email)
    assert "transactional" in asked
    assert "a@example.com" in asked
    assert "b@example.com" not in asked
    assert "c@example.com" in asked
    assert "<i>" not in asked


@pytest.mark.parametrize(
    ("entry", "offered"),
    [
        ({"stream": "transactional"}, False),
        ({"stream": ""}, False),
        ({"stream": "marketing"}, True),
        ({"stream": "", "reason": SuppressionReason.SOFT_BOUNCE}, True),
        ({"stream": "", "expires_at": datetime(2999, 1, 1, tzinfo=UTC)}, True),
    ],
)
def test_suppressing_is_offered_where_it_has_an_effect(admin, entry, offered):
    email = make_email(to="a@example.com")
    suppress([Entry("a@example.com", **{"reason": SuppressionReason.MANUAL, **entry})])
    assert (question(admin, email) is not None) is offered


def test_who_was_released_may_be_suppressed_again(admin):
    email = make_email(to="a@example.com")
    admin.post(page(email, "act", "suppress"))
    assert "Suppress: 0 emails" in text_of(admin.post(page(email, "act", "suppress"), follow=True))
    release([Suppression.objects.get().pk], by="ada", note="asked for it")
    admin.post(page(email, "act", "suppress"))
    assert Suppression.objects.filter(active=True).count() == 1


def test_recipients_are_not_suppressed_from_the_list_which_does_not_name_them(admin):
    email = make_email()
    selected = {"action": "suppress_selected", "_selected_action": [email.pk]}
    admin.post(LIST, selected)
    assert not Suppression.objects.exists()


def test_an_act_that_comes_too_late_changes_nothing_and_says_so(admin):
    email = make_email()
    t.move([email.pk], t.SENT, claim=claim([email]))
    assert "Cancel: 0 emails" in text_of(admin.post(page(email, "act", "cancel"), follow=True))
    assert stored(email).status == "sent"


def test_an_act_is_in_the_history(admin):
    email = make_email()
    admin.post(page(email, "act", "cancel"))
    assert "Cancel" in text_of(admin.get(page(email, "history")))


def test_an_unknown_act_is_a_404(admin):
    assert admin.post(page(make_email(), "act", "explode")).status_code == 404


# Batches.


def make_batch(number, **arguments):
    requests = [
        EmailRequest(to=f"u{i}@example.com", subject="s", message="m", **arguments) for i in range(number)
    ]
    emails = enqueue(requests, as_batch=True, start=False)
    return Batch.objects.get(), emails


def batch_page(batch, name="change"):
    return reverse(f"admin:celery_mailer_batch_{name}", args=[batch.pk])


def test_a_batch_shows_how_far_it_has_come(admin):
    batch, emails = make_batch(5)
    for email in emails[:2]:
        t.move([email.pk], t.SENT, claim=claim([email]))
    assert "2 sent" in text_of(admin.get("/admin/celery_mailer/batch/"))
    response = admin.get(batch_page(batch))
    assert "2 of 5 are finished" in text_of(response)
    link = re.search(r'href="([^"]+status=sent)"', response.content.decode())[1].replace("&amp;", "&")
    assert listed(admin.get(link)) == [e.pk for e in reversed(emails[:2])]


def test_the_list_of_batches_costs_the_same_however_long_it_is(admin):
    def queries():
        with CaptureQueriesContext(connection) as found:
            assert admin.get("/admin/celery_mailer/batch/").status_code == 200
        return len(found)

    make_batch(1)
    one = queries()
    for _ in range(5):
        enqueue([EmailRequest(to="a@example.com", subject="s", message="m")], as_batch=True, start=False)
    assert queries() == one


def test_what_of_a_batch_waits_can_be_cancelled(login):
    batch, emails = make_batch(3)
    t.move([emails[0].pk], t.SENT, claim=claim([emails[0]]))
    client = login("view_batch", "view_email")
    assert client.post(batch_page(batch, "cancel")).status_code == 403
    User.objects.get().user_permissions.add(Permission.objects.get(codename="cancel_email"))
    assert client.get(batch_page(batch, "cancel")).status_code == 405
    assert client.post(batch_page(batch, "cancel")).status_code == 302
    assert [stored(e).status for e in emails] == ["sent", "cancelled", "cancelled"]


def test_nobody_adds_or_edits_a_batch(admin):
    batch, _ = make_batch(1)
    assert admin.get("/admin/celery_mailer/batch/add/").status_code == 403
    assert admin.post(batch_page(batch), {"total": 7}).status_code == 403


def test_the_page_links_the_template_of_the_email(admin):
    template = EmailTemplate.objects.create(name="hello", subject="Hello")
    german = template.translated_templates.create(language="de", subject="Hallo")
    email = make_email(template="hello", language="de", subject="", message="")
    content = admin.get(page(email)).content.decode()
    assert reverse("admin:celery_mailer_emailtemplate_change", args=[template.pk]) in content
    assert email.content.template_version.template == german
