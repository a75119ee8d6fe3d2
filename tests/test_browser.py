"""The pages in a real browser: Debian's Chromium, led by Playwright (the extra ``browser``)."""

import re
import zlib
from urllib.parse import urlsplit

import pytest

from tests.services import chromium
from tests.site import Site, wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.timeout(180),
    pytest.mark.xdist_group("processes"),
]

HOSTILE = """<html><head><meta http-equiv="refresh" content="0;url=https://evil.example/refresh">
<link rel="stylesheet" href="https://evil.example/style.css"><script src="https://evil.example/a.js"></script>
<script>parent.postMessage("ran", "*"); document.title = "ran"</script></head>
<body onload="document.title = 'ran'"><h1>Hello</h1>
<img src="https://evil.example/pixel.gif" onerror="document.title = 'ran'">
<p style="background: url(https://evil.example/background.png)">x</p>
<iframe src="https://evil.example/frame"></iframe><object data="https://evil.example/object"></object>
<form action="https://evil.example/form" method="post"><button>Send</button></form>
<a href="https://evil.example/link" target="_top">Follow</a></body></html>"""


MAILER = """{'PROVIDERS': {'default': {
    'BACKEND': 'celery_mailer.deliver.providers.capture.EmailBackend', 'DAILY_QUOTA': 50,
}}}"""

SERVE = """
    from django.conf import settings
    from django.contrib.staticfiles.handlers import StaticFilesHandler
    from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler
    from django.core.wsgi import get_wsgi_application

    settings.STATIC_URL = "/static/"
    server = ThreadedWSGIServer(("127.0.0.1", 0), WSGIRequestHandler)
    server.set_app(StaticFilesHandler(get_wsgi_application()))
    print(f"port {server.server_port}.", flush=True)
    server.serve_forever()
"""

# Somebody who may do everything, and a row for every page.
PREPARE = """
    from django.contrib.auth.models import User
    from django.test import Client
    from celery_mailer import tokens
    from celery_mailer.enqueue import enqueue
    from celery_mailer.models import EmailTemplate
    from celery_mailer.models.suppression import Entry, Suppression, digest_of, suppress
    from celery_mailer.values import EmailRequest, SuppressionReason

    client = Client()
    client.force_login(User.objects.create_superuser("ada", "ada@example.com"))
    words = {"language": "en", "subject": "Hello", "html_content": "<p>Hello {{ name }}</p>"}
    template = EmailTemplate.objects.create(name="hello", variables={"name": "Ada"}, **words)
    words = {"language": "de", "subject": "Hallo", "html_content": "<p>Hallo {{ name }}</p>"}
    template.translated_templates.create(**words)
    template.subject = "Hello again"
    template.save()
    request = EmailRequest(to="a@example.com", subject="s", message="m", stream="marketing")
    (email,) = enqueue([request], as_batch=True, start=False)
    suppress([Entry("gone@example.com", SuppressionReason.HARD_BOUNCE)])
    packed = tokens.pack_subscription(tokens.Subscription(email.pk, digest_of("a@example.com"), "marketing"))
    result = {
        "session": client.cookies["sessionid"].value, "template": template.pk, "batch": str(email.batch_id),
        "unsubscribe": tokens.sign(tokens.Purpose.UNSUBSCRIBE, packed),
        "preferences": tokens.sign(tokens.Purpose.PREFERENCES, packed),
        "suppression": str(Suppression.objects.get().pk),
    }
"""


class Served(Site):
    """An installation whose web process serves the admin and the inbox at ``address``."""

    def serve(self):
        process = self.start(SERVE)
        found = wait_until("the server is ready", lambda: re.search(r"port (\d+)\.", process.output()))
        self.address = f"http://127.0.0.1:{found[1]}"
        self.rows = self.run(PREPARE)

    def send(self, **arguments):
        """The ids of an email that the provider has captured, and of what it kept."""
        values = {"recipients": "ada@example.com", "subject": "Hello", "message": "Dear Ada", **arguments}
        return self.run(f"""
            from celery_mailer import chain, mail
            email = mail.send(**{values!r})
            chain.run([email.pk])
            result = str(email.pk), str(email.captured.get().pk)
        """)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    chromium()
    site = Served(f"sqlite:///{tmp_path_factory.mktemp('browser')}/site.sqlite3", "memory://", 25, MAILER)
    try:
        site.migrate()
        site.serve()
        yield site
    finally:
        site.close()


