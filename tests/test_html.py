import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from celery_mailer.exceptions import RenderError
from celery_mailer.render import html as module
from celery_mailer.render.html import finish
from celery_mailer.render.plaintext import plaintext

MJML = """<mjml><mj-head><mj-title>T</mj-title><mj-preview>Soon</mj-preview></mj-head><mj-body>
<mj-section><mj-column><mj-text>Hi <b>Ann</b></mj-text>
<mj-button href="https://e.example/?a=1&amp;b=2">Go</mj-button></mj-column></mj-section></mj-body></mjml>"""


def styled(rules, body="<p>Hi</p>"):
    return f"<!DOCTYPE html><html><head><style>{rules}</style></head><body>{body}</body></html>"


@pytest.fixture
def without(monkeypatch):
    """Make a package look as if it were not installed."""

    def hide(name):
        monkeypatch.setitem(sys.modules, name, None)
        module._inliner.cache_clear()

    yield hide
    module._inliner.cache_clear()


@contextmanager
def web_server():
    """A web server that has a style sheet for everyone; yields its address and what it was asked for."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"p{color:red}")

        def log_message(self, *args):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


# Styles.


def test_styles_are_inlined():
    assert '<p style="color: red;">Hi</p>' in finish(styled("p{color:red}"))


@pytest.mark.parametrize(
    "html",
    [
        "",
        "<p>Hi</p>",
        "  <P CLASS=x>Hi\r\n<br/>&nbsp;<styled>",
        "<!doctype html>\n<p style='color:red'>é",
        "\ud800",
    ],
)
def test_html_without_a_style_element_is_returned_as_it_is(html):
    assert finish(html) == html


def test_without_the_extra_the_html_is_returned_as_it_is(without):
    without("css_inline")
    assert finish(styled("p{color:red}")) == styled("p{color:red}")


@pytest.mark.parametrize(
    "rule",
    [
        "@media (max-width:600px){p{color:blue !important}}",
        "@font-face{font-family:X;src:url(x.woff)}",
        "@import url(https://fonts.example/css);",
    ],
)
def test_at_rules_stay_in_a_style_element(rule):
    assert rule in finish(styled(f"{rule} p{{color:red}}")).partition("</style>")[0]


@pytest.mark.parametrize("selector", ["a:hover", "#outlook a", "[data-ogsc] p", "u + .body p"])
def test_selectors_that_only_a_client_can_match_stay_in_a_style_element(selector):
    html = finish(styled(f"{selector}{{color:blue}} p{{color:red}}"))
    assert f"{selector} {{ color: blue; }}" in html.partition("</style>")[0]


def test_a_style_element_that_nothing_is_left_of_goes():
    assert "<style" not in finish(styled("p{color:red}"))


def test_a_style_element_for_another_medium_stays_as_it_is():
    html = finish('<style media="print">p{display:none}</style><style>p{color:red}</style><p>Hi</p>')
    assert '<p style="color: red;">' in html
    assert 'media="print">p{display:none}</style>' in html


@pytest.mark.parametrize(
    "comment",
    [
        "<!--[if mso | IE]><table><tr><td><![endif]-->",
        "<!--[if mso]><style>.o{color:red}</style><![endif]-->",
        "<!--[if !mso]><!--><p>Not Outlook</p><!--<![endif]-->",
        '<!--[if mso]><v:rect href="x" style="height:40px"><v:fill color="#fff"/></v:rect><![endif]-->',
    ],
)
def test_conditional_comments_survive(comment):
    assert comment in finish(styled("b{color:red}", comment))


@pytest.mark.parametrize(
    "doctype",
    [
        "<!DOCTYPE html>",
        '<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Transitional//EN" "http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd">',
    ],
)
def test_the_doctype_survives(doctype):
    html = finish(f"\n{doctype}\n<style>p{{color:red}}</style><p>Hi")
    assert html.startswith(f"{doctype}<html>")


def test_addresses_survive():
    address = "https://e.example/?a=1&amp;copy=2"
    assert f'href="{address}"' in finish(styled("p{color:red}", f'<a href="{address}">x</a>'))


def test_no_style_sheet_is_loaded_from_the_network():
    with web_server() as (address, asked):
        sheets = f'<link rel="stylesheet" href="{address}/a.css"><style>@import url({address}/b.css);</style>'
        html = finish(f"{sheets}<p>Hi</p>")
    assert asked == []
    assert "<p>Hi</p>" in html
    assert f'href="{address}/a.css"' in html


def test_no_style_sheet_is_read_from_a_file(tmp_path, monkeypatch):
    (tmp_path / "a.css").write_text("p{color:red}")
    monkeypatch.chdir(tmp_path)
    for href in ("a.css", f"{tmp_path}/a.css", f"file://{tmp_path}/a.css", "file://a.css"):
        assert "<p>Hi</p>" in finish(
            f'<link rel="stylesheet" href="{href}"><style>b{{top:0}}</style><p>Hi</p>'
        )


@pytest.mark.parametrize("rules", ["}}}{{{@@media{", "p{color:;;}", "p{", "/*", "p{color:red"])
def test_broken_css_is_no_error(rules):
    assert "Hi" in finish(styled(rules))


def test_a_text_that_is_no_unicode_is_an_error():
    with pytest.raises(RenderError, match="CSS"):
        finish(styled("p{color:red}", "\ud800"))


def test_threads_share_the_inliner():
    html = styled("p{color:red}", "<p>Hi</p>" * 50)
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(finish, [html] * 200))) == 1
    assert module._inliner() is module._inliner()


# Nesting.


@pytest.mark.parametrize(
    "opening", ["<div>", "<div></x>", "<div/>", "<b><p>", "<table><tr><td></div>", "<DIV\n>"]
)
def test_html_that_would_overflow_the_stack_is_an_error(opening):
    with pytest.raises(RenderError, match="nested more than 500 deep"):
        finish(styled("p{color:red}", opening * 100_000))


@pytest.mark.parametrize(
    "piece", ["<p>x", "<br>", "<div><b>x</b></div>", "<img/>", "<!--[if mso]><div><![endif]--></div>"]
)
def test_a_long_document_is_not_a_deep_one(piece):
    assert "color: red" in finish(styled("p{color:red}", "<p>" + piece * 5_000))


def test_a_long_table_is_not_a_deep_one():
    rows = "<tr><td>a<td>b" * 5_000
    assert plaintext(finish(styled("td{color:red}", f"<table>{rows}</table>"))).count("a | b") == 5_000


def test_mjml_that_would_overflow_the_stack_is_an_error():
    deep = "<mj-section>" * 5_000 + "</mj-section>" * 5_000
    with pytest.raises(RenderError, match="nested more than 500 deep"):
        finish(f"<mjml><mj-body>{deep}</mj-body></mjml>")


def test_elements_of_mjml_that_close_themselves_are_not_nested():
    spacers = "<mj-spacer height='9px' />" * 1000
    assert "height:9px" in finish(f"<mjml><mj-body>{spacers}</mj-body></mjml>")


# MJML.


def test_mjml_becomes_html():
    html = finish(MJML)
    assert html.startswith("<!doctype html>")
    assert "<mj-" not in html


def test_the_text_of_mjml_is_what_a_reader_sees():
    assert plaintext(finish(MJML)) == "Hi Ann\n\nGo (https://e.example/?a=1&b=2)"


def test_the_styles_of_mjml_are_inlined():
    html = finish(MJML.replace("</mj-head>", "<mj-style>b{color:red}</mj-style></mj-head>"))
    assert '<b style="color: red;">Ann</b>' in html
    assert "@media only screen" in html


@pytest.mark.parametrize(
    "before", ["\n  ", '<?xml version="1.0"?>\n', "<!-- <p> -->\n", "\ufeff", "<!-- a --> <?b?>\n"]
)
def test_mjml_may_have_something_before_it(before):
    assert finish(before + MJML) == finish(MJML)


@pytest.mark.parametrize("html", ["<p>&lt;mjml></p>", "<p><mjml></p>", "<mjmlx>", "mjml", "<!-- <mjml> -->"])
def test_what_does_not_begin_as_mjml_is_none(html):
    assert finish(html) == html


def test_mjml_works_without_the_extra_for_css(without):
    without("css_inline")
    assert plaintext(finish(MJML)).startswith("Hi Ann")


def test_mjml_without_the_extra_is_an_error_that_names_it(without):
    without("mjml")
    with pytest.raises(RenderError, match=r"celery_mailer\[mjml\]"):
        finish(MJML)


@pytest.mark.parametrize(
    "mjml",
    [
        "<mjml>",
        "<mjml><mj-body><mj-text>a</mj-body></mjml>",
        "<mjml><mj-body><mj-text>a\x00</mj-text></mj-body></mjml>",
        "<mjml><mj-body>\ud800</mj-body></mjml>",
    ],
)
def test_bad_mjml_is_an_error(mjml):
    with pytest.raises(RenderError, match="MJML: "):
        finish(mjml)


def test_includes_are_refused(tmp_path):
    (tmp_path / "part.mjml").write_text("<mj-text>secret</mj-text>")
    with web_server() as (address, asked):
        for path in (f"{tmp_path}/part.mjml", f"file://{tmp_path}/part.mjml", f"{address}/part.mjml"):
            for kind in ("mjml", "html", "css"):
                with pytest.raises(RenderError, match="MJML: "):
                    finish(f'<mjml><mj-body><mj-include path="{path}" type="{kind}"/></mj-body></mjml>')
    assert asked == []


def test_a_panic_is_an_error_though_it_is_no_exception():
    panic = type("PanicException", (BaseException,), {})
    with pytest.raises(RenderError, match="MJML: not a char boundary"), module._faults("MJML"):
        raise panic("not a char boundary")


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_what_is_no_fault_of_the_document_is_not_taken_for_one(error):
    with pytest.raises(error), module._faults("CSS"):
        raise error
