"""What a refusal says about the address: that there is none (hard), that it may take mail again (soft), or
nothing, because it was for the message, its size, our reputation or the recipient's policy.

The enhanced status code (RFC 3463; IANA's registry of them) says it best. Where there is none, or one that
servers use for everything, their words do.
"""

import re

from celery_mailer.values import Bounce

NOTHING = ""
UNCLEAR = None

ENHANCED = re.compile(r"(?<![\d.])([245])\.(\d{1,3})\.(\d{1,3})(?![\d.])")
REPLY_CODE = re.compile(r"(?:^|[^\d.])([45]\d\d)(?:[ :-]|$)")

# By class, subject and detail; then by class and subject. ``UNCLEAR``: ask the words.
BY_DETAIL: dict[str, str | None] = {
    "5.1.0": UNCLEAR,
    "5.1.1": Bounce.HARD,  # no such mailbox
    "5.1.2": Bounce.HARD,  # no such system
    "5.1.3": Bounce.HARD,  # no address at all
    "5.1.4": Bounce.HARD,  # ambiguous
    "5.1.6": Bounce.HARD,  # moved, and left no address
    "5.1.7": NOTHING,  # the sender's address
    "5.1.8": NOTHING,
    "5.1.9": NOTHING,
    "5.1.10": Bounce.HARD,  # a null MX (RFC 7505)
    "5.2.0": UNCLEAR,
    "5.2.1": UNCLEAR,  # disabled; Google's "at a rate that prevents additional messages"
    "5.2.2": Bounce.SOFT,  # full
    "5.2.3": NOTHING,  # the message is too long for it
    "5.3.4": NOTHING,  # and for the system
    "5.4.1": UNCLEAR,  # no answer from the host; Exchange Online's "no such user"
    "5.4.4": Bounce.HARD,  # no route: mostly, no such domain
    "5.4.310": Bounce.HARD,  # Exchange Online: no such domain
}
BY_SUBJECT: dict[str, str | None] = {
    "5.0": UNCLEAR,
    "5.1": UNCLEAR,
    "5.2": Bounce.SOFT,
    "5.3": Bounce.SOFT,
    "5.4": Bounce.SOFT,
    "5.5": UNCLEAR,
    "5.6": NOTHING,  # the message's form
    "5.7": NOTHING,  # policy
}

# Whom it is about is not the recipient, whatever else it says that there is none of.
SENDER = re.compile(
    r"sender verif|verification failed for|sender (\w+ )?(address|domain)|(address|domain) of (the )?sender"
    r"|sender (rejected|denied|unknown|invalid)|client host|\b(helo|ehlo)\b|your (reverse )?host ?name",
    re.IGNORECASE,
)
POLICY = re.compile(
    r"spam|block(ed|list)|black ?list|listed (at|by|in|on)|rbl\b|dnsbl|dmarc|\bspf\b|dkim|policy|policies"
    r"|reputation|rate limit|too many|unsolicited|abus|virus|malware|not authori[sz]ed|access denied"
    r"|relay|content|suspicious|banned|reverse dns|\bptr\b|greylist",
    re.IGNORECASE,
)
# Those of them that say so also beside a code that means nobody is there; but not in the name of a host.
PLAINLY_POLICY = re.compile(
    r"(?<![\w.@-])(spam|content filter|block(ed|list)|black ?list(ed)?|greylist(ed)?|virus|malware|policy)"
    r"(?![\w@-]|\.\w)",
    re.IGNORECASE,
)
FOR_NOW = re.compile(r"at a rate|temporar", re.IGNORECASE)
SIZE = re.compile(
    r"message (size|too (large|big|long))|size limit|too large|exceeds? .{0,20}size", re.IGNORECASE
)
FULL = re.compile(
    r"(mail ?box|quota|inbox|storage).{0,40}(full|exceed|over|limit)|over ?quota|quota exceed"
    r"|insufficient .{0,20}storage|exceed\w* .{0,30}(quota|storage|mailbox)",
    re.IGNORECASE,
)
NOBODY = re.compile(
    r"(user|mailbox|recipient|account|address|alias|addressee)\b.{0,40}?"
    r"(unknown|not found|not exist|n['o]t exist|doesn.?t exist|no longer (exists?|valid|available|active)"
    r"|invalid|disabled|inactive|unavailable|undeliverable|not (active|valid|local|listed|known))"
    r"|(unknown|invalid|no such|not a valid|bad|nonexistent|non-existent|inactive|disabled) "
    r"(\w+ )?(local part|local-part|user|mailbox|recipient|address|account|addressee)"
    r"|doesn.?t have an? .{0,30}account|no mailbox (here )?by that name|does not exist|unrouteable address"
    r"|host or domain name not found|domain .{0,60}(not found|not exist|no such)|no such domain|nxdomain",
    re.IGNORECASE,
)
EXCHANGE_NOBODY = re.compile(r"5\.4\.1\W.{0,5}recipient address rejected: access denied", re.IGNORECASE)


def classify(code: int | None, enhanced_code: str, text: str) -> str:
    """``Bounce.HARD``, ``Bounce.SOFT``, or nothing, for a recipient's refusal.

    ``code`` is the SMTP reply code (RFC 5321), ``enhanced_code`` as ``5.1.1``; what is missing is looked for
    in ``text``, the server's words, and what is less than clear is taken for less than hard.
    """
    code, enhanced_code = code or reply_code_in(text), enhanced_code or enhanced_code_in(text)
    final = f"5{enhanced_code[1:]}"  # what it would be if it were not temporary
    known = BY_DETAIL.get(final, BY_SUBJECT.get(final.rpartition(".")[0]))
    if known == NOTHING or SENDER.search(text):
        return NOTHING
    if (enhanced_code or str(code or "5")).startswith("4"):
        return Bounce.SOFT
    bounce = _by_words(code, text) if known is UNCLEAR else known
    if bounce == Bounce.HARD and FOR_NOW.search(text):
        return Bounce.SOFT
    return NOTHING if bounce == Bounce.HARD and PLAINLY_POLICY.search(text) else bounce


def _by_words(code: int | None, text: str) -> str:
    if EXCHANGE_NOBODY.search(text):
        return Bounce.HARD
    if FULL.search(text):
        return Bounce.SOFT
    if speaks_of_the_mail(text):
        return NOTHING
    if NOBODY.search(text):
        return Bounce.HARD
    # RFC 5321, section 4.2.3: 552 is "exceeded storage allocation", which servers say of the message's size.
    return NOTHING if code == 552 else Bounce.SOFT


def speaks_of_the_mail(text: str) -> bool:
    """Whether a refusal is for the message's size, its sender, or somebody's policy, by its words."""
    return bool(SIZE.search(text) or SENDER.search(text) or POLICY.search(text))


def enhanced_code_in(text: str) -> str:
    """The first enhanced status code in ``text``, or nothing."""
    found = ENHANCED.search(text)
    return found[0] if found else ""


def reply_code_in(text: str) -> int | None:
    """The first SMTP reply code of a refusal in ``text``."""
    found = REPLY_CODE.search(text)
    return int(found[1]) if found else None
