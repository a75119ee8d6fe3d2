"""Leaving a stream: the headers, the one click (RFC 8058), the page, the template tags, the door."""

import email as email_package
import re
from base64 import urlsafe_b64decode
from datetime import timedelta
from email.policy import default

import pytest
from django.test import Client, override_settings
from django.utils import timezone

from celery_mailer import chain, conf, tokens
from celery_mailer.deliver.list_headers import list_headers
from celery_mailer.deliver.message import build, wire_bytes
from celery_mailer.exceptions import InvalidEmail
from celery_mailer.models import Email, Event, Suppression
from celery_mailer.models.attachment import enclosures_of
from celery_mailer.models.suppression import suppressed
from celery_mailer.render.stage import render_emails
from celery_mailer.subscriptions import token_for, url_for
from celery_mailer.tokens import Purpose
from celery_mailer.tracking.unsubscribe import unsubscribe_by_mail
from tests.factories import make_email, stored

pytestmark = pytest.mark.django_db

SITE = {"TRACKING": {"BASE_URL": "https://mail.example.com", "UNSUBSCRIBE_MAILTO": "leave@example.com"}}
STREAMS = {"news": {"UNSUBSCRIBE": True}, "events": {"UNSUBSCRIBE": True}}
BODY = {"List-Unsubscribe": "One-Click"}


@pytest.fixture(autouse=True)
def site(settings):
    settings.CELERY_MAILER = SITE | {"STREAMS": STREAMS}


@pytest.fixture
def browser():
    """Without cookies and with CSRF checks, as somebody who was never here."""
    return Client(enforce_csrf_checks=True)


def wire(email):
    return wire_bytes(build(email, email.content))


def header_lines(email):
    head = wire(email).partition(b"\r\n\r\n")[0].decode()
    return [line for line in head.split("\r\n") if line.lower().startswith("list-")]


def path_for(email, purpose=Purpose.UNSUBSCRIBE):
    return url_for(purpose, email).removeprefix("https://mail.example.com")


def left(address="a@example.com"):
    rows = Suppression.objects.filter(address=address, active=True, reason="unsubscribe")
    return sorted(rows.values_list("stream", flat=True))


def test_marketing_says_how_to_leave_it_in_headers_of_one_line_each():
    token = r"[\w.-]+"
    unsubscribe, one_click, list_id = sorted(header_lines(make_email(stream="news")), key=len, reverse=True)
    link = rf"<https://mail\.example\.com/mail/u/{token}>, <mailto:leave@example\.com\?subject={token}>"
    assert re.fullmatch(rf"List-Unsubscribe: {link}", unsubscribe)
    assert one_click == "List-Unsubscribe-Post: List-Unsubscribe=One-Click"
    assert list_id == "List-Id: <news.mail.example.com>"


def test_the_built_in_marketing_stream_does_so_too():
    assert len(header_lines(make_email(stream="marketing"))) == 3


def test_the_headers_are_read_as_they_were_written():
    message = email_package.message_from_bytes(wire(make_email(stream="news")), policy=default)
    assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"


