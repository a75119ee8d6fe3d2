"""How a recipient leaves a stream: by one click in the mail client (RFC 8058), or on a page.

No login, no cookie, no CSRF token: the token of the mail is the authority (RFC 8058, section 3.1). A GET
changes nothing, for scanners follow every link. Unlike opens and clicks, what is asked for is written before
it is answered: it holds at once, also for mail that waits.
"""

from collections.abc import Iterable
from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods

from celery_mailer import conf, tokens
from celery_mailer.models import Email, Suppression
from celery_mailer.models.suppression import Entry, digest_of, in_force, release, suppress
from celery_mailer.tokens import Purpose, Subscription, read_subscription
from celery_mailer.tracking.events import Happening, record
from celery_mailer.tracking.views import PRIVATE, nothing_here, public
from celery_mailer.values import EventKind, SuppressionReason

ONE_CLICK = ("List-Unsubscribe", "One-Click")  # RFC 8058, section 3.1


@public
@csrf_exempt
@require_http_methods(["GET", "HEAD", "POST"])
def unsubscribe(request: HttpRequest, token: str) -> HttpResponse:
    """A page with a button; the button, and the mail client, POST."""
    subscription = read_subscription(Purpose.UNSUBSCRIBE, token)
    if subscription is None:
        return nothing_here()
    name, value = ONE_CLICK
    done = request.method == "POST" and request.POST.get(name) == value
    if done:
        leave(subscription, [subscription.stream])
    return _page(request, "unsubscribe", {"done": done, **_words(subscription)})


@public
@csrf_exempt
@require_http_methods(["GET", "HEAD", "POST"])
def preferences(request: HttpRequest, token: str) -> HttpResponse:
    """A page with a checkbox for each stream that one can leave."""
    subscription = read_subscription(Purpose.PREFERENCES, token)
    if subscription is None:
        return nothing_here()
    streams = [name for name, stream in conf.get().streams.items() if stream.unsubscribe]
    done = request.method == "POST"
    if done:
        wanted = set(request.POST.getlist("stream"))
        leave(subscription, [name for name in streams if name not in wanted])
        come_back(subscription, [name for name in streams if name in wanted])
    left = _left(subscription)
    rows = [{"name": name, "label": label(name), "checked": name not in left} for name in streams]
    return _page(request, "preferences", {"done": done, "streams": rows})


def unsubscribe_by_mail(subject: str) -> bool:
    """What a mail to the ``mailto:`` address of List-Unsubscribe asks for (RFC 2369, section 3.2).

    The token is its subject, perhaps on several lines. Returns whether it was one.
    """
    subscription = read_subscription(Purpose.UNSUBSCRIBE, "".join(subject.split()))
    if subscription is not None:
        leave(subscription, [subscription.stream])
    return subscription is not None


def leave(subscription: Subscription, streams: Iterable[str]) -> None:
    """Suppress the address of ``subscription`` in ``streams``, at once and also for what waits.

    It is told as an event once, until the recipient has come back.
    """
    email = Email.objects.filter(pk=subscription.email_id).first()
    recipients = email.recipients if email else []
    known = [*recipients, *(conf.get().override_recipients or ())]
    # Gone, or erased: then the digest of the address has to do.
    address = next((a for a in known if digest_of(a) == subscription.digest), "")
    entries = [
        Entry(address, SuppressionReason.UNSUBSCRIBE, stream, email_id=email.pk if email else None)
        if address
        else Entry("", SuppressionReason.UNSUBSCRIBE, stream, digest=subscription.digest)
        for stream in streams
    ]
    suppress(entries)
    if email is None or address not in recipients or all(entry.stream != email.stream for entry in entries):
        return
    opt_out = _opt_outs(subscription).filter(stream=email.stream).first()
    if opt_out is not None:
        # Known by its suppression, so that what is asked for twice is told once.
        event_id = str(opt_out.pk)
        record([Happening(EventKind.UNSUBSCRIBED, timezone.now(), address, email.pk, event_id=event_id)])


def come_back(subscription: Subscription, streams: Iterable[str]) -> None:
    """End what the recipient has asked for; what bounces or complaints have suppressed stays so."""
    ids = _opt_outs(subscription).filter(stream__in=list(streams)).values_list("pk", flat=True)
    release(list(ids), by="", note="the recipient, on the preference page")


def _left(subscription: Subscription) -> set[str]:
    return set(_opt_outs(subscription).filter(in_force(timezone.now())).values_list("stream", flat=True))


def _opt_outs(subscription: Subscription) -> "QuerySet[Suppression]":
    """Those of the recipient, also one that was imported with an end and has ended; one a stream at most."""
    reason = SuppressionReason.UNSUBSCRIBE
    return Suppression.objects.filter(digest=subscription.digest, reason=reason, active=True)


def label(stream: str) -> str:
    """The name of a stream, for people."""
    return stream.replace("_", " ").replace("-", " ").capitalize()


def _words(subscription: Subscription) -> dict[str, Any]:
    token = tokens.sign(Purpose.PREFERENCES, tokens.pack_subscription(subscription))
    return {"label": label(subscription.stream), "preferences": token}


def _page(request: HttpRequest, name: str, context: dict[str, Any]) -> HttpResponse:
    response = render(request, f"celery_mailer/{name}.html", context)
    for header, value in PRIVATE.items():
        response.headers[header] = value
    return response
