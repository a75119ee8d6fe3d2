"""Opens and clicks: the views, what waits for the broker, machines, and what is recorded."""

import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from django.db import Error as DatabaseFailure
from django.db import OperationalError, connections
from django.test import Client, RequestFactory
from django.utils import timezone
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from celery_mailer import tokens
from celery_mailer.models import Batch, Email, Event, Feedback, Tally
from celery_mailer.tokens import Mark, Purpose
from celery_mailer.tracking import unsubscribe, views, visits
from celery_mailer.tracking.machines import AT_ONCE, is_machine, is_too_soon
from celery_mailer.tracking.recording import record_visits
from celery_mailer.tracking.visits import Waiting, visit
from celery_mailer.values import EventKind, uuid7
from tests.factories import claim, make_attempt, make_email
from tests.site import wait_until

PERSON = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
TARGET = "https://shop.example/p?a=1&b=%C3%A9#top"
EMAIL = UUID("0192f3a0-7c1e-7a52-9d3b-5f0b8c6d2e41")


@pytest.fixture(autouse=True)
def waiting(monkeypatch):
    """What the views hand on; no thread publishes it."""
    found = Waiting(lambda bundle: None)
    found._thread = threading.current_thread()
    monkeypatch.setattr(views, "waiting", found)
    return found


@pytest.fixture
def browser():
    return Client(headers={"user-agent": PERSON})


MARK = Mark(EMAIL)


def pixel(mark=MARK):
    return "/mail/o/" + tokens.sign(Purpose.OPEN, tokens.pack_mark(mark))


def link(target=TARGET, mark=MARK):
    return "/mail/c/" + tokens.sign(Purpose.CLICK, tokens.pack_mark(mark, target))


# The views. None of these tests may use the database.


def test_a_pixel_is_a_picture_that_no_cache_keeps(browser):
    response = browser.get(pixel())
    assert (response.status_code, response["Content-Type"]) == (200, "image/gif")
    assert response.content.startswith(b"GIF89a")
    assert response["Cache-Control"].startswith("no-store")
    assert not response.cookies


def test_a_pixel_notes_its_email(browser, waiting):
    browser.get(pixel())
    (noted,) = waiting.visits
    assert (noted["kind"], noted["email"], noted["machine"]) == ("opened", str(EMAIL), False)


def test_a_link_leads_to_what_is_in_the_token(browser, waiting):
    response = browser.get(link())
    assert (response.status_code, response["Location"]) == (302, TARGET)
    (noted,) = waiting.visits
    assert (noted["kind"], noted["email"], noted["url"]) == ("clicked", str(EMAIL), TARGET)


def test_a_long_link_leads_there_too(browser):
    target = f"https://shop.example/{'x' * 4_000}"
    assert browser.get(link(target))["Location"] == target


def test_a_link_in_other_letters_is_written_in_ascii(browser):
    assert (
        browser.get(link("https://shop.example/日 本"))["Location"]
        == "https://shop.example/%E6%97%A5%20%E6%9C%AC"
    )


def test_a_bad_pixel_is_the_same_picture_and_notes_nothing(browser, waiting):
    good, bad = browser.get(pixel()), browser.get("/mail/o/nonsense")
    assert (bad.content, dict(bad.headers)) == (good.content, dict(good.headers))
    assert len(waiting.visits) == 1


def test_a_link_is_not_followed_for_another_purpose(browser):
    token = tokens.sign(Purpose.OPEN, tokens.pack_mark(Mark(EMAIL), TARGET))
    assert browser.get(f"/mail/c/{token}").status_code == 404


@pytest.mark.parametrize("path", [pixel, link])
def test_old_mail_works_after_the_key_was_changed(path, browser, settings, waiting):
    old = path()
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "new", [settings.SECRET_KEY]
    browser.get(old)
    assert len(waiting.visits) == 1


@pytest.mark.parametrize("path", [pixel, link])
def test_a_head_is_answered_and_is_a_machine(path, browser, waiting):
    assert browser.head(path()).status_code in (200, 302)
    assert waiting.visits[0]["machine"]


@pytest.mark.parametrize("path", [pixel, link])
def test_a_post_is_refused(path, browser):
    assert browser.post(path()).status_code == 405


def test_the_views_make_no_transaction_where_every_request_is_one(browser, settings):
    # The test's own guard refuses any query, BEGIN included.
    connections["default"].settings_dict["ATOMIC_REQUESTS"] = True
    try:
        assert [browser.get(pixel()).status_code, browser.get(link()).status_code] == [200, 302]
    finally:
        connections["default"].settings_dict["ATOMIC_REQUESTS"] = False