@pytest.fixture(params=["light", "dark"])
def browser(request, site):
    """A page of somebody who may do everything. ``faults`` and ``elsewhere`` are what must stay empty."""
    from playwright import sync_api as api

    cookie = {"name": "sessionid", "value": site.rows["session"], "url": site.address}
    options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium(), args=options)
        context = started.new_context(color_scheme=request.param, base_url=site.address)
        context.add_cookies([cookie])
        page = context.new_page()
        page.faults, page.elsewhere, page.timeout_error = [], [], api.TimeoutError
        page.on("pageerror", lambda error: page.faults.append(str(error)))
        # What its policy forbids does not come so far.
        context.route(_elsewhere, lambda route: (page.elsewhere.append(route.request.url), route.abort()))
        yield page
        started.close()


def _elsewhere(url):
    return urlsplit(url).hostname not in (None, "127.0.0.1")


def background(page):
    """How bright it is, 0 to 255, as it is seen: a page may leave its colours to the browser."""
    png = page.screenshot(clip={"x": 0, "y": DESKTOP["height"] - 1, "width": 1, "height": 1})
    data, at = b"", 8
    while at < len(png):
        size = int.from_bytes(png[at : at + 4])
        data += png[at + 8 : at + 8 + size] if png[at + 4 : at + 8] == b"IDAT" else b""
        at += size + 12
    return max(zlib.decompress(data)[1:4])  # after the filter, which a single pixel has no use for


ADMIN = "/admin/celery_mailer"
DESKTOP, PHONE = {"width": 1280, "height": 720}, {"width": 390, "height": 720}


def test_every_page_comes_up_in_the_colours_of_the_system(browser, site, request):
    email, captured = site.send(html_message="<p>Hello</p>")
    pages = {
        f"{ADMIN}/email/dashboard/": "Dashboard",
        f"{ADMIN}/email/": "Select email to view",
        f"{ADMIN}/email/{email}/change/": "Hello",
        f"{ADMIN}/batch/{site.rows['batch']}/change/": "Batch",
        f"{ADMIN}/batch/": "Select batch to view",
        f"{ADMIN}/event/": "Select event to view",
        f"{ADMIN}/suppression/": "Select suppression to view",
        f"{ADMIN}/suppression/{site.rows['suppression']}/change/": "Suppression",
        f"{ADMIN}/emailtemplate/": "Select email template to change",
        f"{ADMIN}/emailtemplate/{site.rows['template']}/change/": "Change email template",
        f"{ADMIN}/emailtemplate/{site.rows['template']}/versions/": "Versions",
        f"{ADMIN}/providerstate/": "Providers",
        f"{ADMIN}/providerstate/default/change/": "Provider",
        "/inbox/": "Inbox",
        f"/inbox/{captured}/": "Inbox",
        f"/mail/u/{site.rows['unsubscribe']}": "Unsubscribe",
        f"/mail/p/{site.rows['preferences']}": "Which mail you get",
    }
    dark = "dark" in request.node.callspec.id
    for address, heading in pages.items():
        assert browser.goto(address).status == 200, address
        assert browser.locator("h1", has_text=heading).count() == 1, address
        assert (background(browser) < 60) is dark, address
        browser.set_viewport_size(PHONE)
        assert browser.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], address
        browser.set_viewport_size(DESKTOP)
    assert (browser.faults, browser.elsewhere) == ([], [])


def test_a_hostile_email_runs_nothing_and_loads_nothing(browser, site):
    email, captured = site.send(html_message=HOSTILE)
    for address in (f"{ADMIN}/email/{email}/change/", f"/inbox/{captured}/"):
        browser.goto(address)
        frame = browser.frame_locator("iframe.mailer-frame >> nth=0")
        frame.get_by_role("heading", name="Hello").wait_for()
        title, here = browser.title(), browser.url
        frame.get_by_role("button", name="Send").click(no_wait_after=True)
        frame.get_by_role("link", name="Follow").click(no_wait_after=True)
        browser.locator("h2 >> nth=0").wait_for()
        assert (browser.title(), browser.url) == (title, here)
    assert browser.elsewhere == []


def test_the_preview_of_a_hostile_template_runs_nothing_and_loads_nothing(browser):
    browser.goto(f"{ADMIN}/emailtemplate/add/")
    title = browser.title()
    browser.get_by_label("HTML", exact=False).and_(browser.locator("textarea:visible")).fill(HOSTILE)
    browser.frame_locator("#mailer-preview iframe").get_by_role("heading", name="Hello").wait_for()
    browser.get_by_text("images from elsewhere are not loaded").wait_for()
    assert (browser.title(), browser.elsewhere, browser.faults) == (title, [], [])


