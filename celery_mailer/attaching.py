"""From what a caller hands in as attachments to stored files and their rows."""

import hashlib
import mimetypes
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from email.encoders import encode_base64
from email.message import Message as LegacyPart
from email.message import MIMEPart
from email.mime.base import MIMEBase
from email.policy import compat32
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import UUID

import django
from django.core.files.base import ContentFile
from django.core.mail import EmailMessage
from django.db import router
from django.utils import timezone
from django.utils.functional import Promise

from celery_mailer import conf
from celery_mailer.exceptions import InvalidEmail
from celery_mailer.models import Attachment, Content, Email, Enclosure
from celery_mailer.models.attachment import Form, storage

UNKNOWN_TYPE = "application/octet-stream"
# Not the package's name: without MEDIA_ROOT it is made beside manage.py, where Python looks for packages.
FOLDER = "mail_attachments"
CID_DOMAIN = "celery-mailer"  # by it, an image that came by a template is told from any other attachment


@dataclass(frozen=True, eq=False)
class File:
    """One attachment, read: what it is called, what it is, and its bytes."""

    name: str
    mimetype: str
    form: Form
    data: bytes
    headers: dict[str, str] = field(default_factory=dict)

    @cached_property  # the same file may be attached to a million emails
    def digest(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True, eq=False)
class Image:
    """An image that an HTML mail shows inline: what it is called, what it is, and its bytes."""

    name: str
    mimetype: str
    data: bytes

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def cid(self) -> str:
        """Its Content-ID without the angle brackets, the same for the same bytes.

        Shaped like a Message-ID (RFC 2045, section 7), and without what a ``cid:`` URL would have to escape
        (RFC 2392, section 2).
        """
        return f"{self.digest[:32]}@{CID_DOMAIN}"


def read_files(field: str, given: Any) -> list[File]:
    """The attachments in ``given``, read and measured.

    A dict of names and files (django-post_office's way), or a list of what Django's ``attachments`` may
    hold: ``(name, content, mimetype)``, MIME parts; and of files and paths. A file is a path, a file
    object, or ``{"file": …, "mimetype": …, "headers": …}``. Raises ``InvalidEmail`` that names the one.
    """
    if not given:
        return []
    if isinstance(given, Mapping):
        return [_named(f"{field}[{name!r}]", str(name), file) for name, file in given.items()]
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise InvalidEmail(field, f"is a {type(given).__name__}, not a list or a dict")
    return [_listed(f"{field}[{i}]", item) for i, item in enumerate(given)]


def _listed(field: str, item: Any) -> File:
    if isinstance(item, MIMEPart | MIMEBase):
        form = Form.PART if isinstance(item, MIMEPart) else Form.BASE
        return File(item.get_filename() or "", item.get_content_type(), form, _sized(field, item.as_bytes()))
    if isinstance(item, tuple):
        return _triple(field, *item)
    return _named(field, "", item)


def _triple(field: str, name: Any = None, content: Any = None, mimetype: str | None = None) -> File:
    """Django's own form, where a string is the content."""
    name = str(name) if name else ""
    mimetype = mimetype or mimetypes.guess_type(name)[0] or UNKNOWN_TYPE
    if isinstance(content, EmailMessage):
        content = content.message().as_bytes()
    elif isinstance(content, LegacyPart):
        # As Django writes it in the end: up to 5.2 by its own policy, whatever the message's is.
        content = content.as_bytes(policy=compat32) if django.VERSION < (6, 0) else content.as_bytes()
    if isinstance(content, str | Promise):
        content = str(content)
        return _checked(field, File(name, mimetype, Form.TEXT, _sized(field, content.encode())))
    return _checked(field, File(name, mimetype, Form.BYTES, _sized(field, _bytes(field, content))))


def _named(field: str, name: str, file: Any) -> File:
    """django-post_office's form, where a string is a path."""
    mimetype, headers = None, {}
    if isinstance(file, Mapping):
        mimetype, headers = file.get("mimetype"), dict(file.get("headers") or {})
        file = file.get("file")
    name = name or Path(str(getattr(file, "name", None) or file)).name
    mimetype = mimetype or mimetypes.guess_type(name)[0] or UNKNOWN_TYPE
    return _checked(field, File(name, mimetype, Form.BYTES, _sized(field, _bytes(field, file)), headers))


def _bytes(field: str, file: Any) -> bytes:
    if isinstance(file, bytes | bytearray | memoryview):
        return bytes(file)
    if isinstance(file, str | Path):
        try:
            return Path(file).read_bytes()
        except OSError as error:
            raise InvalidEmail(field, f"cannot be read: {error.strerror}") from None
    if not hasattr(file, "read"):
        raise InvalidEmail(field, f"is a {type(file).__name__}, not a file")
    if hasattr(file, "seek"):
        file.seek(0)  # the same file may be given to several emails
    data = file.read()
    return data.encode() if isinstance(data, str) else bytes(data)


