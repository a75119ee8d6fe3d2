"""What each ESP says of a bounce, beside the server's words. Anymail does not tell hard from soft.

Some call every final failure hard, also one for policy; so the server's own code, where there is one, comes
before the ESP's word, and its words may take a hard bounce back.
"""

from collections.abc import Callable
from typing import Any

from celery_mailer.log.bounces import NOTHING, classify, enhanced_code_in, speaks_of_the_mail
from celery_mailer.values import Bounce

HARD, SOFT = Bounce.HARD, Bounce.SOFT

# SES and Resend, which sends by SES: by type and subtype, then by type.
SES = {
    "Permanent": HARD,
    "Transient": SOFT,
    "Undetermined": SOFT,
    "MessageTooLarge": NOTHING,
    "ContentRejected": NOTHING,
    "AttachmentRejected": NOTHING,
}
# Mailjet's "error", where its "hard_bounce" does not say it all.
MAILJET_SUBJECTS = {"recipient", "domain", "mailbox inactive"}
SPARKPOST = {"10": HARD, "30": HARD} | dict.fromkeys(("23", "25", "50", "51", "52", "53", "54"), NOTHING)
UNISENDER_GO = {
    "err_user_unknown": HARD,
    "err_user_inactive": HARD,
    "err_domain_inactive": HARD,
    "err_spam_rejected": NOTHING,
    "err_blacklisted": NOTHING,
    "err_too_large": NOTHING,
    "err_spam_skipped": NOTHING,
    "err_unsubscribed": NOTHING,
}


def _ses(told: dict[str, Any]) -> str | None:
    bounce = told.get("bounce", {})
    return SES.get(bounce.get("bounceSubType", ""), SES.get(bounce.get("bounceType", "")))


def _resend(told: dict[str, Any]) -> str | None:
    bounce = told.get("data", {}).get("bounce", {})
    return SES.get(bounce.get("subType", ""), SES.get(bounce.get("type", "")))


def _mailjet(told: dict[str, Any]) -> str | None:
    if told.get("error_related_to", "recipient") not in MAILJET_SUBJECTS:
        return NOTHING
    return HARD if told.get("hard_bounce") else SOFT


def _named(name: str) -> str | None:
    """Of an event or type that has it in its name: ``hard_bounce``, ``HardBounce``, ``soft_bounced``."""
    word = name.lower()
    return HARD if word.startswith("hard") else SOFT if word.startswith("soft") else None


SAID: dict[str, Callable[[Any], str | None]] = {
    "Amazon SES": _ses,
    "Resend": _resend,
    "Mailjet": _mailjet,
    "Brevo": lambda told: HARD if told.get("event") == "invalid_email" else _named(told.get("event", "")),
    "Mandrill": lambda told: _named(told.get("event", "")),
    "MailerSend": lambda told: _named(told.get("data", {}).get("type", "")),
    "Postmark": lambda told: NOTHING if told.get("Type") == "VirusNotification" else _named(told["Type"]),
    "SendGrid": lambda told: NOTHING if told.get("type") == "blocked" else HARD,
    "SparkPost": lambda told: SPARKPOST.get(next(iter(told["msys"].values())).get("bounce_class"), SOFT),
    "Unisender Go": lambda told: UNISENDER_GO.get(told.get("delivery_info", {}).get("delivery_status"), SOFT),
    "Mailtrap": lambda told: HARD,  # its soft bounces are "deferred" to Anymail
}


def bounce_of(event: Any, esp_name: str) -> str:
    """``Bounce.HARD``, ``Bounce.SOFT`` or nothing, for an ``AnymailTrackingEvent`` that is a bounce."""
    words = event.mta_response or ""
    said = SAID[esp_name](event.esp_event) if esp_name in SAID else None
    if enhanced_code_in(words) or said is None:
        return classify(None, "", words or event.description or "")
    return NOTHING if speaks_of_the_mail(words) else said
