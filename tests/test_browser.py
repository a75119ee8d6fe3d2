"""The pages in a real browser: Debian's Chromium, led by Playwright (the extra ``browser``)."""

import re
import shutil
from urllib.parse import urlsplit

import pytest

from tests.site import Site, wait_until

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
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
    from celery_mailer.enqueue import enqueue
    from celery_mailer.models import EmailTemplate
    from celery_mailer.values import EmailRequest

    client = Client()
    client.force_login(User.objects.create_superuser("ada", "ada@example.com"))
    template = EmailTemplate.objects.create(name="hello", subject="Hello", html_content="<p>Hello</p>")
    request = EmailRequest(to="a@example.com", subject="s", message="m")
    (email,) = enqueue([request], as_batch=True, start=False)
    result = {
        "session": client.cookies["sessionid"].value, "template": template.pk, "batch": str(email.batch_id)
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
    api = pytest.importorskip("playwright.sync_api", reason="needs Playwright: the extra browser")
    cookie = {"name": "sessionid", "value": site.rows["session"], "url": site.address}
    options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        context = chromium.new_context(color_scheme=request.param, base_url=site.address)
        context.add_cookies([cookie])
        page = context.new_page()
        page.faults, page.elsewhere, page.timeout_error = [], [], api.TimeoutError
        page.on("pageerror", lambda error: page.faults.append(str(error)))
        # What its policy forbids does not come so far.
        context.route(_elsewhere, lambda route: (page.elsewhere.append(route.request.url), route.abort()))
        yield page
        chromium.close()


def _elsewhere(url):
    return urlsplit(url).hostname not in (None, "127.0.0.1")


def background(page):
    shade = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return int(re.search(r"\d+", shade)[0])


ADMIN = "/admin/celery_mailer"


def test_every_page_comes_up_in_the_colours_of_the_system(browser, site, request):
    email, captured = site.send(html_message="<p>Hello</p>")
    pages = {
        f"{ADMIN}/email/dashboard/": "Dashboard",
        f"{ADMIN}/email/": "Select email to view",
        f"{ADMIN}/email/{email}/change/": "Hello",
        f"{ADMIN}/batch/{site.rows['batch']}/change/": "Batch",
        f"{ADMIN}/emailtemplate/{site.rows['template']}/change/": "Change email template",
        f"{ADMIN}/providerstate/": "Providers",
        f"{ADMIN}/providerstate/default/change/": "Provider",
        "/inbox/": "Inbox",
        f"/inbox/{captured}/": "Inbox",
    }
    dark = "dark" in request.node.callspec.id
    for address, heading in pages.items():
        assert browser.goto(address).status == 200, address
        assert browser.locator("h1", has_text=heading).count() == 1, address
        assert (background(browser) < 60) is dark, address
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


def test_the_dashboard_refreshes_itself_unless_it_is_asked_not_to(browser):
    browser.goto(f"{ADMIN}/email/dashboard/")
    shown = browser.get_by_text("As of").inner_text()
    browser.get_by_text(shown).wait_for(state="detached", timeout=15_000)
    browser.get_by_label("Refresh every few seconds").uncheck()
    with pytest.raises(browser.timeout_error):
        browser.wait_for_event("request", timeout=6_000)
    assert browser.faults == []


def test_new_mail_comes_into_the_inbox_by_itself(browser, site, request):
    browser.goto("/inbox/")
    site.send(subject=f"News for {request.node.callspec.id}")
    browser.get_by_text(f"News for {request.node.callspec.id}").wait_for(timeout=15_000)
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
