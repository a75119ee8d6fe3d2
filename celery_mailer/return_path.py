"""Where an email comes back to, if it does: an address of its own, so that its bounce names it (VERP).

``bounces+TOKEN@example.com``. The token is the id of the email and eight bytes of Django's signature of it:
with SECRET_KEY, read also with SECRET_KEY_FALLBACKS. It has 39 characters, in base32 because some
servers write addresses in lower case. That leaves 24 of the 64 octets of a local part (RFC 5321, section
4.5.3.1.1). The "+" is where mail servers commonly cut one (RFC 5233).
"""

import re
from base64 import b32decode, b32encode
from collections.abc import Iterator
from functools import lru_cache
from uuid import UUID

from django.core.signing import Signer, b64_decode
from django.utils.crypto import constant_time_compare

from celery_mailer.addresses import bare, clean
from celery_mailer.exceptions import InvalidEmail

LONGEST_LOCAL_PART = 24  # octets, of the address that the token goes into
_LOCAL_PART = re.compile(r"[a-z0-9_-]+([.+][a-z0-9_-]+)*", re.ASCII | re.IGNORECASE)
_SIGNED = 8  # bytes of the signature
_TOKEN = re.compile(r"\+([a-z2-7]{39})@", re.ASCII | re.IGNORECASE)


def fault(address: str) -> str:
    """Why no token can go into ``address``; empty, if one can."""
    try:
        local_part = bare(clean("RETURN_PATH", address)).rpartition("@")[0]
    except InvalidEmail as error:
        return f"{error.fault}."
    if len(local_part) > LONGEST_LOCAL_PART:
        return f"leaves no room for a token: {LONGEST_LOCAL_PART} characters may be before the @."
    if _LOCAL_PART.fullmatch(local_part) is None:
        return "has other characters before the @ than letters, digits, '.', '+', '_' and '-'."
    return ""


def with_token(address: str, email_id: UUID) -> str:
    """``address``, which has no ``fault``, as the bare return path of one email."""
    local_part, domain = _parts(address)
    raw = email_id.bytes + _signature(_signer(), email_id)
    return f"{local_part}+{b32encode(raw).decode().rstrip('=').lower()}@{domain}"


def email_ids(text: str) -> Iterator[UUID]:
    """The emails whose return paths are in ``text``; what we did not sign is none."""
    for found in _TOKEN.finditer(text):
        raw = b32decode(f"{found[1].upper()}=")
        email_id = UUID(bytes=raw[:16])
        if _is_signed(email_id, raw[16:]):
            yield email_id


@lru_cache(maxsize=16)
def _parts(address: str) -> tuple[str, str]:
    local_part, _, domain = bare(address).rpartition("@")
    return local_part, domain


def _signer() -> Signer:
    return Signer(salt="celery_mailer.return_path")


def _signature(signer: Signer, email_id: UUID, key: str | bytes | None = None) -> bytes:
    return b64_decode(signer.signature(email_id.hex, key).encode())[:_SIGNED]


def _is_signed(email_id: UUID, signature: bytes) -> bool:
    signer = _signer()
    keys = (signer.key, *signer.fallback_keys)
    return any(constant_time_compare(signature, _signature(signer, email_id, key)) for key in keys)
