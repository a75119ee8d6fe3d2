"""Attachments: their files, read from where django-post_office stores them, kept once for each content."""

import mimetypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256

from django.core.files.storage import Storage, storages

from celery_mailer import conf
from celery_mailer.attaching import UNKNOWN_TYPE, keep
from celery_mailer.models import Email, Enclosure
from celery_mailer.models.attachment import Form
from celery_mailer.post_office import repair, tables


@dataclass(frozen=True, slots=True)
class Kept:
    """What is known of an attachment whose file is stored here: by it, other emails get the same one."""

    digest: str
    mimetype: str
    headers: Mapping[str, str]


@dataclass(slots=True)
class Files:
    """Stores each file once, however many emails have it, and hangs it on them."""

    using: str
    dry_run: bool = False
    kept: dict[int, Kept | None] = field(default_factory=dict)  # by their number; ``None``: lost

    def enclosures(self, email: Email, files: Sequence[tables.File], now: datetime) -> list[Enclosure]:
        """The rows for ``files`` on ``email``, whose contents are stored; those that are lost have none."""
        found = [(file, kept) for file in files if (kept := self._kept(file, now)) is not None]
        return [
            Enclosure(
                email=email,
                attachment_id=kept.digest,
                position=position,
                name=file.name[:255],
                mimetype=kept.mimetype,
                form=Form.BYTES,
                headers=kept.headers,
            )
            for position, (file, kept) in enumerate(found)
        ]

    def lost(self, files: Sequence[tables.File], now: datetime) -> list[str]:
        """The names of those whose file is gone."""
        return [file.name for file in files if self._kept(file, now) is None]

    def _kept(self, file: tables.File, now: datetime) -> Kept | None:
        if file.id not in self.kept:
            self.kept[file.id] = self._keep(file, now)
        return self.kept[file.id]

    def _keep(self, file: tables.File, now: datetime) -> Kept | None:
        try:
            with theirs().open(file.file) as opened:
                raw = b"" if self.dry_run else opened.read()
        except OSError:
            return None
        data, headers = repair.part(raw, file.headers)
        digest = sha256(data).hexdigest()
        if not self.dry_run:
            keep({digest: data}, self.using, now)
        return Kept(digest, file.mimetype or mimetypes.guess_type(file.name)[0] or UNKNOWN_TYPE, headers)


def theirs() -> Storage:
    """The storage that django-post_office keeps attachments in."""
    return storages[conf.post_office().get("FILE_STORAGE") or "default"]
