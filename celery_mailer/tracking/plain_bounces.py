"""Bounces as text alone: qmail's, Exim's older ones, and those of servers that never heard of RFC 3464."""

import re
from email.message import Message
from email.utils import getaddresses, parseaddr

from celery_mailer.log.bounces import classify, enhanced_code_in, reply_code_in
from celery_mailer.tracking.mail_parts import MOST_RECIPIENTS, Said, header, parts, text_of
from celery_mailer.values import EventKind

DAEMONS = re.compile(
    r"mailer-?daemon|postmaster|mail delivery (sub)?system|mail\.daemon|^mdaemon|^daemon$|^mailerdaemon",
    re.IGNORECASE,
)
FAILURE = re.compile(
    r"(un|not |n't |never )(be )?(able to )?(be )?deliver|undelivered|could not be|couldn't be"
    r"|(delivery|message|mail|transmission).{0,40}(fail|error|problem|refus|reject|return|abort)"
    r"|cannot be deliver|failed recipient|did not reach|fatal errors|returned (mail|to sender)"
    r"|permanent error",
    re.IGNORECASE,
)
DELAY = re.compile(
    r"delayed|not yet been delivered|still trying|will (keep|continue) (on )?trying"
    r"|delivery will (continue|be retr)|this is (only )?a warning",
    re.IGNORECASE,
)
# From here on it is our own email that is quoted.
COPY = re.compile(
    r"^(-{2,}.*(copy of|original message|returned message|text follows|message follows|begin message).*"
    r"|(received|return-path|message-id|mime-version): .*)$",
    re.IGNORECASE | re.MULTILINE,
)
ADDRESS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})+")
MOST_WORDS = 12  # lines about a recipient that are read


def read(mail: Message) -> list[Said]:
    """What a bounce without a report says; nothing, if ``mail`` is something else, as a note of absence."""
    named = [spec for _, spec in getaddresses([header(mail, "X-Failed-Recipients")]) if "@" in spec]
    if not named and not is_from_daemon(mail):
        return []
    text = COPY.split(_text(mail), maxsplit=1)[0]
    subject = header(mail, "Subject")
    delayed = bool(DELAY.search(f"{subject}\n{text}"))
    if not named and not delayed and not FAILURE.search(f"{subject}\n{text}"):
        return []
    ours = {_sender(mail).lower(), *(spec.lower() for _, spec in getaddresses([header(mail, "To")]))}
    recipients = named or [a for a in dict.fromkeys(_addresses(text)) if a.lower() not in ours][:1]
    return [said_of(mail, recipient, delayed=delayed) for recipient in recipients[:MOST_RECIPIENTS]]


def is_from_daemon(mail: Message) -> bool:
    """Whether a mail server wrote ``mail``, by its sender."""
    name, sender = parseaddr(header(mail, "From"))
    return bool(DAEMONS.search(sender.partition("@")[0]) or DAEMONS.search(name))


def _sender(mail: Message) -> str:
    return parseaddr(header(mail, "From"))[1]


def said_of(mail: Message, recipient: str, *, delayed: bool) -> Said:
    """What the text of ``mail`` says of ``recipient``, to whom it was not delivered."""
    words, by = words_about(recipient, _text(mail)), _sender(mail).rpartition("@")[2]
    code, enhanced = reply_code_in(words), enhanced_code_in(words)
    if delayed:
        return Said(EventKind.DEFERRED, recipient, by, "", code, enhanced, words)
    return Said(EventKind.BOUNCED, recipient, by, classify(code, enhanced, words), code, enhanced, words)


def _text(mail: Message) -> str:
    """The first text, after which others only quote."""
    return next((text_of(part) for part in parts(mail) if part.get_content_maintype() == "text"), "")


def _addresses(text: str) -> list[str]:
    """Those that stand at the beginning of a line, as recipients do; else any."""
    lines = [line.strip(" \t<'\"") for line in text.splitlines()]
    leading = [found[0] for line in lines if (found := ADDRESS.match(line))]
    return [address.rstrip(".") for address in leading or ADDRESS.findall(text)]


def words_about(recipient: str, text: str) -> str:
    """What ``text`` says from the line on that names ``recipient``, up to the end of its second paragraph."""
    lines = COPY.split(text, maxsplit=1)[0].splitlines()
    start = next((i for i, line in enumerate(lines) if recipient and recipient.lower() in line.lower()), None)
    if start is None:
        return ""
    words: list[str] = []
    for line in lines[start : start + MOST_WORDS]:
        if not line.strip() and len(words) > 1:
            break
        if line.strip():
            words.append(line.strip())
    return " ".join(words)