def test_an_anonymous_visit_says_nothing_of_who_and_where(browser, waiting):
    batch = uuid7()
    browser.get(link(mark=Mark(None, "news", batch)))
    (noted,) = waiting.visits
    assert noted.keys() == {"kind", "at", "machine", "stream", "batch"}


LEAVING = tokens.pack_subscription(tokens.Subscription(EMAIL, "0f" * 32, "news"))


def leaving(purpose):
    return f"/mail/{purpose[0]}/" + tokens.sign(purpose, LEAVING)


PAGES = {Purpose.UNSUBSCRIBE: unsubscribe.unsubscribe, Purpose.PREFERENCES: unsubscribe.preferences}
VALID = [pixel(), link(), *map(leaving, PAGES)]
ANYTHING = st.one_of(
    st.text(max_size=80),
    st.text("ABCabc012-_.", max_size=80),
    st.tuples(st.sampled_from(VALID), st.integers(0, 150), st.text(max_size=3)).map(
        lambda given: (given[0][8:])[: given[1]] + given[2] + (given[0][8:])[given[1] + 1 :]
    ),
)


def answers_alike(token):
    request = RequestFactory().get("/", headers={"user-agent": PERSON})
    valid = {pixel()[8:], link()[8:]}
    opened, followed = views.open_pixel(request, token), views.follow_link(request, token)
    assert (opened.status_code, opened.content) == (200, views.PIXEL)
    if followed.status_code != 404:
        assert token in valid
        assert followed["Location"] == TARGET
    else:
        assert followed.content == views.NOT_FOUND
        assert "Location" not in followed
    for purpose, page in PAGES.items():
        if token != leaving(purpose)[8:]:
            for method in ("get", "post"):
                response = page(getattr(RequestFactory(), method)("/"), token)
                assert (response.status_code, response.content) == (404, views.NOT_FOUND)


@given(ANYTHING)
def test_whatever_is_asked_for_has_the_same_answer(token):
    answers_alike(token)


@pytest.mark.slow
@hypothesis_settings(max_examples=10_000)
@given(ANYTHING)
def test_whatever_is_asked_for_ten_thousand_times_has_the_same_answer(token):
    answers_alike(token)


# What waits.


def some(number):
    now = timezone.now()
    return [visit(EventKind.OPENED, now, Mark(EMAIL), "", False) for _ in range(number)]


def test_what_waits_is_published_in_bundles():
    published = []
    found = Waiting(published.append)
    found._thread = threading.current_thread()
    for each in some(1_100):
        found.add(each)
    assert found.flush()
    assert [len(bundle) for bundle in published] == [500, 500, 100]


def test_what_the_broker_did_not_take_waits_and_comes_in_order():
    published, down = [], [True, True]

    def publish(bundle):
        if down:
            down.pop()
            raise ConnectionError("broker")
        published.extend(bundle)

    found = Waiting(publish)
    found._thread = threading.current_thread()
    given_ = some(700)
    for each in given_:
        found.add(each)
    assert [found.flush(), found.flush(), found.flush()] == [False, False, True]
    assert published == given_


def test_there_is_an_end_to_what_can_wait_and_it_is_said(caplog):
    found = Waiting(lambda bundle: None, most=10)
    found._thread = threading.current_thread()
    for each in some(12):
        found.add(each)
    assert len(found.visits) == 10
    found.flush()
    assert "2 visits are lost" in caplog.text


def test_a_thread_publishes_by_itself(monkeypatch):
    monkeypatch.setattr(visits, "EVERY", 0.001)
    published = []
    found = Waiting(published.extend)
    for each in some(3):
        found.add(each)
    wait_until("the visits are published", lambda: len(published) == 3, timeout=30, every=0.001)


def test_a_forked_process_leaves_the_parents_visits_to_it():
    found = Waiting(lambda bundle: None)
    found._thread = threading.current_thread()
    found.add(some(1)[0])
    found._begin()
    assert (len(found.visits), found._thread) == (0, None)


def test_the_process_says_what_it_could_not_publish_at_its_end(caplog):
    def publish(bundle):
        raise ConnectionError

    found = Waiting(publish)
    found._thread = threading.current_thread()
    found.add(some(1)[0])
    found.close()
    assert "1 visits are lost" in caplog.text


LAST_VISIT = """
import multiprocessing, django
django.setup()
from celery_mailer.tracking.visits import Waiting

found = Waiting(lambda bundle: print("published", bundle, flush=True))
child = multiprocessing.get_context("fork").Process(target=found.add, args=("the visit",))
child.start()
child.join()
"""


