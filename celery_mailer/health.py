"""Whether mail is taken, for load balancers; and whether it leaves in time, for monitors that ask so.

Public and cheap: one query that reads one row. It knows nothing of the broker and the workers on purpose:
without them mail is still taken, and a web host that is taken out of service for them helps nobody.
"""

from functools import lru_cache
from time import monotonic
from typing import Any

from django.contrib.auth.decorators import login_not_required
from django.db import Error, transaction
from django.http import HttpRequest, JsonResponse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from celery_mailer import census
from celery_mailer.models import Email

FRESH = 5  # seconds for which an answer about waiting mail stands: it may cost more than a row


@login_not_required
@never_cache
@require_safe
@transaction.non_atomic_requests  # else a database that is away would end it before it begins
def health(request: HttpRequest) -> JsonResponse:
    """200 if mail is taken, else 503.

    With ``?max_wait=SECONDS`` also 503 if mail of a lane has waited for longer, and 400 if that is no number.
    """
    try:
        longest = float(request.GET.get("max_wait", "inf"))
    except ValueError:
        return JsonResponse({"status": "max_wait is not a number of seconds"}, status=400)
    try:
        list(Email.objects.values_list("pk", flat=True)[:1])
        late = [lane for lane, age in _ages().items() if age > longest] if "max_wait" in request.GET else []
    except Error:
        return JsonResponse({"status": "the database cannot be read"}, status=503)
    answer: dict[str, Any] = {"status": "late", "lanes": late} if late else {"status": "ok"}
    return JsonResponse(answer, status=503 if late else 200)


def _ages() -> dict[str, float]:
    return _ages_at(int(monotonic() / FRESH))


@lru_cache(maxsize=1)
def _ages_at(moment: int) -> dict[str, float]:
    return census.oldest_due(timezone.now())
