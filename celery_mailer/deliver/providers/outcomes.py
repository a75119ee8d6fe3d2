"""What the outside world says, normalised: one table for SMTP replies, one for exceptions.

The rules are RFC 5321's: 4yz may be tried again, 5yz not (section 4.2.1); a reply belongs to the command
it answers (section 4.3.2); after the final dot, silence leaves the message's fate open (section 4.5.3.2.6).
"""

import json
import re
import smtplib
import socket
import ssl
from functools import lru_cache

from celery_mailer.values import Kind, Outcome, Phase, Reply

# (phase, first digit of the reply) -> outcome and kind.
SMTP_REPLIES: dict[tuple[Phase, int], tuple[Outcome, Kind]] = {
    (Phase.CONNECT, 4): (Outcome.DEFERRED, Kind.CONNECTION),
    (Phase.CONNECT, 5): (Outcome.DEFERRED, Kind.PROVIDER),
    (Phase.LOGIN, 4): (Outcome.DEFERRED, Kind.CONNECTION),
    (Phase.LOGIN, 5): (Outcome.DEFERRED, Kind.PROVIDER),
    (Phase.MAIL, 2): (Outcome.ACCEPTED, Kind.NONE),
    (Phase.MAIL, 4): (Outcome.DEFERRED, Kind.TEMPORARY),
    (Phase.MAIL, 5): (Outcome.REJECTED, Kind.SENDER),
    (Phase.RCPT, 2): (Outcome.ACCEPTED, Kind.NONE),
    (Phase.RCPT, 4): (Outcome.DEFERRED, Kind.TEMPORARY),
    (Phase.RCPT, 5): (Outcome.REJECTED, Kind.RECIPIENT),
    (Phase.DATA, 4): (Outcome.DEFERRED, Kind.TEMPORARY),
    (Phase.DATA, 5): (Outcome.REJECTED, Kind.CONTENT),
    (Phase.BODY, 4): (Outcome.DEFERRED, Kind.TEMPORARY),
    (Phase.BODY, 5): (Outcome.REJECTED, Kind.CONTENT),
    (Phase.DOT, 2): (Outcome.ACCEPTED, Kind.NONE),
    (Phase.DOT, 4): (Outcome.DEFERRED, Kind.TEMPORARY),
    (Phase.DOT, 5): (Outcome.REJECTED, Kind.CONTENT),
}

# Replies about the session, whatever command they answer: the service is closing (RFC 5321, section 3.8),
# or it wants, or refuses, authentication (RFC 4954, section 6). They say nothing against the email.
SMTP_SESSION_CODES: dict[int, Kind] = {
    421: Kind.CONNECTION,
    530: Kind.PROVIDER,
    534: Kind.PROVIDER,
    535: Kind.PROVIDER,
    538: Kind.PROVIDER,
}


# "Message too large", also of a single recipient's limit (RFC 3463, sections 3.3 and 3.4: X.2.3, X.3.4). In
# answer to MAIL with SIZE, a plain 552 means it too (RFC 1870, section 6.1). It is not the address's fault.
_TOO_LARGE = re.compile(r"5\.(2\.3|3\.4)\b")


def _is_too_large(phase: Phase, code: int, words: str) -> bool:
    if code // 100 != 5 or phase not in (Phase.MAIL, Phase.RCPT):
        return False
    return _TOO_LARGE.match(words) is not None or (code == 552 and phase == Phase.MAIL)