def test_a_mail_with_inline_images_has_the_headers_on_one_line_too(media):
    media.mkdir()
    (media / "logo.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    html = "{% load celery_mailer %}<img src='{% inline_image path %}'>"
    email = make_email(stream="news", html_message=html, context={"path": str(media / "logo.png")})
    render_emails([email.pk])
    email = stored(email)
    raw = wire_bytes(build(email, email.content, enclosures_of([email.pk])[email.pk]))
    assert b"multipart/related" in raw
    assert b"\r\nList-Id: <news.mail.example.com>\r\n" in raw


def test_the_headers_reach_a_real_server_on_one_line_each(settings, real_smtp):
    settings.CELERY_MAILER = settings.CELERY_MAILER | SITE | {"STREAMS": STREAMS}
    email = make_email(stream="news")
    chain.run([email.pk])
    (received,) = real_smtp.received
    lines = received.data.decode().split("\r\n")
    assert {f"{name}: {value}" for name, value in list_headers(email, {})[1].items()} <= set(lines)


def test_transactional_mail_has_none_of_them():
    assert header_lines(make_email()) == []


def test_without_an_address_for_it_there_is_only_the_link(settings):
    settings.CELERY_MAILER = {"TRACKING": {"BASE_URL": "https://mail.example.com"}}
    assert not any("mailto:" in line for line in header_lines(make_email(stream="marketing")))


def test_without_https_there_is_no_one_click(settings):
    settings.CELERY_MAILER = {"TRACKING": {"BASE_URL": "http://localhost:8000"}}
    names = sorted(line.partition(":")[0] for line in header_lines(make_email(stream="marketing")))
    assert names == ["List-Id", "List-Unsubscribe"]


def test_a_way_of_the_callers_own_goes_before_ours():
    own = {"list-unsubscribe": "<https://shop.example/leave>"}
    email = make_email(stream="news", headers=own, to=["a@example.com", "b@example.com"])
    assert header_lines(email) == ["list-unsubscribe: <https://shop.example/leave>"]


OURS = ["List-Id", "List-Unsubscribe", "List-Unsubscribe-Post"]


@pytest.mark.parametrize(
    "given",
    [
        {"List-Id": "<my.list>"},
        {"list-unsubscribe-post": "List-Unsubscribe=One-Click"},
        {"List-Unsubscribe": ""},
        {"list-unsubscribe": " "},
    ],
    ids=str,
)
def test_a_header_that_is_no_way_out_does_not_replace_ours(given):
    lines = header_lines(make_email(stream="news", headers=given))
    assert sorted(line.partition(":")[0] for line in lines) == OURS
    assert any(line.startswith("List-Unsubscribe: <https://mail.example.com/mail/u/") for line in lines)


def test_a_list_id_of_the_callers_own_stays_beside_our_way_out():
    lines = header_lines(make_email(stream="news", headers={"list-id": "<my.list>"}))
    assert [line for line in lines if line.lower().startswith("list-id")] == ["list-id: <my.list>"]
    assert len(lines) == 3


def test_a_way_of_the_callers_own_stays_beside_our_list_id():
    own = {"LIST-UNSUBSCRIBE": "<https://shop.example/leave>", "List-Unsubscribe-Post": "x=y"}
    lines = header_lines(make_email(stream="news", headers=own))
    assert lines == [f"{name}: {value}" for name, value in own.items()] + ["List-Id: <news.mail.example.com>"]


def test_the_callers_one_click_does_not_go_with_a_link_of_ours_that_has_none(settings):
    settings.CELERY_MAILER = {"TRACKING": {"BASE_URL": "http://localhost:8000"}}
    email = make_email(stream="marketing", headers={"List-Unsubscribe-Post": "List-Unsubscribe=One-Click"})
    assert not any("Post" in line for line in header_lines(email))


def test_headers_of_mail_that_one_cannot_leave_go_as_they_were_given():
    email = make_email(headers={"List-Unsubscribe-Post": "x=y"})
    assert header_lines(email) == ["List-Unsubscribe-Post: x=y"]


def test_an_empty_header_is_no_way_out_of_mail_to_several():
    with pytest.raises(InvalidEmail, match="to: names several recipients"):
        make_email(stream="news", headers={"List-Unsubscribe": ""}, to=["a@example.com", "b@example.com"])


def test_the_headers_are_not_stored():
    email = make_email(stream="news")
    build(email, email.content)
    assert email.content.headers == {}


def test_a_stream_with_odd_letters_has_a_list_id():
    conf_streams = {"Ünïcode news": {"UNSUBSCRIBE": True}, "日本": {"UNSUBSCRIBE": True}}
    with override_settings(CELERY_MAILER=SITE | {"STREAMS": conf_streams}):
        for stream in conf_streams:
            (line,) = [x for x in header_lines(make_email(stream=stream)) if x.startswith("List-Id")]
            assert re.fullmatch(r"List-Id: <[a-z0-9-]+\.mail\.example\.com>", line)


def test_marketing_without_a_public_address_is_refused(settings):
    settings.CELERY_MAILER = {}
    with pytest.raises(InvalidEmail, match=r"stream: 'marketing' needs a way to unsubscribe: set CELERY_M"):
        make_email(stream="marketing")
    assert not Email.objects.exists()


def test_marketing_is_refused_where_the_pages_are_not_included(settings):
    settings.ROOT_URLCONF = "celery_mailer.urls"
    with pytest.raises(InvalidEmail, match="and include celery_mailer"):
        make_email(stream="news")


@pytest.mark.parametrize(
    "more", [{"to": ["a@example.com", "b@example.com"]}, {"cc": "b@example.com"}, {"bcc": "b@example.com"}]
)
def test_marketing_to_several_in_one_email_is_refused(more):
    with pytest.raises(InvalidEmail, match="to: names several recipients"):
        make_email(stream="news", **more)


@pytest.mark.parametrize("encoding", ["application/x-www-form-urlencoded", "multipart/form-data"])
def test_one_click_unsubscribes_without_login_cookie_and_csrf_token(encoding, browser):
    email = make_email(stream="news")
    if encoding == "multipart/form-data":
        response = browser.post(path_for(email), BODY, secure=True)
    else:
        body = "List-Unsubscribe=One-Click"
        response = browser.post(path_for(email), body, content_type=encoding, secure=True)
    assert (response.status_code, response.cookies) == (200, {})
    assert left() == ["news"]


def test_one_click_is_told_as_an_event(browser):
    email = make_email(stream="news")
    browser.post(path_for(email), BODY)
    event = Event.objects.get()
    assert (event.kind, event.email_id, event.recipient) == ("unsubscribed", email.pk, "a@example.com")


def test_one_click_twice_is_as_once(browser):
    email = make_email(stream="news")
    assert [browser.post(path_for(email), BODY).status_code for _ in range(2)] == [200, 200]
    assert left() == ["news"]


def test_one_click_twice_is_told_once(browser):
    email = make_email(stream="news")
    for _ in range(2):
        assert browser.post(path_for(email), BODY).status_code == 200
    assert Event.objects.count() == 1


def test_one_click_in_a_later_mail_of_a_stream_that_was_left_is_told_no_more(browser):
    first, second = make_email(stream="news"), make_email(stream="news")
    for email in (first, second):
        browser.post(path_for(email), BODY)
    assert Event.objects.get().email_id == first.pk


def test_saving_the_preference_page_again_tells_nothing_new(browser):
    email = make_email(stream="news")
    for _ in range(2):
        assert browser.post(path_for(email, Purpose.PREFERENCES), {"stream": ["events"]}).status_code == 200
    assert Event.objects.count() == 1


def test_who_leaves_again_after_coming_back_is_told_again(browser):
    email = make_email(stream="news")
    for chosen in ([], ["news"], []):
        browser.post(path_for(email, Purpose.PREFERENCES), {"stream": chosen})
    assert Event.objects.count() == 2


@pytest.mark.parametrize("method", ["get", "head", "options", "put", "delete"])
def test_nothing_but_a_post_unsubscribes(method, browser):
    getattr(browser, method)(path_for(make_email(stream="news")))
    assert not Suppression.objects.exists()


def test_a_post_that_does_not_ask_for_it_does_not_unsubscribe(browser):
    response = browser.post(path_for(make_email(stream="news")), {"x": "y"})
    assert (response.status_code, left()) == (200, [])


def test_a_get_shows_a_button_that_does_it(browser):
    path = path_for(make_email(stream="news"))
    page = browser.get(path).content.decode()
    assert '<form method="post">' in page
    name, value = re.search(r'<input type="hidden" name="([\w-]+)" value="([\w-]+)">', page).groups()
    assert "You are unsubscribed" in browser.post(path, {name: value}).content.decode()
    assert left() == ["news"]


def test_pages_are_kept_by_no_cache_and_tell_nobody_their_address(browser):
    headers = browser.get(path_for(make_email(stream="news"))).headers
    assert headers["Cache-Control"].startswith("no-store")
    assert headers["Referrer-Policy"] == "no-referrer"


def test_a_page_does_not_show_the_address(browser):
    email = make_email(stream="news", to="ada@example.com")
    pages = [
        browser.get(path_for(email, purpose)).content
        for purpose in (Purpose.UNSUBSCRIBE, Purpose.PREFERENCES)
    ]
    assert not any(b"ada@" in page.lower() or b"ada%40" in page.lower() for page in pages)


def test_it_works_under_middleware_that_wants_a_login(settings, browser):
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django.contrib.auth.middleware.LoginRequiredMiddleware"]
    assert browser.post(path_for(make_email(stream="news")), BODY).status_code == 200


def test_it_works_under_csrf_middleware_and_slashes(settings, browser):
    more = ["django.middleware.common.CommonMiddleware", "django.middleware.csrf.CsrfViewMiddleware"]
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, *more]
    assert browser.post(path_for(make_email(stream="news")), BODY).status_code == 200


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize("page", ["u", "p", "c"])
@pytest.mark.parametrize("token", ["x", "sample", "a.b", "." * 50, "%00", "é", "x" * 9_000])
def test_a_bad_token_has_one_answer(method, page, token, browser):
    if (method, page) == ("post", "c"):
        return
    response = getattr(browser, method)(f"/mail/{page}/{token}")
    assert (response.status_code, response.content) == (404, b"There is nothing here.")


