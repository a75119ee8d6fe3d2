"""Email addresses: parsing, checking, writing.

Most addresses are bare (``a@b.example``) and take a path of a few microseconds; the standard library's
full parser (RFC 5322, section 3.4) is asked only when there is a display name.
"""

import re
import unicodedata
from collections.abc import Iterable
from email.headerregistry import Address, AddressHeader
from functools import lru_cache
from typing import Any

import django
from django.core.exceptions import ValidationError
from django.core.validators import EmailValidator
from django.utils.encoding import punycode
from django.utils.functional import Promise

from celery_mailer.exceptions import InvalidEmail

_validate: Any = EmailValidator()
# Django's pattern is lazy, which takes longer than to match it; and most domains come again and again.
_validate.user_regex = re.compile(_validate.user_regex.pattern, _validate.user_regex.flags)
_validate.validate_domain_part = lru_cache(maxsize=1024)(_validate.validate_domain_part)

# Control characters, line and paragraph separators, halves of a surrogate pair. Other invisible ones
# stay: names are written with joiners and wide spaces in many languages.
_FORBIDDEN = {"Cc", "Zl", "Zp", "Cs"}
# A name with a period, which by the book must be quoted (RFC 5322, section 4.1) and in life is not:
# "Dr. Who", "Acme Inc."
_DOTTED_NAME = re.compile(r"""^\s*([^"<>()\[\]:;@\\,=]*\.[^"<>()\[\]:;@\\,=]*?)\s*<""")

# A name of words that need no quotes, and a plain address: what most named ones are. They are taken apart
# without the parser, which takes 100 times as long.
_PLAIN_NAME = re.compile(r"\w+(?: \w+)*")
_PLAIN_SPEC = re.compile(
    r"[a-z0-9_+-]+(?:\.[a-z0-9_+-]+)*@[a-z0-9-]+(?:\.[a-z0-9-]+)*", re.IGNORECASE | re.ASCII
)
_PLAIN = re.compile(rf"({_PLAIN_NAME.pattern}) <((?ai:{_PLAIN_SPEC.pattern}))>")


def parse(text: str) -> tuple[str, str]:
    """``text`` as (display name, addr-spec). Raises ``ValueError`` unless it is exactly one mailbox."""
    if "<" not in text and '"' not in text and " " not in text:
        return "", text
    if len(text) > 998:  # a line's length (RFC 5322, section 2.1.1); the parser is slow on much more
        raise ValueError("is too long")
    if plain := _PLAIN.fullmatch(text):
        return plain[1], plain[2]
    try:
        parsed: Any = AddressHeader.value_parser(_DOTTED_NAME.sub(r'"\1" <', text))
    except Exception as error:  # the parser stumbles over some faults: an IndexError for a lone "<"
        raise ValueError("is not one address") from error
    if len(parsed.all_mailboxes) != 1 or any(parsed.all_defects):
        raise ValueError("is not one address")
    box = parsed.all_mailboxes[0]
    return (box.display_name or "").strip(), box.addr_spec


def named(name: str, spec: str) -> str:
    """``spec`` with a display name, quoted where it has to be. ``clean`` refuses what is wrong with them."""
    if not name or (_PLAIN_NAME.fullmatch(name) and _PLAIN_SPEC.fullmatch(spec)):
        return f"{name} <{spec}>" if name else spec
    try:
        return str(Address(display_name=name, addr_spec=spec))
    except Exception:  # the parser stumbles over some faults
        return f"{name} <{spec}>"


def clean(field: str, value: Any) -> str:
    """``value`` as a checked address, spelled as it was given, which ``bare`` can take.

    Only a name that Django would refuse to send without quotes is given some. Raises ``InvalidEmail``
    that names ``field``; the address itself is left out, because the error may end in a worker's log.
    """
    text = str(value).strip()
    if not text.isprintable() and any(unicodedata.category(c) in _FORBIDDEN for c in text):
        raise InvalidEmail(field, "has control characters")
    try:
        name, spec = parse(text)
        _check(spec)
        if name and django.VERSION >= (6, 0) and _DOTTED_NAME.match(text):
            return str(Address(display_name=name, addr_spec=spec))
        return text
    except (ValueError, ValidationError):
        raise InvalidEmail(field, "is not a valid email address") from None


def _check(spec: str) -> None:
    """Raise ``ValueError`` or ``ValidationError`` unless ``spec`` is an address, also as the envelope has it.

    Django's validator alone is not enough: it ignores case, and so takes "ſ" for an "s"; and Nameprep
    (RFC 3491) makes ">" and "@" of their wide forms, which would end the address in the middle of a command.
    """
    _validate(spec)
    envelope = bare(spec)
    if not (spec.isprintable() and envelope.isascii()):
        raise ValueError("cannot be written in a command")
    if envelope != spec:
        _validate(envelope)


def clean_list(field: str, value: Any) -> list[str]:
    """``value`` (nothing, one address, or several) as checked addresses, in their order."""
    if value is None or value == "":
        return []
    if isinstance(value, str | Promise) or not isinstance(value, Iterable):
        value = [value]
    return [clean(f"{field}[{i}]", item) for i, item in enumerate(value)]


def bare(address: str) -> str:
    """The addr-spec for the envelope: no display name, the domain in ASCII (RFC 5890).

    Raises ``ValueError`` for what ``clean`` would refuse.
    """
    _, spec = parse(address)
    local, at, domain = spec.rpartition("@")
    return spec if domain.isascii() else f"{local}{at}{punycode(domain)}"
