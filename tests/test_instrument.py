"""Marks in HTML: the links that are changed, and all that is not."""

import re
import time

import pytest
from django.db import OperationalError
from hypothesis import given
from hypothesis import strategies as st

from celery_mailer import tokens
from celery_mailer.consent import MODES, Mode
from celery_mailer.deliver.instrument import _places, marked, rewrite_links, target_of, with_pixel
from celery_mailer.deliver.message import build
from celery_mailer.tokens import Purpose
from tests.corpus_html import CORPUS
from tests.factories import make_email

pytestmark = pytest.mark.django_db

BASE = "https://mail.example.com/mail/"
LINK = '<p><a href="https://example.com/">x</a></p>'


def shown(html):
    return rewrite_links(html, lambda target: f"[{target}]")


@pytest.fixture
def tracking(settings):
    def configure(opens="identified", clicks="identified", **more):
        stream = {"TRACK_OPENS": opens, "TRACK_CLICKS": clicks}
        section = {"ENABLED": True, "BASE_URL": "https://mail.example.com", **more}
        settings.CELERY_MAILER = {"TRACKING": section, "STREAMS": {"transactional": stream}}

    configure()
    return configure


def out(html=LINK, **arguments):
    """The HTML that goes out of an email with ``html``."""
    email = make_email(html_message=html, **arguments)
    return marked(email, email.content, html)


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ('<a href="https://x.example/">', '<a href="[https://x.example/]">'),
        ("<A CLASS=b HREF='http://x.example/'>", "<A CLASS=b HREF='[http://x.example/]'>"),
        ("<a href=https://x.example/>", "<a href=[https://x.example/]>"),
        ('<a\nhref = "https://x.example/"\n>', '<a\nhref = "[https://x.example/]"\n>'),
        ('<area href="https://x.example/">', '<area href="[https://x.example/]">'),
        ('<a href=" https://x.example/ ">', '<a href="[https://x.example/]">'),
        ('<a href="https://x.example/?a=1&amp;b=2">', '<a href="[https://x.example/?a=1&b=2]">'),
        ('<a href="https://x.example/?a=1&copy=2">', '<a href="[https://x.example/?a=1&copy=2]">'),
        ('<a href="https://x.example/?a=1&copy">', '<a href="[https://x.example/?a=1©]">'),
        ('<a href="&#104;ttps://x.example/">', '<a href="[https://x.example/]">'),
        ('<a title=">" href="https://x.example/">', '<a title=">" href="[https://x.example/]">'),
        ('<a href="https://x.example/" href="https://y.example/">', '<a href="[https://x.example/]" href="https://y.example/">'),
        ("<!--[if !mso]><!--><a href='https://x.example/'>", "<!--[if !mso]><!--><a href='[https://x.example/]'>"),
    ],
)  # fmt: skip
def test_a_link_to_the_web_is_replaced_where_it_stands(html, expected):
    assert shown(html) == expected


@pytest.mark.parametrize(
    "html",
    [
        '<a href="mailto:a@example.com">', '<a href="tel:123">', '<a href="#top">', '<a href="/path">',
        '<a href="javascript:alert(1)">', '<a href="">', "<a href>", "<a>", '<a name="https://x.example">',
        '<a data-no-track href="https://x.example/">', '<a href="https://x.example/" DATA-NO-TRACK="">',
        '<img src="https://x.example/">', '<link href="https://x.example/">', '<base href="https://x.example/">',
        '<form action="https://x.example/">', '<td background="https://x.example/">',
        '<!--[if mso]><a href="https://x.example/"><![endif]-->', '<!-- <a href="https://x.example/"> -->',
        '<style>a { b: "<a href=\'https://x.example/\'>" }</style>', '<script>"<a href=https://x.example/>"</script>',
        '<textarea><a href="https://x.example/"></textarea>', '<title><a href="https://x.example/"></title>',
        '<a data-href="https://x.example/">', '<a href="https:\\\\x.example">', '<a href="https://x.example/\\y">',
        '<a href="https:///x">', '<a href="https://">', '<a href="HTTPS:x.example">', '<a href="ftp://x.example/">',
        '<a href="https://x.example/', "<a href=https://x.example/", '</a href="https://x.example/">',
        '<abbr href="https://x.example/">', "&lt;a href=&quot;https://x.example/&quot;&gt;",
    ],
)  # fmt: skip
def test_everything_else_stays(html):
    assert shown(html) == html


