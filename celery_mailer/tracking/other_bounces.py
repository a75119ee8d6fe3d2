"""Bounces in forms that only flufl.bounce knows, Mailman's reader of them; with the extra ``bounce``.

It is asked last, and only about what a mail server wrote: some of its detectors also see a bounce in a
person's reply.
"""

from email.message import Message

from celery_mailer.tracking import dsn
from celery_mailer.tracking.mail_parts import MOST_RECIPIENTS, Said, first
from celery_mailer.tracking.plain_bounces import is_from_daemon, said_of

# What has one of these says in it what it is: if our readers found nothing there, there is nothing.
REPORTS = (*dsn.TYPES, "message/feedback-report")


def read(mail: Message) -> list[Said]:
    """What flufl.bounce finds; nothing, where it is not installed."""
    if not is_from_daemon(mail) or first(mail, *REPORTS) is not None:
        return []
    try:
        from flufl.bounce import all_failures
    except ImportError:
        return []
    try:
        temporary, permanent = all_failures(mail)
    except Exception:  # a detector stumbled, and it is only a second opinion
        return []
    return [
        said_of(mail, address.decode("ascii", "replace"), delayed=address not in permanent)
        for address in sorted(temporary | permanent)[:MOST_RECIPIENTS]
    ]