def test_the_token_of_one_page_does_not_open_the_other(browser):
    email = make_email(stream="news")
    token = token_for(Purpose.PREFERENCES, email)
    assert browser.post(f"/mail/u/{token}", BODY).status_code == 404


def test_mail_that_was_queued_before_is_suppressed(browser, settings):
    email = make_email(stream="news")
    other = make_email(stream="events")
    browser.post(path_for(email), BODY)
    chain.run([email.pk, other.pk])
    assert [stored(e).status for e in (email, other)] == ["suppressed", "sent"]


def test_it_works_when_the_email_is_no_longer_stored(browser):
    email = make_email(stream="news")
    path = path_for(email)
    Email.objects.all().delete()
    assert browser.post(path, BODY).status_code == 200
    assert suppressed(["A@example.com"]) == {"A@example.com": {"news": "unsubscribe"}}


def test_the_preference_page_shows_the_streams_that_one_can_leave(browser):
    email = make_email(stream="news")
    browser.post(path_for(email), BODY)
    page = browser.get(path_for(email, Purpose.PREFERENCES)).content.decode()
    rows = dict(re.findall(r'value="(\w+)"( checked)?>', page))
    assert rows == {"news": "", "events": " checked", "marketing": " checked"}


def test_an_opt_out_that_has_ended_is_not_shown_as_one(browser):
    ended = timezone.now() - timedelta(days=1)
    Suppression.objects.create(address="a@example.com", stream="news", reason="unsubscribe", expires_at=ended)
    page = browser.get(path_for(make_email(stream="news"), Purpose.PREFERENCES)).content.decode()
    assert 'value="news" checked>' in page


