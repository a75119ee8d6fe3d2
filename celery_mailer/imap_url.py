"""An IMAP mailbox in one line, as the environment holds it: ``imaps://user:password@imap.example.com/INBOX``.

The parts are percent-decoded (RFC 3986, section 2.1). No error repeats any of them: all may be secret.
"""

from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import unquote, urlsplit

from django.views.decorators.debug import sensitive_variables

Security = Literal["tls", "starttls", "none"]
# The ports are RFC 9051's (section 11.1). Without TLS is for a server on the same machine.
SCHEMES: dict[str, tuple[Security, int]] = {
    "imaps": ("tls", 993),
    "imap+tls": ("starttls", 143),
    "imap": ("none", 143),
}


@dataclass(frozen=True, slots=True)
class Mailbox:
    """A folder on an IMAP server, and the login for it."""

    security: Security
    host: str
    port: int
    user: str
    password: str = field(repr=False)
    folder: str = "INBOX"


def fault(url: str) -> str:
    """What is wrong with ``url``, in words that repeat nothing of it; empty, if nothing is."""
    try:
        parse(url)
    except ValueError as error:
        return str(error)
    return ""


@sensitive_variables()
def parse(url: str) -> Mailbox:
    """Raises ``ValueError`` that says what is wrong, without a word of ``url``."""
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError("is not an address.") from None
    if parts.scheme not in SCHEMES:
        raise ValueError(f"does not begin with {', '.join(f'{scheme}://' for scheme in SCHEMES)}.")
    if not (host and parts.username and parts.password) or parts.query or parts.fragment:
        raise ValueError("is not of the form imaps://user:password@host/folder.")
    folder = unquote(parts.path.strip("/")) or "INBOX"
    if not (folder.isascii() and folder.isprintable()):
        raise ValueError("names a folder that is not ASCII.")
    security, standard = SCHEMES[parts.scheme]
    return Mailbox(security, host, port or standard, unquote(parts.username), unquote(parts.password), folder)
