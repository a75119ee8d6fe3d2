"""The typed words on rows as people read them."""

from collections.abc import Mapping
from typing import Any

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from celery_mailer.values import Bounce, EventKind, Kind, Outcome, Phase, Priority, Status, SuppressionReason

STATUSES = {
    Status.QUEUED: _("queued"),
    Status.SENDING: _("sending"),
    Status.DEFERRED: _("deferred"),
    Status.UNCERTAIN: _("uncertain"),
    Status.SENT: _("sent"),
    Status.FAILED: _("failed"),
    Status.EXPIRED: _("expired"),
    Status.SUPPRESSED: _("suppressed"),
    Status.CANCELLED: _("cancelled"),
}

LANES = {
    Priority.NOW: _("now"),
    Priority.HIGH: _("high"),
    Priority.MEDIUM: _("medium"),
    Priority.LOW: _("low"),
}

OUTCOMES = {
    Outcome.ACCEPTED: _("accepted"),
    Outcome.DEFERRED: _("deferred"),
    Outcome.REJECTED: _("rejected"),
    Outcome.UNCERTAIN: _("uncertain"),
}

PHASES = {
    Phase.CONNECT: _("while connecting"),
    Phase.LOGIN: _("at the login"),
    Phase.MAIL: _("at the sender"),
    Phase.RCPT: _("at the recipient"),
    Phase.DATA: _("before the message"),
    Phase.BODY: _("while the message was sent"),
    Phase.DOT: _("after the message was sent"),
}

BREAKERS = {
    "closed": _("in use"),
    "open": _("left alone"),
    "half_open": _("on trial"),
    "paused": _("paused"),
}

LIMITS = {
    "daily quota": _("daily quota"),
    "connections": _("connections"),
    "throttle": _("asked to be left alone"),
}

# Why: kinds of failure, and the other reasons that moves are made for.
REASONS: dict[str, str | Promise] = {
    Kind.CONNECTION: _("the provider could not be reached, or the line broke"),
    Kind.TEMPORARY: _("the provider asks to try again later"),
    Kind.PROVIDER: _("the provider refuses us, whatever the email"),
    Kind.THROTTLED: _("too fast for the provider, or over its quota"),
    Kind.SENDER: _("the provider refuses the sender"),
    Kind.RECIPIENT: _("the provider refuses the recipient"),
    Kind.CONTENT: _("the provider refuses the message"),
    Kind.MESSAGE: _("the message could not be built"),
    Kind.NO_ANSWER: _("the line broke before the provider said whether it has it"),
    Kind.WORKER_LOST: _("the worker vanished"),
    "by_hand": _("by hand"),
    "event": _("the provider, or the recipient, says so"),
    "expired": _("its time to be sent by came first"),
    "import": _("found so in django-post_office"),
    "gave_up": _("tried as often, or for as long, as the rules allow"),
    "no_recipients": _("there is nobody to send it to"),
    "partly_given_up": _("some recipients have it; for the others it was given up"),
    "partly_rejected": _("some recipients have it; others were refused"),
    "paused": _("paused"),
    "provider_open": _("the provider kept failing, and is left alone for a while"),
    "quiet_hours": _("its stream is quiet at this hour"),
    "render": _("it could not be rendered"),
    "suppressed": _("suppressed"),
    SuppressionReason.HARD_BOUNCE: _("there is no such address"),
    SuppressionReason.SOFT_BOUNCE: _("mail to the address came back, time and again"),
    SuppressionReason.COMPLAINT: _("the recipient called our mail spam"),
    SuppressionReason.UNSUBSCRIBE: _("the recipient wants no such mail"),
    SuppressionReason.MANUAL: _("suppressed by hand"),
    SuppressionReason.IMPORTED: _("suppressed by an import"),
    "trial": _("one mail may try"),
    "trial_lost": _("the worker that tried vanished, and another may"),
    "trial_ok": _("a mail got through"),
    "trial_unused": _("no mail was handed over"),
}

# What was decided, by the move's name in ``models.transitions``.
DECISIONS: dict[str, str | Promise] = {
    "postpone": _("Postponed: the provider could not be used"),
    "defer": _("To be tried again"),
    "defer_free": _("To be tried again; this attempt does not count"),
    "reject": _("Failed"),
    "doubt": _("Uncertain: a provider may have it"),
    "resend": _("To be sent again, though a provider may have it"),
    "broken": _("Failed before any attempt"),
    "expire": _("Expired"),
    "suppress": _("Suppressed: nobody is left who may be written to"),
    "leave_out": _("Some recipients are left out: they must not be written to"),
    "throttle": _("Put off: a limit is reached"),
    "hold": _("Put off: it may not be sent now"),
    "requeue": _("Taken back from a worker that vanished"),
    "retry": _("To be sent now"),
    "confirm": _("Found to be sent"),
    "taken": _("Found to be sent"),
    "give_up": _("Given up"),
    "cancel": _("Cancelled"),
    "import": _("Taken over from django-post_office"),
}


EVENTS = {
    EventKind.DELIVERED: _("delivered"),
    EventKind.DEFERRED: _("not delivered yet"),
    EventKind.BOUNCED: _("came back"),
    EventKind.COMPLAINED: _("called spam"),
    EventKind.OPENED: _("opened"),
    EventKind.CLICKED: _("clicked"),
    EventKind.UNSUBSCRIBED: _("unsubscribed"),
    EventKind.REJECTED: _("rejected by the provider, which had accepted it"),
}

BOUNCES = {
    Bounce.HARD: _("there is no such address"),
    Bounce.SOFT: _("the address may take mail again"),
}


def said(words: Mapping[Any, str | Promise], word: Any) -> str | Promise:
    """``word`` as people read it; one that is not known here, as it stands."""
    return words.get(word, str(word))