def test_a_child_of_multiprocessing_publishes_what_is_left_at_its_end():
    done = subprocess.run([sys.executable, "-c", LAST_VISIT], capture_output=True, text=True, timeout=60)
    assert done.stdout == "published ['the visit']\n"


# Machines.


@pytest.mark.parametrize(
    "agent",
    [
        PERSON,
        "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)",
        "YahooMailProxy; https://help.yahoo.com/kb/yahoo-mail-proxy-SLN28749.html",
        "Mozilla/4.0 (compatible; MSIE 7.0; Windows NT 10.0; Microsoft Outlook 16.0.4266)",
        "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148",
        "Thunderbird/140.0",
        "Mozilla/5.0 (Linux; Android 9; CUBOT X19) AppleWebKit/537.36 Chrome/100.0 Mobile Safari/537.36",
    ],
)
def test_a_person_is_none(agent):
    assert not is_machine(RequestFactory().get("/", headers={"User-Agent": agent}).META)


@pytest.mark.parametrize(
    "headers",
    [
        {}, {"User-Agent": ""}, {"User-Agent": "Mozilla/5.0"}, {"User-Agent": "curl/8.5.0"},
        {"User-Agent": "python-requests/2.32"}, {"User-Agent": "Mozilla/5.0 (compatible; bingbot/2.0)"},
        {"User-Agent": "Barracuda Sentinel (EE)"}, {"User-Agent": "Slackbot-LinkExpanding 1.0"},
        {"User-Agent": f"{PERSON} HeadlessChrome/140"}, {"User-Agent": "Go-http-client/1.1"},
        {"User-Agent": PERSON, "Purpose": "prefetch"}, {"User-Agent": PERSON, "Sec-Purpose": "prefetch"},
        {"User-Agent": PERSON, "X-Purpose": "preview"}, {"User-Agent": PERSON, "X-Moz": "prefetch"},
    ],
)  # fmt: skip
def test_a_machine_is_one(headers):
    assert is_machine(RequestFactory().get("/", headers=headers).META)


def test_what_comes_within_seconds_after_sending_is_a_machine():
    now = timezone.now()
    assert is_too_soon(now + AT_ONCE - timedelta(seconds=1), now)
    assert not is_too_soon(now + AT_ONCE, now)
    assert not is_too_soon(now, None)


# What is recorded.


@pytest.fixture
def tracking(settings, db):
    def configure(mode="identified", **more):
        stream = {"TRACK_OPENS": mode, "TRACK_CLICKS": mode}
        section = {"ENABLED": True, "BASE_URL": "https://mail.example.com", **more}
        settings.CELERY_MAILER = {"TRACKING": section, "STREAMS": {"transactional": stream}}

    configure()
    return configure


def long_sent(**arguments):
    email = make_email(**arguments)
    Email.objects.filter(pk=email.pk).update(
        status="sent", due_at=None, finished_at=timezone.now() - timedelta(hours=1)
    )
    return email


def seen(email, kind=EventKind.OPENED, machine=False, at=None, url=""):
    return visit(kind, at or timezone.now(), Mark(email.pk), url, machine)


def test_an_open_is_an_event_of_its_email(tracking):
    email = long_sent()
    record_visits([seen(email)])
    event = Event.objects.get()
    assert (event.kind, event.email_id, event.recipient) == ("opened", email.pk, "a@example.com")
    assert Feedback.objects.get().open_count == 1


def test_a_click_names_where_it_led(tracking):
    record_visits([seen(long_sent(), EventKind.CLICKED, url=TARGET)])
    assert Event.objects.get().url == TARGET


def test_visits_are_recorded_later_when_the_database_is_away():
    assert record_visits.autoretry_for == (DatabaseFailure,)
    assert record_visits.acks_late


def test_the_same_message_twice_is_recorded_once(tracking):
    opened = [seen(long_sent())]
    record_visits(opened)
    record_visits(opened)
    assert Event.objects.count() == 1


def test_two_visits_are_two(tracking):
    email = long_sent()
    record_visits([seen(email), seen(email)])
    assert Feedback.objects.get().open_count == 2


def test_a_machine_is_recorded_and_not_counted(tracking):
    record_visits([seen(long_sent(), machine=True)])
    assert Event.objects.get().machine
    assert not Feedback.objects.filter(open_count__gt=0).exists()