def test_the_languages_of_a_template_are_tabs_with_a_preview_of_what_is_typed(browser, site):
    browser.goto(f"{ADMIN}/emailtemplate/{site.rows['template']}/change/")
    preview = browser.frame_locator("#mailer-preview iframe")
    preview.get_by_text("Hello Ada").wait_for()
    browser.get_by_role("tab", name="English").focus()
    browser.keyboard.press("ArrowRight")
    german = browser.get_by_role("tabpanel", name="German")
    assert german.is_visible()
    assert not browser.get_by_role("tabpanel", name="English").is_visible()
    preview.get_by_text("Hallo Ada").wait_for()
    html = german.get_by_label("HTML:")
    html.press_sequentially("<b>Neu</b>")
    preview.get_by_text("Neu", exact=True).wait_for()
    html.press_sequentially("{% if %}")
    browser.get_by_text("HTML: Bad syntax").wait_for()
    assert browser.faults == []


def test_a_template_is_tested_and_an_older_version_restored(browser, site):
    browser.goto(f"{ADMIN}/emailtemplate/{site.rows['template']}/change/")
    browser.get_by_role("button", name="to ada@example.com").press("Enter")
    browser.get_by_text("A test is on its way").wait_for()
    browser.get_by_role("link", name="Versions").press("Enter")
    browser.locator("ins").wait_for()
    assert browser.locator("ins").count() == browser.locator("del").count() == 1
    browser.get_by_role("button", name="Restore").press("Enter")
    browser.get_by_text("Restored.").wait_for()


def test_a_recipient_leaves_and_comes_back_by_keyboard(browser, site):
    browser.goto(f"/mail/u/{site.rows['unsubscribe']}")
    browser.keyboard.press("Tab")
    browser.keyboard.press("Enter")
    browser.get_by_role("heading", name="You are unsubscribed").wait_for()
    browser.keyboard.press("Tab")
    browser.keyboard.press("Enter")
    box = browser.get_by_label("Marketing")
    box.wait_for()
    assert not box.is_checked()
    for key in ("Tab", "Space", "Tab", "Enter"):
        browser.keyboard.press(key)
    browser.get_by_text("Your choice is saved.").wait_for()
    assert browser.get_by_label("Marketing").is_checked()


def test_the_dashboard_refreshes_itself_unless_it_is_asked_not_to(browser):
    browser.goto(f"{ADMIN}/email/dashboard/")
    shown = browser.get_by_text("As of").inner_text()
    browser.get_by_text(shown).wait_for(state="detached", timeout=60_000)
    browser.get_by_label("Refresh every few seconds").uncheck()
    with pytest.raises(browser.timeout_error):
        browser.wait_for_event("request", timeout=6_000)
    assert browser.faults == []


def test_new_mail_comes_into_the_inbox_by_itself(browser, site, request):
    browser.goto("/inbox/")
    site.send(subject=f"News for {request.node.callspec.id}")
    browser.get_by_text(f"News for {request.node.callspec.id}").wait_for(timeout=60_000)
    assert browser.faults == []


def test_the_inbox_is_used_by_keyboard(browser, site):
    site.send(html_message="<h1>Hello</h1>")
    browser.goto("/inbox/")
    browser.keyboard.press("Tab")  # the heading
    browser.keyboard.press("Tab")
    browser.keyboard.press("Enter")
    browser.get_by_role("tab", name="HTML").focus()
    browser.keyboard.press("ArrowRight")
    assert browser.get_by_role("tabpanel", name="Text").is_visible()
    browser.keyboard.press("ArrowLeft")
    browser.get_by_label("Desktop").focus()
    browser.keyboard.press("ArrowRight")
    assert browser.locator("iframe.mailer-frame >> nth=0").bounding_box()["width"] < 400


def test_a_provider_is_paused_and_resumed_by_keyboard(browser):
    browser.goto(f"{ADMIN}/providerstate/")
    browser.locator("summary", has_text="Pause default").focus()
    browser.keyboard.press("Enter")
    browser.keyboard.press("Tab")
    browser.keyboard.type("a wrong password")
    browser.keyboard.press("Enter")
    browser.get_by_text("“default” is paused").wait_for()
    browser.get_by_role("button", name="Resume default").press("Enter")
    browser.get_by_text("“default” goes on").wait_for()