def test_who_leaves_after_an_opt_out_has_ended_leaves_for_good(browser):
    ended = timezone.now() - timedelta(days=1)
    Suppression.objects.create(address="a@example.com", stream="news", reason="unsubscribe", expires_at=ended)
    browser.post(path_for(make_email(stream="news")), BODY)
    assert left() == ["news"]
    assert Suppression.objects.get(active=True).expires_at is None


def test_choices_are_saved_by_a_post(browser):
    email = make_email(stream="news")
    browser.post(path_for(email), BODY)
    browser.post(path_for(email, Purpose.PREFERENCES), {"stream": ["news"]})
    assert left() == ["events", "marketing"]


def test_a_get_with_choices_saves_nothing(browser):
    browser.get(path_for(make_email(stream="news"), Purpose.PREFERENCES), {"stream": ["news"]})
    assert not Suppression.objects.exists()


def test_who_comes_back_is_still_spared_what_bounced(browser):
    email = make_email(stream="news")
    Suppression.objects.create(address="a@example.com", reason="hard_bounce")
    browser.post(path_for(email, Purpose.PREFERENCES), {"stream": ["news", "events", "marketing"]})
    assert Suppression.objects.get(active=True).reason == "hard_bounce"


def test_who_comes_back_can_leave_again(browser):
    email = make_email(stream="news")
    preferences = path_for(email, Purpose.PREFERENCES)
    for chosen in ([], ["news", "events", "marketing"], []):
        browser.post(preferences, {"stream": chosen})
    assert left() == ["events", "marketing", "news"]