PIECES = st.lists(
    st.sampled_from(
        [
            *("<a ", "<A", "href=", ' href="', "https://x.example/", '"', "'", ">", "</a>", "<!--", "-->"),
            *("<style>", "</style>", "&amp;", "&copy", " ", "\n", "=", "data-no-track", "x", "é", "<td>"),
            *("<![if", "</", "<", "/"),
        ]
    ),
    max_size=30,
).map("".join)  # fmt: skip


@given(PIECES | st.text(st.characters(codec="ascii")))
def test_with_what_was_replaced_put_back_it_is_the_same_again(html):
    values = [html[start:end] for start, end in _places(html)]
    values = [value for value in values if target_of(value)]
    kept = rewrite_links(html, lambda target: MARK).split(MARK)
    assert len(kept) == len(values) + 1
    assert "".join(part + value for part, value in zip(kept, [*values, ""], strict=True)) == html


MARK = "\ue000" * 3  # not in what hypothesis is asked for
LINKS = {"anchors and other schemes": 0, "flex and grid": 3, "a footer": 2}


def test_of_real_mail_all_links_are_found():
    found = {name: [] for name in CORPUS}
    for name, html in CORPUS.items():
        rewrite_links(html, found[name].append)
    assert {name: len(targets) for name, targets in found.items()} == {n: LINKS.get(n, 1) for n in CORPUS}


@pytest.mark.parametrize(
    "piece", ["<a ", '<a href="', "<!--", "<style>", "<a =", "<!", "</", "<script", "&a", "<a<"]
)
def test_the_scan_is_linear(piece):
    begin = time.process_time()
    with_pixel(shown(piece * 40_000), "x")
    assert time.process_time() - begin < 3


@given(st.text())
def test_a_target_is_a_web_address_or_nothing(value):
    target = target_of(value)
    assert target is None or target.lower().startswith(("http://", "https://"))


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<body><p>x</p></body></html>", "<body><p>x</p>@</body></html>"),
        ("<p>x</p>", "<p>x</p>@"),
        ("<html><p>x</p></HTML>\n", "<html><p>x</p>@</HTML>\n"),
        ("<body>x<!-- </body> --></body>", "<body>x<!-- </body> -->@</body>"),
        ("<p>x</p><!-- open", "<p>x</p><!-- open"),
        ('<p>x</p><a href="', '<p>x</p><a href="'),
        ("<p>x</p><textarea>", "<p>x</p><textarea>"),
    ],
)
def test_the_pixel_stands_at_the_end_of_the_body(html, expected):
    found = with_pixel(html, "https://p.example/")
    start, _, rest = found.partition("<img")
    assert start + ("@" + rest.partition(">")[2] if rest else "") == expected


def test_nothing_is_marked_by_default():
    assert out() == LINK


def test_nothing_is_marked_while_the_site_does_not_enable_it(settings):
    stream = {"TRACK_OPENS": "identified", "TRACK_CLICKS": "identified"}
    settings.CELERY_MAILER = {"STREAMS": {"transactional": stream}}
    assert out() == LINK


def test_a_tracked_link_leads_to_the_token_of_where_it_led(tracking):
    tracking(opens="off")
    email = make_email(html_message=LINK)
    token = marked(email, email.content, LINK).partition(f'href="{BASE}c/')[2].partition('"')[0]
    mark, target = tokens.read_mark(Purpose.CLICK, token)
    assert (mark.email_id, target) == (email.pk, "https://example.com/")


def test_a_pixel_knows_its_email(tracking):
    tracking(clicks="off")
    email = make_email(html_message=LINK)
    html = marked(email, email.content, LINK)
    token = html.partition(f'src="{BASE}o/')[2].partition('"')[0]
    assert tokens.read_mark(Purpose.OPEN, token)[0].email_id == email.pk
    assert html.startswith(LINK)


def test_an_anonymous_pixel_is_the_same_in_every_mail_of_the_stream(tracking):
    tracking(opens="anonymous", clicks="off")
    assert out() == out() != LINK


def marks(html):
    return ("/o/" in html, "/c/" in html)


