"""Where the mail that comes back lies: a message at a time from a mail server's pipe, or in a mailbox."""

import mailbox
from collections.abc import Iterator
from contextlib import closing
from email import message_from_bytes
from pathlib import Path

from celery_mailer.tracking.bounce_mail import read
from celery_mailer.tracking.events import record
from celery_mailer.tracking.mail_parts import header
from celery_mailer.tracking.unsubscribe import unsubscribe_by_mail

SEEN = "S"


def take(raw: bytes) -> int:
    """Record what the mail ``raw`` says of ours, or do what it asks for; returns how many events were new.

    It may bring something back, or come to the ``mailto:`` address of List-Unsubscribe.
    """
    happenings = read(raw)
    if happenings:
        return record(happenings)
    return int(unsubscribe_by_mail(header(message_from_bytes(raw), "Subject")))


def take_maildir(path: Path) -> dict[str, int]:
    """Record what the new messages of a Maildir say; each then counts as seen. Returns counts.

    Raises ``mailbox.NoSuchMailboxError``. What raises on the way leaves its message new, to be taken again.
    """
    counts = {"messages": 0, "events": 0}
    with closing(mailbox.Maildir(path, create=False)) as box:
        for key in list(box.iterkeys()):
            # Not as a message: one that does not parse is taken as its bytes, too.
            message = box.get_message(key)
            if message.get_subdir() != "new":
                continue
            counts["events"] += take(box.get_bytes(key))
            counts["messages"] += 1
            message.set_subdir("cur")
            message.add_flag(SEEN)
            box[key] = message
    return counts


def take_mbox(path: Path) -> dict[str, int]:
    """The same for the messages of an mbox file that were not read yet; it is locked meanwhile."""
    counts = {"messages": 0, "events": 0}
    with closing(mailbox.mbox(path, create=False)) as box:
        box.lock()
        try:
            for key in _unread(box):
                counts["events"] += take(box.get_bytes(key))
                counts["messages"] += 1
                message = box[key]
                message.set_flags("RO")
                box[key] = message
        finally:
            box.flush()
            box.unlock()
    return counts


def _unread(box: mailbox.mbox) -> Iterator[str]:
    for key in list(box.iterkeys()):
        if "R" not in box[key].get_flags():
            yield key
