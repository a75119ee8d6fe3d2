"""The developer's inbox."""

import re
from email.mime.image import MIMEImage

import pytest
from django.contrib.auth.models import AnonymousUser, Permission, User
from django.test import RequestFactory
from django.urls import reverse

from celery_mailer import chain, mail
from celery_mailer.inbox import views
from celery_mailer.inbox.seen import Link
from celery_mailer.models import CapturedMessage, Content, EmailTemplate
from tests.conftest import leave_the_outbox
from tests.test_admin_emails import text_of
from tests.test_inline_images import PNG

pytestmark = pytest.mark.django_db

HTML = '<p>Hello <a href="https://shop.example/x?a=1&amp;b=2">to the <b>shop</b></a></p><img src="cid:logo">'


@pytest.fixture(autouse=True)
def captures(settings):
    """All mail is captured, and this is a development server."""
    leave_the_outbox(settings)
    settings.DEBUG = True
    backend = "celery_mailer.deliver.providers.capture.EmailBackend"
    settings.CELERY_MAILER = {"PROVIDERS": {"default": {"BACKEND": backend}}}


def captured(**arguments):
    """What the provider kept of a new email."""
    values = {"recipients": "ada@example.com", "subject": "Hello", "message": "Dear Ada", **arguments}
    email = mail.send(**values)
    chain.run([email.pk])
    return CapturedMessage.objects.get(email=email)


def url(name, *args):
    return reverse(f"celery_mailer_inbox:{name}", args=args)


# Who may look.


def addresses(row):
    of_one = [url(name, row.pk) for name in ("message", "html", "source")]
    return [url("index"), *of_one, url("file", row.pk, 0)]


def test_others_are_led_to_the_login_when_it_is_no_development_server(client, settings):
    row = captured(html_message=HTML)
    settings.DEBUG = False
    for address in addresses(row):
        response = client.get(address)
        assert (response.status_code, response["Location"]) == (302, f"/admin/login/?next={address}")


@pytest.mark.parametrize(
    ("fields", "permissions", "status"),
    [
        ({"is_staff": True}, ["read_email"], 200),
        ({"is_staff": True}, ["view_email"], 403),
        ({"is_staff": False}, ["read_email"], 403),
        ({"is_superuser": True, "is_staff": True}, [], 200),
    ],
)
def test_staff_who_may_read_emails_may_look(client, settings, fields, permissions, status):
    settings.DEBUG = False
    row = captured()
    user = User.objects.create_user("bob", **fields)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client.force_login(user)
    assert client.get(url("index")).status_code == status
    assert client.get(url("message", row.pk)).status_code == status


def test_without_the_admin_others_are_refused(client, settings):
    settings.DEBUG = False
    settings.ROOT_URLCONF = "celery_mailer.inbox.urls"
    with pytest.raises(views.PermissionDenied):
        request = RequestFactory().get("/")
        request.user = AnonymousUser()
        views.index(request)


def test_nothing_in_it_takes_a_post(client):
    row = captured()
    for address in addresses(row):
        for method in (client.post, client.put, client.patch, client.delete):
            assert method(address).status_code == 405
    assert CapturedMessage.objects.count() == 1


# The list.


def test_an_empty_inbox_says_how_mail_comes_in(client):
    assert "celery_mailer.deliver.providers.capture.EmailBackend" in text_of(client.get(url("index")))


def test_the_list_has_the_newest_first_up_to_a_bound(client, monkeypatch):
    monkeypatch.setattr(views, "SHOWN", 2)
    for number in range(3):
        captured(subject=f"Mail {number}", bcc="hidden@example.com")
    response = client.get(url("index"))
    assert [row.subject for row in response.context["newest"]] == ["Mail 2", "Mail 1"]
    assert "hidden@example.com" in text_of(response)


def test_the_part_that_is_refreshed_knows_which_message_is_open(client):
    row = captured()
    opened = client.get(url("message", row.pk)).content.decode()
    again = re.search(r'data-mailer-url="([^"]+)"', opened)[1]

    def part(page):
        return page.partition('id="inbox-list"')[2].partition(">")[2].partition("</nav>")[0]

    assert part(client.get(again).content.decode()) == part(opened)
    assert 'aria-current="page"' in part(opened)


# A message.


def test_the_page_shows_all_there_is_to_see(client):
    image = MIMEImage(PNG)
    image["Content-ID"], image["Content-Disposition"] = "<logo>", "inline"
    files = [("a.pdf", b"%PDF", "application/pdf"), image]
    row = captured(html_message=HTML, headers={"X-Order": "17"}, attachments=files)
    response = client.get(url("message", row.pk))
    text = text_of(response)
    for words in ("Dear Ada", "X-Order 17", "a.pdf", "application/pdf", "Queued", "Sent"):
        assert words in text
    assert response.context["links"] == [Link("https://shop.example/x?a=1&b=2", "to the shop")]


