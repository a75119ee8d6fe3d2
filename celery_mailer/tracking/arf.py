"""Complaints: feedback reports (RFC 5965), and the plain forwards of Microsoft's programme."""

from email.message import Message
from email.utils import parseaddr

from celery_mailer.tracking.mail_parts import Said, enclosed, first, header, parts
from celery_mailer.values import EventKind

# RFC 5965, section 7.3. "not-spam" takes one back; "auth-failure" (RFC 6591) is about the domain.
TYPES = {
    "abuse": EventKind.COMPLAINED,
    "fraud": EventKind.COMPLAINED,
    "virus": EventKind.COMPLAINED,
    "other": EventKind.COMPLAINED,
    "opt-out": EventKind.UNSUBSCRIBED,
    "opt-out-list": EventKind.UNSUBSCRIBED,
}
RECIPIENT_FIELDS = ("Original-Rcpt-To", "Removal-Recipient")
MICROSOFTS = "X-HmXmrOriginalRecipient"  # a header of what its Junk Mail Reporting Program returns


def read(mail: Message) -> list[Said]:
    """The complaint that ``mail`` is; the recipient is often left out, to be known by the email returned."""
    report = first(mail, "message/feedback-report")
    if report is None:
        return _forwarded_by_microsoft(mail)
    fields = enclosed(report)
    kind = TYPES.get(header(fields, "Feedback-Type").lower())
    if kind is None:
        return []
    recipient = next((a for name in RECIPIENT_FIELDS if (a := _address(header(fields, name)))), "")
    by = header(fields, "Source") or header(fields, "User-Agent").partition("/")[0]
    return [Said(kind, recipient, by, text=header(fields, "Feedback-Type"))]


def _forwarded_by_microsoft(mail: Message) -> list[Said]:
    for part in parts(mail):
        if part is not mail and MICROSOFTS in part:
            return [Said(EventKind.COMPLAINED, _address(header(part, MICROSOFTS)), "Microsoft")]
    return []


def _address(field: str) -> str:
    spec = parseaddr(field.rpartition(";")[2].strip())[1]
    return spec if "@" in spec else ""