def _sized(field: str, data: bytes) -> bytes:
    limit = conf.get().attachments.max_size
    if len(data) > limit:
        raise InvalidEmail(field, f"has {len(data):,} bytes; ATTACHMENTS['MAX_SIZE'] is {limit:,}")
    return data


def _checked(field: str, file: File) -> File:
    if "/" not in file.mimetype or not file.mimetype.isprintable() or len(file.mimetype) > 255:
        raise InvalidEmail(field, "has a mimetype that is none")
    if not file.name.isprintable() or len(file.name) > 255:
        raise InvalidEmail(field, "has a name with control characters, or of more than 255 characters")
    for name, value in file.headers.items():
        if not f"{name}{value}".isprintable():
            raise InvalidEmail(f"{field}['headers']", "has control characters")
    return file


def enclose(files: Sequence[tuple[Email, list[File]]], using: str, now: datetime) -> None:
    """Store what is not stored yet, and hang ``files`` on their emails; the emails' rows exist.

    Inside the caller's transaction: nobody can see an email whose files are not complete.
    """
    keep({file.digest: file.data for _, several in files for file in several}, using, now)
    Enclosure.objects.using(using).bulk_create(
        Enclosure(
            email=email,
            attachment_id=file.digest,
            position=position,
            name=file.name,
            mimetype=file.mimetype,
            form=file.form,
            headers=file.headers,
        )
        for email, several in files
        for position, file in enumerate(several)
    )


def enclose_images(images: Mapping[UUID, Sequence[Image]]) -> None:
    """Store what is not stored yet, and hang the images on their emails (by id), behind what hangs there.

    Before the messages that show them are written. No transaction is needed, and it may be done twice:
    an image that no message came to show stays behind, and does not go out.
    """
    found = {pk: several for pk, several in images.items() if several}
    if not found:
        return
    using = router.db_for_write(Email)
    data = {image.digest: image.data for several in found.values() for image in several}
    keep(data, using, timezone.now())
    attached = Enclosure.objects.using(using).filter(email_id__in=found, content_id=None)
    behind = Counter(attached.values_list("email_id", flat=True))
    Enclosure.objects.using(using).bulk_create(
        [
            Enclosure(
                email_id=pk,
                attachment_id=image.digest,
                position=behind[pk] + i,
                name=image.name,
                mimetype=image.mimetype,
                form=Form.BYTES,
                content_id=image.cid,
            )
            for pk, several in found.items()
            for i, image in enumerate(several)
        ],
        ignore_conflicts=True,
    )
    contents = Content.objects.using(using).filter(pk__in=found, has_attachments=False)
    contents.update(has_attachments=True)


def keep(contents: Mapping[str, bytes], using: str, now: datetime) -> None:
    """Store the bytes, by their digest, that are not stored yet; nobody takes away the others now."""
    Attachment.objects.using(using).filter(pk__in=contents).update(used_at=now)
    known = set(Attachment.objects.using(using).filter(pk__in=contents).values_list("pk", flat=True))
    Attachment.objects.using(using).bulk_create(
        [
            Attachment(id=digest, size=len(data), path=_store(digest, data), used_at=now)
            for digest, data in contents.items()
            if digest not in known
        ],
        ignore_conflicts=True,  # somebody else has just stored the same
    )


def _store(digest: str, data: bytes) -> str:
    path = f"{FOLDER}/{digest[:2]}/{digest}"
    if storage().exists(path):
        # Left by a transaction that was rolled back; or half of it, by a process that was killed.
        if storage().size(path) == len(data):
            return path
        storage().delete(path)
    return storage().save(path, ContentFile(data))


def mime_part(
    data: bytes, mimetype: str, name: str, headers: Mapping[str, str], content_id: str | None = None
) -> MIMEPart | MIMEBase:
    """A part whose headers the caller has chosen; those that are not given are as usual.

    With a ``content_id`` it is inline, and can be shown by that name (RFC 2392). Its class is the one that
    this version of Django takes as an attachment.
    """
    main, _, sub = mimetype.partition("/")
    part: MIMEPart | MIMEBase
    if django.VERSION >= (6, 0):
        part = MIMEPart()
        part.set_content(data, main, sub)
    else:
        part = MIMEBase(main, sub)
        part.set_payload(data)
        encode_base64(part)
    if not any(header.lower() == "content-disposition" for header in headers):
        part.add_header("Content-Disposition", "inline" if content_id else "attachment", filename=name)
    if content_id:
        part["Content-ID"] = f"<{content_id}>"
    for header, value in headers.items():
        del part[header]
        part[header] = value
    return part


def image_part(image: Image) -> MIMEPart | MIMEBase:
    """``image`` as an attachment for Django's ``EmailMessage``."""
    return mime_part(image.data, image.mimetype, image.name, {}, image.cid)
