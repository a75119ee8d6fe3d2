"""A mail with marks looks as it does without, in a real browser: screenshots are compared byte by byte."""

import subprocess
from html import escape

import pytest

from celery_mailer.deliver.instrument import rewrite_links, with_pixel
from tests.corpus_html import CORPUS
from tests.services import chromium

BASE = "https://mail.example.com/mail/"

pytestmark = pytest.mark.slow


def sheet(mails):
    """All mails on one page, each in a frame of its own, so that the browser starts only twice."""
    frames = "".join(f'<iframe srcdoc="{escape(html)}" width="640" height="240"></iframe>' for html in mails)
    return f"<!DOCTYPE html><meta charset='utf-8'><body style='margin:0'>{frames}"


def picture(mails, folder, name):
    page, image = folder / f"{name}.html", folder / f"{name}.png"
    page.write_text(sheet(mails))
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--force-device-scale-factor=1",
    ]
    options += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={folder / 'profile'}"]
    options += ["--window-size=1300,3700", "--virtual-time-budget=5000", f"--screenshot={image}"]
    subprocess.run([chromium(), *options, page.as_uri()], check=True, capture_output=True, timeout=100)
    return image.read_bytes()


def marked(html):
    """With a mark on every link, and the pixel."""
    return with_pixel(rewrite_links(html, lambda target: f"{BASE}c/{'x' * 90}"), f"{BASE}o/{'x' * 66}")


@pytest.mark.browser
def test_marks_change_nothing_that_is_seen(tmp_path):
    before = picture(CORPUS.values(), tmp_path, "before")
    after = picture([marked(html) for html in CORPUS.values()], tmp_path, "after")
    assert before == after


@pytest.mark.browser
def test_a_change_that_is_seen_would_be_noticed(tmp_path):
    before = picture(CORPUS.values(), tmp_path, "before")
    changed = [html.replace("Imprint", "Imprint.") for html in CORPUS.values()]
    assert before != picture(changed, tmp_path, "changed")


def test_the_corpus_has_thirty_mails_which_all_are_marked():
    assert len(CORPUS) == 30
    assert all(marked(html) != html for html in CORPUS.values())