def test_the_html_is_behind_glass_with_its_images_in_it(client):
    image = MIMEImage(PNG)
    image["Content-ID"], image["Content-Disposition"] = "<logo>", "inline"
    row = captured(html_message=HTML + "<script>alert(1)</script>", attachments=[image])
    assert "<script>alert" not in client.get(url("message", row.pk)).content.decode()
    response = client.get(url("html", row.pk))
    assert response["Content-Security-Policy"].startswith("sandbox; default-src 'none'; img-src data:")
    assert 'src="data:image/png;base64,' in response.content.decode()


def test_a_message_without_html_has_none(client):
    row = captured(message="See https://a.example/1 and http://b.example/2\n")
    assert client.get(url("html", row.pk)).status_code == 404
    links = client.get(url("message", row.pk)).context["links"]
    assert [link.url for link in links] == ["https://a.example/1", "http://b.example/2"]


@pytest.mark.parametrize(
    "target", ["javascript:alert(1)", "data:text/html,x", " JavaScript:x", "file:///etc"]
)
def test_a_link_that_might_run_something_is_shown_and_cannot_be_followed(client, target):
    row = captured(html_message=f'<a href="{target}">x</a>')
    page = client.get(url("message", row.pk)).content.decode()
    assert f'href="{target.strip()}"' not in page
    assert "Links (1)" in page


def test_whether_the_html_has_colours_for_dark_is_told(client):
    own = "<style>@media (prefers-color-scheme: dark) { p { color: #fff } }</style><p>x</p>"
    assert "colours of its own" in text_of(client.get(url("message", captured(html_message=own).pk)))
    assert "are inverted" in text_of(client.get(url("message", captured(html_message="<p>x</p>").pk)))


def test_the_source_is_what_was_kept(client):
    row = captured(message="Grüße")
    assert client.get(url("source", row.pk)).content.decode() == bytes(row.raw).decode()
    response = client.get(url("source", row.pk), {"download": ""})
    assert b"".join(response.streaming_content) == bytes(row.raw)
    assert response["Content-Disposition"] == f'attachment; filename="{row.pk}.eml"'


def test_a_file_is_saved_and_never_opened(client):
    row = captured(attachments=[("page.html", "<script>", "text/html")])
    (found,) = client.get(url("message", row.pk)).context["files"]
    response = client.get(url("file", row.pk, found.number))
    assert b"".join(response.streaming_content).strip() == b"<script>"
    assert response["Content-Type"] == "application/octet-stream"
    assert response["Content-Disposition"] == 'attachment; filename="page.html"'
    assert client.get(url("file", row.pk, 0)).status_code == 404


def test_a_message_of_no_email_is_shown_too(client):
    row = captured()
    CapturedMessage.objects.update(email=None)
    response = client.get(url("message", row.pk), {"language": "de"})
    assert "Dear Ada" in text_of(response)
    assert "Queued" not in text_of(response)


def test_a_message_that_is_not_there_is_a_404(client):
    row = captured()
    CapturedMessage.objects.all().delete()
    assert [client.get(address).status_code for address in addresses(row)[1:]] == [404] * 4


# Languages.


@pytest.fixture
def welcome(settings):
    settings.LANGUAGES = [("en", "English"), ("de", "German")]
    template = EmailTemplate.objects.create(
        name="welcome", language="en", subject="Welcome, {{ name }}", html_content="<p>Hello {{ name }}</p>"
    )
    template.translated_templates.create(
        language="de", subject="Willkommen, {{ name }}", html_content="<p>Hallo {{ name }}</p>"
    )
    return {"template": "welcome", "context": {"name": "Ada"}, "language": "en", "subject": "", "message": ""}


def test_a_message_from_a_template_is_shown_in_its_other_languages(client, welcome):
    row = captured(**welcome)
    assert client.get(url("message", row.pk)).context["languages"] == ["de", "en"]
    assert "Willkommen, Ada" in text_of(client.get(url("message", row.pk), {"language": "de"}))
    assert "Hallo Ada" in client.get(url("html", row.pk), {"language": "de"}).content.decode()
    assert "Hello Ada" in client.get(url("html", row.pk)).content.decode()


def test_looking_at_another_language_keeps_nothing(client, welcome):
    row = captured(**welcome)
    before = list(Content.objects.values()), bytes(row.raw)
    client.get(url("message", row.pk), {"language": "de"})
    assert before == (list(Content.objects.values()), bytes(CapturedMessage.objects.get().raw))


def test_what_has_no_template_has_no_other_languages(client):
    assert client.get(url("message", captured().pk)).context["languages"] == []


def test_what_was_dropped_cannot_be_rendered_anew_and_says_so(client, welcome):
    row = captured(**welcome)
    Content.objects.update(dropped=True)
    response = client.get(url("message", row.pk), {"language": "de"})
    assert response.context["languages"] == []
    assert "no longer stored" in text_of(response)
    assert client.get(url("html", row.pk), {"language": "de"}).status_code == 404


def test_the_pages_have_no_inline_scripts_and_styles(client):
    found = client.get(url("message", captured(html_message=HTML).pk)).content.decode()
    assert not re.search(r"<style|<script(?![^>]*src=)| style=| on\w+=", found)
