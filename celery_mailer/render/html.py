"""Finishes rendered HTML: MJML becomes HTML, and rules in ``<style>`` elements become ``style`` attributes.

Both by packages in Rust that an installation may do without. What is wrapped around them answers to what
they do with odd documents (measured, css-inline 0.23 and mjml-python 1.4). css-inline drops the ``<link>`` of
a font and the identifiers of a doctype, and applies ``<style media="print">`` to the screen. Both end the
whole process, by a stack overflow, at 2,000 (MJML) and 12,000 (HTML) nested elements. mrml can panic, which
is no ``Exception``.
"""

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

from celery_mailer.exceptions import RenderError
from celery_mailer.render.markup import VOID

if TYPE_CHECKING:
    from css_inline import CSSInliner

_DEEPEST = 500
# Open ones of these say nothing of the depth: between two that are nested stands another element.
_OPTIONAL_END = frozenset(
    {
        *("body", "dd", "dt", "head", "html", "li", "option", "p"),
        *("tbody", "td", "tfoot", "th", "thead", "tr"),
    }
)

_MJML = re.compile(r"\ufeff?(?:\s|<\?.*?\?>|<!--.*?-->)*+(?=<mjml[\s/>])", re.DOTALL)
_TAG = re.compile(r"<(/?)([a-z][^\s/>]*+)([^>]*+)", re.IGNORECASE)
_STYLE = re.compile(r"<style(?=[\s/>])([^>]*+)", re.IGNORECASE)
_EMPTY_STYLE = re.compile(r"<style(?:\s[^>]*+)?></style>")
_MEDIA = re.compile(r"\smedia\s*=", re.IGNORECASE)
_DOCTYPE = re.compile(r"\s*(<!doctype\s[^>]*>)", re.IGNORECASE)


def finish(html: str) -> str:
    """``html`` as it is to be sent: compiled if it is MJML, with its styles inlined.

    MJML needs the extra ``mjml``; ``<mj-include>`` is refused. Styles are inlined where the extra ``css`` is
    installed, as not every mail client reads ``<style>``; what cannot be inlined (``@media``, ``:hover``,
    selectors that match nothing) stays there. Nothing is ever loaded, neither from the network nor from a
    file. HTML without ``<style>`` is returned as it is. Raises ``RenderError``.
    """
    start = _MJML.match(html)
    if start:
        html = _compiled(html[start.end() :])
    return _inlined(html) if _STYLE.search(html) else html


def _compiled(mjml: str) -> str:
    try:
        from mjml import mjml2html
    except ImportError as error:
        raise RenderError("MJML needs the extra: pip install celery_mailer[mjml]") from error
    _check_depth(mjml, uncounted=VOID, xml=True)
    with _faults("MJML"):
        return mjml2html(mjml)


def _inlined(html: str) -> str:
    inliner = _inliner()
    if inliner is None:
        return html
    _check_depth(html, uncounted=VOID | _OPTIONAL_END, xml=False)
    with _faults("CSS"):
        inlined = _EMPTY_STYLE.sub("", inliner.inline(_STYLE.sub(_ignored_for_media, html)))
    doctype = _DOCTYPE.match(html)
    return _DOCTYPE.sub(lambda _: doctype[1], inlined, count=1) if doctype else inlined


@cache
def _inliner() -> "CSSInliner | None":
    try:
        from css_inline import CSSInliner
    except ImportError:
        return None
    return CSSInliner(
        load_remote_stylesheets=False,
        keep_link_tags=True,
        keep_at_rules=True,
        keep_style_tags=True,  # without, those for other media go where no other is left
        remove_inlined_selectors=True,
    )


def _ignored_for_media(style: re.Match[str]) -> str:
    mark = ' data-css-inline="ignore"' if _MEDIA.search(style[1]) else ""
    return f"<style{mark}{style[1]}"


def _check_depth(markup: str, *, uncounted: frozenset[str], xml: bool) -> None:
    """Raise ``RenderError`` for what would overflow the stack; elements may be counted that are closed."""
    if markup.count("<") <= _DEEPEST:
        return
    depth, open_tags = 0, Counter[str]()
    for end, name, source in _TAG.findall(markup):
        tag = name.lower()
        if tag in uncounted or (xml and source.endswith("/")):
            continue
        step = 1 if not end else -1 if open_tags[tag] else 0
        open_tags[tag] += step
        depth += step
        if depth > _DEEPEST:
            raise RenderError(f"elements are nested more than {_DEEPEST} deep")


@contextmanager
def _faults(language: str) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        # A panic in Rust derives from BaseException, and its class cannot be imported.
        if not isinstance(error, ValueError) and type(error).__name__ != "PanicException":
            raise
        raise RenderError(f"{language}: {error}") from error
