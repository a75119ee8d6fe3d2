"""What stands around a mail's texts and files: MIME headers and delimiters, as Django itself writes them.

A frame is cut out of a sample that Django has made, once per process and shape: so it is right with every
version of Django and Python. Where something is not found in the sample as expected, there is no frame.
"""

import re
from functools import cache, lru_cache
from typing import Any, NamedTuple

from django.core.mail import EmailAttachment, EmailMultiAlternatives

from celery_mailer.deliver.message import ordinary_attachment, read, wire_bytes
from celery_mailer.deliver.wire.bodies import encoded
from celery_mailer.deliver.wire.unusual import Unusual
from celery_mailer.models.attachment import Form

FIELDS = [b"Subject", b"From", b"To", b"Date", b"Message-ID"]  # of a sample, in the order of ``headers.head``

# Words that need each encoding; base64 comes only from Django 6.0 on.
SAMPLES = {"7bit": "words", "8bit": "wörter", "quoted-printable": "long words " * 100, "base64": "ж" * 100}

_BOUNDARY = re.compile(rb'boundary="([^"]+)"')


class Part(NamedTuple):
    """A text in a frame: its subtype, and its content transfer encoding."""

    subtype: str
    encoding: str


class Frame(NamedTuple):
    """``template`` is for ``%``, with ``head``, the texts by subtype, ``files``, and ``boundary0`` and so on.

    The outermost boundary is the first; between the files stands that one.
    """

    template: bytes
    boundaries: int


def frame(parts: tuple[Part, ...], *, mixed: bool) -> Frame:
    """What stands around ``parts``, and around files too if it is ``mixed``. Raises ``Unusual``."""
    found = _frame(parts, mixed)
    if found is None:
        raise Unusual
    return found


@cache
def _frame(parts: tuple[Part, ...], mixed: bool) -> Frame | None:
    texts = {part.subtype: f"{part.subtype} {SAMPLES[part.encoding]}" for part in parts}
    file = EmailAttachment("name", b"bytes", "application/octet-stream")
    data = wire_bytes(_sample(texts, [file] if mixed else []))
    pieces = {subtype.encode(): encoded(text).data for subtype, text in texts.items()}
    pieces |= {b"head": _head(data)} | ({b"files": _alone(file)} if mixed else {})
    boundaries = list(dict.fromkeys(_BOUNDARY.findall(data)))
    pieces |= {b"boundary%d" % i: boundary for i, boundary in enumerate(boundaries)}
    if any(piece not in data for piece in pieces.values()):
        return None
    template = data.replace(b"%", b"%%")
    for name, piece in pieces.items():
        template = template.replace(piece, b"%%(%b)b" % name)
    return Frame(template, len(boundaries))


def _head(data: bytes) -> bytes:
    """The fields that are not MIME's. They stand together, and last, or there is no frame."""
    lines = data[: data.index(b"\r\n\r\n")].split(b"\r\n")[-len(FIELDS) :]
    together = [line.partition(b":")[0] for line in lines] == FIELDS
    return b"".join(line + b"\r\n" for line in lines) if together else b"\0"


def _sample(texts: dict[str, str], files: list[Any]) -> EmailMultiAlternatives:
    """A message as ``build`` makes it, of ``texts`` by subtype."""
    message = EmailMultiAlternatives(
        subject="words",
        body=texts.get("plain") or texts.get("html", ""),
        from_email="a@example.com",
        to=["a@example.com"],
        headers={"Message-ID": "<a@example.com>"},
    )
    if len(texts) > 1:
        message.attach_alternative(texts["html"], "text/html")
    elif "html" in texts:
        message.content_subtype = "html"
    message.attachments = files
    return message


def _alone(file: Any) -> bytes:
    """An attachment's part: what is between the delimiters of a message that has nothing else."""
    data = wire_bytes(_sample({}, [file]))
    boundary = _BOUNDARY.findall(data)[0]
    return data.split(b"--%b\r\n" % boundary, 1)[1].rpartition(b"\r\n--%b--" % boundary)[0]


@lru_cache(maxsize=8)
def file_part(where: Any, path: str, name: str, mimetype: str, form: Form) -> bytes:
    """A stored file as a part of its own. Raises ``Unusual``, or ``OSError`` for the storage.

    Encoded once for a slice of a bulk call, each email of which has the same files; a path is the hash of
    what it holds.
    """
    data = read(where, path)
    try:
        return _alone(ordinary_attachment(data, name, mimetype, form))
    except ValueError as error:  # in the name or the type; ``build`` says what
        raise Unusual from error