@lru_cache(maxsize=128)  # most replies of a server are the same again and again, but for those to the dot
def smtp_reply(phase: Phase, code: int, text: bytes | str) -> Reply:
    """The reply ``code`` to the command of ``phase``; ``text`` is shortened to 500 characters.

    A reply that fits no rule (a 250 to DATA, a garbled line) counts as a broken line, and has no code.
    """
    words = storable(text.decode("utf-8", "replace") if isinstance(text, bytes) else text)
    if code in SMTP_SESSION_CODES:
        return Reply(Outcome.DEFERRED, SMTP_SESSION_CODES[code], phase, code, words)
    if _is_too_large(phase, code, words):
        return Reply(Outcome.REJECTED, Kind.CONTENT, phase, code, words)
    if (phase, code // 100) in SMTP_REPLIES:
        outcome, kind = SMTP_REPLIES[phase, code // 100]
        return Reply(outcome, kind, phase, code, words)
    return broken_line(phase, f"unexpected reply {code}: {words}")


def broken_line(phase: Phase, text: str) -> Reply:
    """The connection ended, fell silent or made no sense while in ``phase``."""
    if phase == Phase.DOT:
        return Reply(Outcome.UNCERTAIN, Kind.NO_ANSWER, phase, text=storable(text))
    return Reply(Outcome.DEFERRED, Kind.CONNECTION, phase, text=storable(text))


# STARTTLS or AUTH is missing, both know no common way to log in, the certificate is not to be trusted.
_MENDED_BY_A_PERSON = (smtplib.SMTPException, ssl.SSLCertVerificationError)


def opening_exception(error: Exception) -> Reply:
    """What was raised while a session was opened: nothing was handed over, so there is never a doubt."""
    if isinstance(error, smtplib.SMTPAuthenticationError):
        return smtp_reply(Phase.LOGIN, error.smtp_code, error.smtp_error)
    if isinstance(error, smtplib.SMTPResponseException):
        return smtp_reply(Phase.CONNECT, error.smtp_code, error.smtp_error)
    by_line = isinstance(error, OSError) and not isinstance(error, _MENDED_BY_A_PERSON)
    if by_line or isinstance(error, smtplib.SMTPServerDisconnected):
        return broken_line(Phase.CONNECT, error_words(error))
    return Reply(Outcome.DEFERRED, Kind.PROVIDER, Phase.CONNECT, text=error_words(error))


_BEFORE_THE_HANDOVER = (
    smtplib.SMTPConnectError,
    smtplib.SMTPHeloError,
    smtplib.SMTPAuthenticationError,
    smtplib.SMTPNotSupportedError,
    ssl.SSLCertVerificationError,
    ConnectionRefusedError,
    socket.gaierror,
)
# ValueErrors too, but they say nothing against the message: by then it may have been taken.
_WHILE_READING_THE_ANSWER = (OSError, json.JSONDecodeError, UnicodeDecodeError)


def backend_exception(error: Exception) -> Reply:
    """What any Django email backend raised from ``send_messages``.

    Such a backend does not say how far it came, so what is not known to have failed before the
    hand-over is uncertain.
    """
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        codes = [code for code, _ in error.recipients.values()] or [550]
        worst = max(codes, key=lambda code: code // 100 == 4)
        return _refusal(Phase.RCPT, worst, "recipients refused")
    if isinstance(error, smtplib.SMTPSenderRefused):
        return _refusal(Phase.MAIL, error.smtp_code, error.smtp_error)
    if isinstance(error, smtplib.SMTPDataError):
        return _refusal(Phase.DOT, error.smtp_code, error.smtp_error)
    if isinstance(error, _BEFORE_THE_HANDOVER):
        return opening_exception(error)
    if isinstance(error, ValueError) and not isinstance(error, _WHILE_READING_THE_ANSWER):
        return Reply(Outcome.REJECTED, Kind.MESSAGE, text=error_words(error))
    return Reply(Outcome.UNCERTAIN, Kind.NO_ANSWER, text=type(error).__name__)


def _refusal(phase: Phase, code: int, text: bytes | str) -> Reply:
    # smtplib raises for every reply but the one it expects, so also for a 252: that is no acceptance.
    reply = smtp_reply(phase, code, text)
    return broken_line(phase, f"{code}: {reply.text}") if reply.outcome == Outcome.ACCEPTED else reply


def error_words(error: Exception) -> str:
    """The text of an error, if it is of a kind that names hosts, protocol faults or the message's own.

    Of others only the type: they may carry a whole request with its API key.
    """
    if isinstance(error, OSError):
        told = type(error).__module__ in {"builtins", "smtplib", "socket", "ssl"}
    else:
        told = isinstance(error, ValueError | OverflowError)
    return storable(f"{type(error).__name__}: {error}") if told else type(error).__name__


def storable(text: str) -> str:
    """The first 500 characters of ``text``, without what a database refuses: NUL, lone surrogates."""
    return text[:500].replace("\0", "\ufffd").encode("utf-8", "replace").decode()
