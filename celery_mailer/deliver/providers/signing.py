"""A DKIM signature (RFC 6376) on what goes out by SMTP, with the extra ``dkim``.

It is made of the final bytes, after every header has its place and before the dots of the transport.
Signing takes 6 ms of processor time with an RSA key of 2048 bits, as dkimpy computes in Python: a worker
signs about 160 mails per second. Where a relay or an ESP can sign, let it.
"""

from email import message_from_bytes
from email.policy import compat32
from pathlib import Path
from typing import Any

from celery_mailer import options

# What RFC 6376, section 5.4.1, asks for, where it is there; and List-Unsubscribe-Post, without which the
# one-click unsubscribing of RFC 8058 does not count (section 4). Never what a relay may change.
SIGNED = frozenset(
    b"from sender reply-to subject date message-id to cc mime-version content-type content-transfer-encoding "
    b"content-id content-description in-reply-to references list-id list-help list-unsubscribe "
    b"list-unsubscribe-post list-subscribe list-post list-owner list-archive".split()
)

# A relay that takes no 8-bit mail recodes it, and so breaks the signature (RFC 6376, section 5.3).
_SEVEN_BIT: Any = compat32.clone(cte_type="7bit", max_line_length=None, linesep="\r\n")


class Signer:
    """Signs for one domain. Raises ``ValueError`` or ``OSError`` if it cannot; neither tells the key."""

    def __init__(self, rules: options.Dkim) -> None:
        try:
            import dkim
        except ImportError as error:
            raise ValueError("DKIM needs the extra: pip install celery_mailer[dkim]") from error
        self._dkim: Any = dkim
        self._domain, self._selector = str(rules.domain).encode("ascii"), str(rules.selector).encode("ascii")
        text = rules.key if rules.key is not None else Path(str(rules.key_file)).read_text("ascii")
        self._key = "\n".join(line.strip() for line in text.strip().splitlines()).encode()
        try:  # a key that is none is found before the first mail waits for it
            self.sign(b"From: a@example.com\r\n\r\n")
        except Exception:  # of many kinds; their texts may hold some of it
            raise ValueError("the DKIM key is no RSA private key in PEM") from None

    def sign(self, message: bytes) -> bytes:
        """``message`` (RFC 5322, lines ended by CRLF) with its signature, and without octets above 127."""
        if not message.isascii():
            message = message_from_bytes(message, policy=_SEVEN_BIT).as_bytes()
        signing = self._dkim.DKIM(message)
        names = [name.lower() for name, _ in signing.headers if name.lower() in SIGNED]
        names.append(b"from")  # once more than it is there: so nobody can add a second one (section 8.15)
        signature: bytes = signing.sign(
            self._selector,
            self._domain,
            self._key,
            canonicalize=(b"relaxed", b"relaxed"),
            include_headers=names,
        )
        return signature + message
