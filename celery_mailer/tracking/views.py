"""Pixels and tracked links. Neither touches the database: what they see goes to a task.

Whatever token is asked for, each answers in the same way: the pixel with a picture, the link with where it
leads, or that there is nothing here.
"""

from base64 import b64decode
from collections.abc import Callable

from django.contrib.auth.decorators import login_not_required
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseNotFound
from django.utils import timezone
from django.utils.encoding import iri_to_uri
from django.views.decorators.http import require_safe

from celery_mailer.tokens import Mark, Purpose, read_mark
from celery_mailer.tracking.machines import is_machine
from celery_mailer.tracking.visits import visit, waiting
from celery_mailer.values import EventKind

PIXEL = b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")  # 1 x 1, transparent
# Nothing is kept by caches, and the token is not told to the site that the link leads to.
PRIVATE = {
    "Cache-Control": "no-store, private, max-age=0",
    "Referrer-Policy": "no-referrer",
    "X-Robots-Tag": "noindex, nofollow",
}
NOT_FOUND = b"There is nothing here."

View = Callable[[HttpRequest, str], HttpResponse]


def public(view: View) -> View:
    """A view for everybody, without a login and without a transaction, whatever the project's default."""
    return login_not_required(transaction.non_atomic_requests(view))


@public
@require_safe
def open_pixel(request: HttpRequest, token: str) -> HttpResponse:
    """A picture of one transparent pixel."""
    found = read_mark(Purpose.OPEN, token)
    if found is not None:
        _note(request, EventKind.OPENED, found[0])
    return HttpResponse(PIXEL, content_type="image/gif", headers=PRIVATE)


@public
@require_safe
def follow_link(request: HttpRequest, token: str) -> HttpResponse:
    """Lead on to the address inside the token."""
    found = read_mark(Purpose.CLICK, token)
    if found is None:
        return nothing_here()
    mark, target = found
    _note(request, EventKind.CLICKED, mark, target)
    # Not Django's own redirect: it refuses addresses of more than 2,048 characters, which mail has.
    return HttpResponse(status=302, headers={"Location": iri_to_uri(target), **PRIVATE})


def nothing_here() -> HttpResponse:
    return HttpResponseNotFound(NOT_FOUND, content_type="text/plain; charset=utf-8", headers=PRIVATE)


def _note(request: HttpRequest, kind: EventKind, mark: Mark, url: str = "") -> None:
    machine = is_machine(request.META)
    waiting.add(visit(kind, timezone.now(), mark, url, machine))
