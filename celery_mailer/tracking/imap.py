"""An IMAP mailbox (RFC 9051) to which bounces come: reads what nobody has seen, and marks it as seen.

A message is marked after what it says is stored. If the line breaks in between, it is read again, and its
events are known by then.
"""

import imaplib
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from celery_mailer.imap_url import Mailbox
from celery_mailer.tracking.mailboxes import counted, take_if_readable

MOST = 500  # messages in a run; the next goes on with the rest
LARGEST = 2**20  # bytes of a message that are read: what a report returns comes last in it
PATIENCE = 30.0  # seconds to connect, and for each answer

SEEN, TROUBLESOME = r"(\Seen)", r"(\Seen \Flagged)"


class Unusable(Exception):
    """The mailbox cannot be read; the message says why, without the login."""


def take_imap(mailbox: Mailbox) -> dict[str, int]:
    """Record what up to ``MOST`` unseen messages say. Returns counts.

    A message that cannot be read is flagged, for a person, and not read again.
    Raises ``Unusable``, and Django's ``OperationalError`` or ``InterfaceError``; the message stays unseen.
    """
    counts = {"messages": 0, "events": 0, "flagged": 0}
    with _opened(mailbox) as box:
        for uid in _unseen(box)[:MOST]:
            raw = _fetched(box, uid)
            if raw is None:  # somebody has deleted it
                continue
            flags = SEEN if counted(take_if_readable(raw), counts) else TROUBLESOME
            _answer(box.uid("STORE", uid, "+FLAGS.SILENT", flags))
    return counts


@contextmanager
def _opened(mailbox: Mailbox) -> Iterator[imaplib.IMAP4]:
    try:
        box = _connected(mailbox)
        try:
            _log_in(box, mailbox)
            folder = mailbox.folder.replace("\\", r"\\").replace('"', r"\"")
            _answer(box.select(f'"{folder}"'))
            yield box
        finally:
            # Not CLOSE, which would delete for good what somebody else has marked for it.
            with suppress(imaplib.IMAP4.error, OSError):
                box.logout()
            _hang_up(box)  # which LOGOUT leaves undone where the line is broken
    except (imaplib.IMAP4.error, OSError) as error:
        raise Unusable(f"{type(error).__name__}: {error}") from error


def _connected(mailbox: Mailbox) -> imaplib.IMAP4:
    tls = ssl.create_default_context()  # imaplib's own would take any certificate
    if mailbox.security == "tls":
        return imaplib.IMAP4_SSL(mailbox.host, mailbox.port, ssl_context=tls, timeout=PATIENCE)
    box = imaplib.IMAP4(mailbox.host, mailbox.port, timeout=PATIENCE)
    if mailbox.security == "starttls":
        try:
            box.starttls(tls)
        except BaseException:
            _hang_up(box)
            raise
    return box


def _hang_up(box: imaplib.IMAP4) -> None:
    with suppress(OSError):
        box.shutdown()


def _log_in(box: imaplib.IMAP4, mailbox: Mailbox) -> None:
    """Log in. What the server answers to a wrong login may repeat it, and is not told."""
    try:
        if "AUTH=PLAIN" in box.capabilities:  # RFC 4616: in UTF-8, and nothing needs quotes
            box.authenticate("PLAIN", lambda _: f"\0{mailbox.user}\0{mailbox.password}".encode())
        else:
            box.login(mailbox.user, mailbox.password)
    except imaplib.IMAP4.abort:
        raise
    except (imaplib.IMAP4.error, UnicodeError):
        raise Unusable("the server refused the login") from None


def _unseen(box: imaplib.IMAP4) -> list[str]:
    (found,) = _answer(box.uid("SEARCH", "UNSEEN"))[-1:] or [b""]
    return (found or b"").decode("ascii", "replace").split()


def _fetched(box: imaplib.IMAP4, uid: str) -> bytes | None:
    """The beginning of a message, which does not mark it as seen."""
    answer = _answer(box.uid("FETCH", uid, f"(BODY.PEEK[]<0.{LARGEST}>)"))
    return next((part[1] for part in answer if isinstance(part, tuple)), None)


def _answer(answer: tuple[str, list[Any]]) -> list[Any]:
    status, data = answer
    if status != "OK":
        raise Unusable(f"the server said {status} {data[-1]!r}")
    return data