def test_a_mail_with_the_token_as_its_subject_unsubscribes():
    assert unsubscribe_by_mail(f" {token_for(Purpose.UNSUBSCRIBE, make_email(stream='news'))}\n")
    assert left() == ["news"]


def test_a_mail_with_another_subject_does_not():
    assert not unsubscribe_by_mail("Re: News")


@pytest.fixture
def staging(settings):
    """Where all mail goes to the developers."""
    settings.CELERY_MAILER = settings.CELERY_MAILER | {"OVERRIDE_RECIPIENTS": ["dev@example.com"]}


@pytest.mark.parametrize("purpose", [Purpose.UNSUBSCRIBE, Purpose.PREFERENCES])
def test_who_gets_the_mail_in_the_place_of_another_leaves_for_themselves(staging, browser, purpose):
    browser.post(path_for(make_email(stream="news"), purpose), BODY)
    assert (left(), "news" in left("dev@example.com")) == ([], True)


def test_who_leaves_in_the_place_of_another_is_not_told_as_the_other(staging, browser):
    browser.post(path_for(make_email(stream="news")), BODY)
    assert not Event.objects.exists()


def test_who_got_a_mail_before_all_went_to_others_can_still_leave(settings, browser):
    path = path_for(make_email(stream="news"))
    settings.CELERY_MAILER = settings.CELERY_MAILER | {"OVERRIDE_RECIPIENTS": ["dev@example.com"]}
    browser.post(path, BODY)
    assert left() == ["news"]


TAGS = "{% load celery_mailer %}<a href='{% unsubscribe_url %}'>u</a> <a href='{% preferences_url %}'>p</a>"


def test_templates_link_to_the_pages(browser):
    email = make_email(stream="news", html_message=TAGS, context={})
    render_emails([email.pk])
    html = stored(email).rendered.html
    links = re.findall("href='([^']*)'", html)
    assert links == [url_for(Purpose.UNSUBSCRIBE, email), url_for(Purpose.PREFERENCES, email)]
    assert all(
        browser.get(link.removeprefix("https://mail.example.com")).status_code == 200 for link in links
    )


def test_in_mail_that_one_cannot_leave_the_tags_are_empty():
    email = make_email(html_message=TAGS, context={})
    render_emails([email.pk])
    assert stored(email).rendered.html == "<a href=''>u</a> <a href=''>p</a>"


def test_the_links_of_the_tags_are_not_tracked(settings):
    streams = {"news": {"UNSUBSCRIBE": True, "TRACK_CLICKS": "identified"}}
    tracking = SITE["TRACKING"] | {"ENABLED": True}
    settings.CELERY_MAILER = {"TRACKING": tracking, "STREAMS": streams}
    email = make_email(stream="news", html_message=TAGS, context={})
    render_emails([email.pk])
    email = stored(email)
    assert email.rendered.html in build(email, email.content).alternatives[0][0]


def test_no_token_holds_the_address():
    token = token_for(Purpose.UNSUBSCRIBE, make_email(stream="news", to="ada@example.com"))
    text = token.partition(".")[0]
    assert b"ada" not in urlsafe_b64decode(text + "=" * (-len(text) % 4)).lower()
    assert tokens.read_subscription(Purpose.UNSUBSCRIBE, token).stream == "news"


def test_a_stream_may_have_a_priority_of_its_own(settings):
    settings.CELERY_MAILER = SITE | {"STREAMS": {"news": {"PRIORITY": "low"}}}
    assert [make_email(stream="news", **more).priority for more in ({}, {"priority": "high"})] == [0, 2]
    assert conf.get().streams["news"].priority == "low"
