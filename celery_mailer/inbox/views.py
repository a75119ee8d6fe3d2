"""The pages of the inbox. All of them only show something, to developers: with DEBUG, or to staff."""

from collections.abc import Callable
from functools import wraps
from io import BytesIO
from typing import Any
from uuid import UUID

from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import FileResponse, Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, render
from django.urls import NoReverseMatch, reverse
from django.views.decorators.http import require_safe

from celery_mailer import conf
from celery_mailer.admin.preview import Hidden, Seen, guarded, remote_images
from celery_mailer.admin.timeline import timeline
from celery_mailer.inbox.seen import File, files, languages, links, seen
from celery_mailer.models import CapturedMessage

SHOWN = 100  # messages in the list, the newest
View = Callable[..., HttpResponseBase]


def for_developers(view: View) -> View:
    """``view`` for whoever may look; a GET of others leads to the admin's login, where there is one."""

    @wraps(view)
    def guard(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if may_look(request):
            return view(request, *args, **kwargs)
        user = getattr(request, "user", None)
        try:
            login = reverse("admin:login")
        except NoReverseMatch:
            raise PermissionDenied from None
        if user is None or user.is_authenticated:
            raise PermissionDenied
        return redirect_to_login(request.get_full_path(), login)

    return require_safe(guard)


def may_look(request: HttpRequest) -> bool:
    """With DEBUG everybody; else the staff who may read what emails say."""
    user = getattr(request, "user", None)
    if conf.debug():
        return True
    return user is not None and user.is_active and user.is_staff and user.has_perm("celery_mailer.read_email")


@for_developers
def index(request: HttpRequest) -> HttpResponse:
    return _page(request, request.GET.get("current", ""))


@for_developers
def message(request: HttpRequest, pk: UUID) -> HttpResponse:
    captured, language = _captured(pk), request.GET.get("language", "")
    context: dict[str, Any] = {"captured": captured, "language": language, "languages": languages(captured)}
    if captured.email is not None:
        context["timeline"] = timeline(captured.email)
    try:
        context |= _shown(seen(captured, language))
    except Hidden as hidden:
        context["hidden"] = hidden.why
    return _page(request, str(pk), **context)


def _shown(found: Seen) -> dict[str, Any]:
    html = found.html or ""
    return {
        "seen": found,
        "has_html": found.html is not None,
        "own_dark": "prefers-color-scheme" in html,
        "blocked": remote_images(html),
        "links": links(found),
        "files": files(found.message),
    }


@for_developers
def html(request: HttpRequest, pk: UUID) -> HttpResponse:
    """The HTML for a frame: nothing in it runs, nothing is fetched."""
    try:
        found = seen(_captured(pk), request.GET.get("language", "")).html
    except Hidden as hidden:
        raise Http404(hidden.why) from hidden
    if found is None:
        raise Http404
    return guarded(HttpResponse(found))


@for_developers
def source(request: HttpRequest, pk: UUID) -> HttpResponseBase:
    """The message as it would go over the wire (RFC 5322): as text, or as a file."""
    captured = _captured(pk)
    if "download" not in request.GET:
        text = bytes(captured.raw).decode(errors="replace")
        return guarded(HttpResponse(text, content_type="text/plain; charset=utf-8"))
    return _saved(BytesIO(bytes(captured.raw)), f"{pk}.eml")


@for_developers
def file(request: HttpRequest, pk: UUID, number: int) -> HttpResponseBase:
    """A file of the message, to be saved and never to be opened by the browser."""
    found: dict[int, File] = {f.number: f for f in files(seen(_captured(pk)).message)}
    if number not in found:
        raise Http404
    return _saved(BytesIO(found[number].data), found[number].name or f"file-{number}")


def _saved(data: BytesIO, name: str) -> HttpResponseBase:
    response = FileResponse(data, as_attachment=True, filename=name, content_type="application/octet-stream")
    return guarded(response)


def _captured(pk: UUID) -> CapturedMessage:
    rows = CapturedMessage.objects.select_related("email__content", "email__rendered")
    captured: CapturedMessage = get_object_or_404(rows, pk=pk)
    return captured


def _page(request: HttpRequest, current: str, **context: Any) -> HttpResponse:
    newest = CapturedMessage.objects.defer("raw").order_by("-pk")[:SHOWN]
    context |= {"newest": list(newest), "current": current, "bound": SHOWN}
    response = render(request, "celery_mailer/inbox/page.html", context)
    response["Cache-Control"] = "private, no-store"
    return response