def test_at_once_after_sending_it_was_a_machine(tracking):
    email = long_sent()
    Email.objects.filter(pk=email.pk).update(finished_at=timezone.now() - timedelta(seconds=1))
    record_visits([seen(email)])
    assert Event.objects.get().machine


def was_a_machine(email, at=None):
    record_visits([seen(email, EventKind.CLICKED, at=at)])
    return Event.objects.get(kind="clicked").machine


def test_before_the_hand_over_is_written_down_it_was_a_machine(tracking):
    email = make_email()
    make_attempt(email, claim([email]), "deferred", finished_at=timezone.now() - timedelta(hours=1))
    assert was_a_machine(email)


@pytest.mark.parametrize("outcome", ["accepted", "uncertain"])
def test_it_is_the_hand_over_that_counts_and_not_when_it_was_noted(outcome, tracking):
    email, now = make_email(), timezone.now()
    make_attempt(email, claim([email]), outcome, finished_at=now - timedelta(hours=1))
    Email.objects.filter(pk=email.pk).update(status="sent", lease_until=None, finished_at=now)
    assert not was_a_machine(email, now + timedelta(seconds=1))


def test_at_once_after_the_hand_over_it_was_a_machine_also_while_in_doubt(tracking):
    email, now = make_email(), timezone.now()
    make_attempt(email, claim([email]), "uncertain", finished_at=now)
    Email.objects.filter(pk=email.pk).update(status="uncertain", lease_until=None)
    assert was_a_machine(email, now + timedelta(seconds=1))


def test_who_withdraws_consent_is_not_followed_by_mail_sent_before(tracking):
    email = long_sent()
    tracking(CONSENT="tests.test_visits.never")
    record_visits([seen(email)])
    assert not Event.objects.exists()
    assert not Tally.objects.exists()


def test_a_visit_is_kept_for_later_when_the_consent_cannot_be_read(tracking):
    email = long_sent()
    tracking(CONSENT="tests.test_visits.without_database")
    with pytest.raises(OperationalError):
        record_visits([seen(email)])


def without_database(address, stream):
    raise OperationalError("connection lost")


def never(address, stream):
    return False


def anonymous(address, stream):
    return "anonymous"


def test_who_allows_only_numbers_is_only_counted(tracking):
    email = long_sent()
    tracking(CONSENT="tests.test_visits.anonymous")
    record_visits([seen(email), seen(email)])
    assert not Event.objects.exists()
    assert Tally.objects.get().number == 2


@pytest.mark.parametrize("setting", [{"mode": "off"}, {"ENABLED": False}])
def test_what_the_site_or_stream_no_longer_allows_is_not_recorded(setting, tracking):
    email = long_sent()
    tracking(**setting)
    counted = visit(EventKind.OPENED, timezone.now(), Mark(None, "transactional"), "", False)
    assert record_visits([seen(email), counted]) == 0
    assert not Event.objects.exists()
    assert not Tally.objects.exists()


def test_a_visit_of_an_email_that_was_deleted_is_nothing(tracking):
    assert record_visits([visit(EventKind.OPENED, timezone.now(), Mark(EMAIL), "", False)]) == 0


def test_anonymous_visits_are_counted_by_day_stream_batch_and_kind(tracking):
    batch = Batch.objects.create(total=2)
    at = datetime(2026, 5, 1, 23, 30, tzinfo=UTC)
    many = [visit(EventKind.OPENED, at, Mark(None, "transactional", batch.pk), "", False) for _ in range(3)]
    record_visits([*many, visit(EventKind.CLICKED, at, Mark(None, "transactional"), TARGET, True)])
    record_visits(many)
    rows = Tally.objects.order_by("kind").values_list("kind", "day", "batch", "machine", "number")
    assert list(rows) == [
        ("clicked", at.date(), None, True, 1),
        ("opened", at.date(), batch.pk, False, 6),
    ]


def test_a_count_of_a_batch_that_was_deleted_is_left_out(tracking):
    record_visits([visit(EventKind.OPENED, timezone.now(), Mark(None, "transactional", uuid7()), "", False)])
    assert not Tally.objects.exists()


def test_from_the_mail_to_the_event(tracking, browser, waiting):
    from celery_mailer.deliver.message import build

    email = long_sent(html_message='<a href="https://shop.example/">x</a>')
    html = build(email, email.content).alternatives[0][0]
    address = html.partition('href="https://mail.example.com')[2].partition('"')[0]
    assert browser.get(address)["Location"] == "https://shop.example/"
    record_visits(list(waiting.visits))
    assert Event.objects.get().url == "https://shop.example/"
