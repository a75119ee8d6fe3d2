"""Delivery status notifications (RFC 3464): a block of fields for each recipient."""

import re
from binascii import a2b_base64, a2b_qp
from collections.abc import Iterator
from email import message_from_string
from email.message import Message
from email.utils import parseaddr
from itertools import islice

from celery_mailer.log.bounces import classify, enhanced_code_in, reply_code_in
from celery_mailer.tracking.mail_parts import (
    MOST_RECIPIENTS,
    Said,
    first,
    header,
    parts,
    storable_text,
    text_of,
)
from celery_mailer.tracking.plain_bounces import words_about
from celery_mailer.values import EventKind

TYPES = ("message/delivery-status", "message/global-delivery-status")
# RFC 3464, section 2.3.3. What was relayed or expanded went to where no report comes from.
ACTIONS = {
    "failed": EventKind.BOUNCED,
    "delayed": EventKind.DEFERRED,
    "delivered": EventKind.DELIVERED,
}
# RFC 6533, section 3: characters beyond ASCII in an address of the type utf-8.
ENCODED = re.compile(r"\\x\{([0-9A-Fa-f]{2,6})\}")


def read(mail: Message) -> list[Said]:
    """What a notification says of each of its recipients; nothing, if ``mail`` is none."""
    status = first(mail, *TYPES)
    if status is None:
        return []
    blocks = list(_blocks(status))
    mta = next((header(block, "Reporting-MTA") for block in blocks if "Reporting-MTA" in block), "")
    text = next((text_of(part) for part in parts(mail) if part.get_content_type() == "text/plain"), "")
    said = (_said(block, mta.rpartition(";")[2].strip(), text) for block in blocks if "Action" in block)
    return list(islice((one for one in said if one is not None), MOST_RECIPIENTS))


def _blocks(status: Message) -> Iterator[Message]:
    """The blocks of fields; the parser makes messages of them, but not where they were sent encoded."""
    payload = status.get_payload()
    blocks = [b for b in payload if isinstance(b, Message)] if isinstance(payload, list) else [status]
    if any("Action" in block for block in blocks):
        yield from blocks
        return
    text = _decoded("\n\n".join(map(text_of, blocks)), header(status, "Content-Transfer-Encoding"))
    for paragraph in re.split(r"\n\s*\n", text):
        yield message_from_string(paragraph.strip())


def _decoded(text: str, encoding: str) -> str:
    """The fields. The parser decodes none: RFC 3464, section 2.1, has them in 7 bits; some encode them."""
    raw = text.encode()
    try:
        if encoding.lower() == "base64":
            raw = a2b_base64(raw)
        elif encoding.lower() == "quoted-printable":
            raw = a2b_qp(raw)
    except ValueError:
        return text
    return raw.decode("utf-8", "replace").replace("\r\n", "\n")


def _said(block: Message, by: str, text: str) -> Said | None:
    kind = ACTIONS.get(header(block, "Action").split(" ")[0].lower().strip(";"))
    if kind is None:
        return None
    recipient = _address(header(block, "Original-Recipient")) or _address(header(block, "Final-Recipient"))
    words = header(block, "Diagnostic-Code").partition(";")[2].strip() or words_about(recipient, text)
    enhanced = _enhanced(header(block, "Status"), words)
    code = reply_code_in(words)
    bounce = classify(code, enhanced, words) if kind == EventKind.BOUNCED else ""
    return Said(kind, recipient, by, bounce, code, enhanced, words)


def _enhanced(status: str, words: str) -> str:
    """The status code; where it only says that it failed, that of the words."""
    code = enhanced_code_in(status)
    return code if code and not code.endswith(".0.0") else enhanced_code_in(words) or code


def _address(field: str) -> str:
    """The address of a field such as ``rfc822; a@example.com``."""
    kind, _, address = field.rpartition(";")
    if kind.strip().lower() == "utf-8":
        address = ENCODED.sub(lambda found: chr(min(int(found[1], 16), 0x10FFFF)), address)
    spec = storable_text(parseaddr(address.strip())[1])
    return spec if "@" in spec else ""
