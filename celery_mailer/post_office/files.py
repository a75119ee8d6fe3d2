"""Attachments: their files, read from where django-post_office stores them, kept once for each content."""

import mimetypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256

from django.core.exceptions import SuspiciousOperation
from django.core.files.storage import Storage, storages

from celery_mailer import conf
from celery_mailer.attaching import UNKNOWN_TYPE, keep
from celery_mailer.models import Email, Enclosure
from celery_mailer.models.attachment import Form
from celery_mailer.post_office import repair, tables

LOST = "is not in the storage"
# Not every OSError: what a person or time can mend must not end an email.
GONE = (FileNotFoundError, IsADirectoryError, NotADirectoryError)


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
    kept: dict[int, Kept | str] = field(default_factory=dict)  # by their number; or why there is nothing

    def enclosures(self, email: Email, files: Sequence[tables.File], now: datetime) -> list[Enclosure]:
        """The rows for ``files`` on ``email``, whose contents are stored; none for what ``lost`` names."""
        found = [(file, kept) for file in files if isinstance(kept := self._kept(file, now), Kept)]
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
        """What is wrong with those whose file is gone or cannot be read, by name."""
        found = [(file, kept) for file in files if isinstance(kept := self._kept(file, now), str)]
        return [f"the file of {file.name} {fault}" for file, fault in found]

    def _kept(self, file: tables.File, now: datetime) -> Kept | str:
        if file.id not in self.kept:
            self.kept[file.id] = self._keep(file, now)
        return self.kept[file.id]

    def _keep(self, file: tables.File, now: datetime) -> Kept | str:
        if not file.file:  # not every storage refuses an empty name with an OSError
            return LOST
        try:
            # In a dry run too: only reading shows what is damaged, and in some storages what is lost.
            with theirs().open(file.file) as opened:
                data, headers = repair.part(opened.read(), file.headers)
        except GONE:
            return LOST
        except SuspiciousOperation:
            return "has a path outside of the storage"
        except repair.Damaged as error:
            return str(error)
        digest = sha256(data).hexdigest()
        if not self.dry_run:
            keep({digest: data}, self.using, now)
        return Kept(digest, file.mimetype or mimetypes.guess_type(file.name)[0] or UNKNOWN_TYPE, headers)


def theirs() -> Storage:
    """The storage that django-post_office keeps attachments in."""
    return storages[conf.post_office().get("FILE_STORAGE") or "default"]
