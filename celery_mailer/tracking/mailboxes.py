"""Where the mail that comes back lies: a message at a time from a mail server's pipe, or in a mailbox.

Anybody can send to it, also what no parser gets through. Such a message is flagged for a person, and the
others are read.
"""

import mailbox
import re
from contextlib import closing
from email import message_from_bytes
from pathlib import Path

from django.db import InterfaceError, OperationalError

from celery_mailer import logs
from celery_mailer.tracking.bounce_mail import read
from celery_mailer.tracking.events import record
from celery_mailer.tracking.mail_parts import header
from celery_mailer.tracking.unsubscribe import unsubscribe_by_mail

SEEN, TROUBLESOME = "S", "FS"  # what a Maildir calls them
# An mbox has them as headers: "R" for read, "O" for old, "F" for flagged.
MBOX_SEEN, MBOX_TROUBLESOME = b"Status: RO\n", b"Status: RO\nX-Status: F\n"
END_OF_HEADERS = re.compile(rb"\r?\n\r?\n")
STATUS = re.compile(rb"^(?:X-)?Status:(.*)\n?", re.IGNORECASE | re.MULTILINE)


def take(raw: bytes) -> int:
    """Record what the mail ``raw`` says of ours, or do what it asks for; returns how many events were new.

    It may bring something back, or come to the ``mailto:`` address of List-Unsubscribe.
    """
    happenings = read(raw)
    if happenings:
        return record(happenings)
    return int(unsubscribe_by_mail(header(message_from_bytes(raw), "Subject")))


def take_if_readable(raw: bytes) -> int | None:
    """The same; None, and a line in the log, where that fails and would fail again.

    Raises Django's ``OperationalError`` or ``InterfaceError``: the message is to be taken again.
    """
    try:
        return take(raw)
    except (OperationalError, InterfaceError):
        raise
    except Exception as error:
        logs.bounce_not_read(error)
        return None


def take_maildir(path: Path) -> dict[str, int]:
    """Record what the new messages of a Maildir say; each then counts as seen. Returns counts.

    A message that cannot be read is flagged as well. Raises ``mailbox.NoSuchMailboxError``, and what
    ``take_if_readable`` raises; the message stays new.
    """
    counts = {"messages": 0, "events": 0, "flagged": 0}
    mailbox.Maildir(path, create=False).close()
    # Files, not the module's messages: it parses one to give it a flag.
    for file in sorted((path / "new").iterdir()):
        flags = SEEN if counted(take_if_readable(file.read_bytes()), counts) else TROUBLESOME
        file.rename(path / "cur" / f"{file.name.partition(':')[0]}:2,{flags}")
    return counts


def take_mbox(path: Path) -> dict[str, int]:
    """The same for the messages of an mbox file that were not read yet; it is locked meanwhile."""
    counts = {"messages": 0, "events": 0, "flagged": 0}
    with closing(mailbox.mbox(path, create=False)) as box:
        box.lock()
        try:
            for key in list(box.iterkeys()):
                from_line, _, raw = box.get_bytes(key, from_=True).partition(b"\n")
                headers, body = _split(raw)
                if any(b"R" in flags for flags in STATUS.findall(headers)):
                    continue
                flags = MBOX_SEEN if counted(take_if_readable(raw), counts) else MBOX_TROUBLESOME
                box[key] = from_line + b"\n" + flags + STATUS.sub(b"", headers) + body
        finally:
            box.flush()
            box.unlock()
    return counts


def _split(raw: bytes) -> tuple[bytes, bytes]:
    """The headers, and the rest."""
    end = END_OF_HEADERS.search(raw)
    at = end.start() if end else len(raw)
    return raw[:at], raw[at:]


def counted(taken: int | None, counts: dict[str, int]) -> bool:
    """Count a message in ``counts``; returns whether it could be read."""
    counts["messages"] += 1
    counts["events"] += taken or 0
    counts["flagged"] += taken is None
    return taken is not None