@pytest.mark.parametrize("site", MODES)
@pytest.mark.parametrize("asked", [None, *MODES])
@pytest.mark.parametrize("allowed", MODES)
def test_the_strictest_of_stream_email_and_recipient_counts(site, asked, allowed, tracking, monkeypatch):
    tracking(opens=site, clicks="off", CONSENT="tests.test_instrument.consents")
    monkeypatch.setattr(f"{__name__}.answer", allowed)
    html = out(track_opens=asked)
    strictest = min(Mode[mode.upper()] for mode in (site, asked or "identified", allowed))
    token = html.partition(f'src="{BASE}o/')[2].partition('"')[0]
    found = tokens.read_mark(Purpose.OPEN, token)
    got = Mode.OFF if found is None else Mode.IDENTIFIED if found[0].email_id else Mode.ANONYMOUS
    assert got == strictest


answer = "identified"
asked = []


def consents(address, stream):
    asked.append((address, stream))
    if answer == "raises":
        raise RuntimeError(address)
    if answer == "loses the database":
        raise OperationalError(address)
    return answer


def test_consent_is_asked_for_the_bare_address_and_the_stream(tracking):
    tracking(CONSENT="tests.test_instrument.consents")
    out(to="Ada <ada@example.com>")
    assert asked[-1] == ("ada@example.com", "transactional")


@pytest.mark.parametrize("given", [False, "off", "raises", "loses the database", None, "perhaps"])
def test_without_a_clear_consent_nothing_is_marked(given, tracking, monkeypatch, caplog):
    tracking(CONSENT="tests.test_instrument.consents")
    monkeypatch.setattr(f"{__name__}.answer", given)
    assert out() == LINK
    assert "example.com" not in caplog.text


def test_a_callable_that_is_not_there_allows_nothing(tracking):
    tracking(CONSENT="tests.nowhere.consents")
    assert out() == LINK


def test_sensitive_mail_is_never_marked(tracking):
    assert out(sensitive=True, track_opens=True, track_clicks=True) == LINK


def test_of_several_recipients_nobody_in_particular_is_followed(tracking):
    html = out(to=["a@example.com", "b@example.com"])
    token = html.partition(f'src="{BASE}o/')[2].partition('"')[0]
    assert tokens.read_mark(Purpose.OPEN, token)[0].email_id is None


def test_one_of_several_recipients_can_forbid_it(tracking, monkeypatch):
    tracking(CONSENT="tests.test_instrument.only_a")
    assert out(to=["a@example.com", "b@example.com"]) == LINK


def only_a(address, stream):
    return address.startswith("a@")


def test_links_to_our_own_pages_stay(tracking):
    html = f'<a href="{BASE}u/token">x</a><a href="{BASE}p/token">y</a>'
    assert out(html, track_opens=False) == html


def test_the_link_of_the_callers_own_list_unsubscribe_stays(tracking):
    html = '<a href="https://leave.example/1">x</a>'
    headers = {"List-Unsubscribe": "<mailto:a@b.example>, <https://leave.example/1>"}
    assert out(html, track_opens=False, headers=headers) == html


def test_a_link_that_would_be_too_long_for_servers_stays(tracking):
    html = f'<a href="https://example.com/{"x" * 1_500}">x</a>'
    assert out(html, track_opens=False) == html


def test_a_tracked_link_has_room_in_the_request_line_of_every_server(tracking):
    found = out(f'<a href="https://example.com/{"x" * 1_300}">x</a>', track_opens=False)
    address = re.search(f'"({BASE}c/.+?)"', found)[1]
    assert 1_500 < len(address) <= 2_000


def test_the_message_has_the_marks_and_what_is_stored_has_none(tracking):
    email = make_email(html_message=LINK, message="text https://example.com/")
    message = build(email, email.content)
    (alternative,) = message.alternatives
    assert marks(alternative[0]) == (True, True)
    assert message.body == "text https://example.com/"
    email.content.refresh_from_db()
    assert email.content.html == LINK


def test_html_without_a_text_has_the_marks_too(tracking):
    email = make_email(html_message=LINK, message="")
    assert marks(build(email, email.content).body) == (True, True)


@pytest.mark.parametrize("value", ["perhaps", 1, [], "Identified"])
def test_a_mode_that_is_none_is_refused_at_the_door(value):
    with pytest.raises(ValueError, match=r"track_opens: must be one of: off, anonymous, identified"):
        make_email(track_opens=value)


@pytest.mark.parametrize(
    ("value", "kept"), [(None, ""), (True, "identified"), (False, "off"), ("anonymous", "anonymous")]
)
def test_a_mode_is_kept_by_its_name(value, kept):
    assert make_email(track_clicks=value).content.track_clicks == kept
