"""Images inside HTML mail: found, read, and gathered while a template is rendered.

``{% inline_image %}`` asks for a ``reference``; whoever renders an email does so inside ``collecting()``. A
context variable leads from the one to the other, so that it is the same for a file, a database template, what
these include and extend, and an engine of any class.

A mail must not fail for want of a picture: a password reset without the logo is better than none. So a fault
is raised only where the template engine's ``debug`` is on; else it is logged, and the picture left out.
"""

import mimetypes
import os
import re
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from errno import ENOENT
from pathlib import Path, PurePath
from typing import IO, Any, cast
from uuid import UUID
from weakref import WeakValueDictionary

from celery.exceptions import SoftTimeLimitExceeded
from django.apps import apps
from django.core.exceptions import ImproperlyConfigured, SuspiciousFileOperation
from django.core.files.base import File
from django.core.files.storage import FileSystemStorage, Storage, storages
from django.db.models.fields.files import FieldFile
from django.utils.functional import Promise

from celery_mailer import conf, logs
from celery_mailer.attaching import Image, enclose_images

MAGIC = {
    "image/png": rb"\x89PNG\r\n\x1a\n",
    "image/jpeg": rb"\xff\xd8\xff",
    "image/gif": rb"GIF8[79]a",
    "image/webp": rb"RIFF....WEBP",
    # What may stand before the root element: XML 1.0, production 22. Possessive: an upload may be malicious.
    "image/svg+xml": rb"(?:\xef\xbb\xbf)?\s*(?>(?><\?.*?\?>|<!--.*?-->|<!DOCTYPE svg[^>\[]*>)\s*)*+<svg[\s>]",
}
PROLOG = 4096  # bytes in which it must be seen that a document is an SVG


class NotAnImage(Exception):
    """What a template would show inline is no image."""


class TooLarge(Exception):
    """An image is larger than ATTACHMENTS['MAX_SIZE']."""


class Images:
    """What templates showed inline since ``collecting`` began: each image once, in order of appearance."""

    def __init__(self) -> None:
        self._by_cid: dict[str, Image] = {}

    def add(self, image: Image) -> None:
        self._by_cid.setdefault(image.cid, image)

    @property
    def images(self) -> list[Image]:
        return list(self._by_cid.values())


_current: ContextVar[Images | None] = ContextVar("celery_mailer_images", default=None)

# The emails of a slice show the same logo: one copy of it in memory is enough.
_alive: WeakValueDictionary[tuple[str, str], Image] = WeakValueDictionary()


@contextmanager
def collecting() -> Iterator[Images]:
    """Gather the images of what is rendered inside, in this thread or asyncio task; may be nested."""
    token = _current.set(images := Images())
    try:
        yield images
    finally:
        _current.reset(token)


def collected() -> Images | None:
    """What gathers images at the moment, if anything does."""
    return _current.get()


def keep(found: Mapping[UUID, Images]) -> None:
    """Store the images of emails, by their ids, as inline attachments; without images, no query is made."""
    enclose_images({pk: images.images for pk, images in found.items()})


def reference(source: Any, *, debug: bool, page: bool) -> str:
    """What the ``src`` of an ``img`` has to say to show ``source``: a ``cid:`` URL (RFC 2392).

    Outside an email, on a ``page``, the image itself as a ``data:`` URL (RFC 2397). With ``debug``, raises
    what ``read`` raises; else an image that cannot be read gives nothing, and a warning in the log.
    """
    try:
        image = read(source)
    except SoftTimeLimitExceeded:
        raise  # the worker's haste is no fault of the image's
    except Exception as error:
        if debug:
            raise
        logs.image_left_out(_label(source), error)
        return ""
    images = _current.get()
    if images is not None:
        images.add(image)
        return f"cid:{image.cid}"
    if not page:
        logs.image_not_collected(_label(source))
    return f"data:{image.mimetype};base64,{b64encode(image.data).decode()}"


def read(source: Any) -> Image:
    """The image that ``source`` is or names.

    A relative path is that of a static file; an absolute one must lead, its symbolic links followed, into
    MEDIA_ROOT, a folder of static files, or one of ATTACHMENTS['IMAGE_ROOTS']. Else a file: an ImageField's,
    one of Django's, an open one, a ``BytesIO``. Raises ``FileNotFoundError``, ``SuspiciousFileOperation``
    for a path that leads elsewhere, ``NotAnImage``, ``TooLarge``, and what a storage raises.
    """
    if isinstance(source, str | Promise | os.PathLike):
        path = os.fspath(source) if isinstance(source, os.PathLike) else str(source)
        path = "".join(path)  # a literal in a template is a SafeString, which pathlib does not take
        return _image(path, _by_path(path))
    # Asked for its method, an ImageField's file would open.
    if not isinstance(source, File) and not hasattr(source, "read"):
        raise NotAnImage(f"a {type(source).__name__} is neither a path nor a file")
    name = getattr(source, "name", None)
    return _image(name if isinstance(name, str) else "", _by_file(source))


def _label(source: Any) -> str:
    """What a log may call it: an upload's name may be somebody's address."""
    if isinstance(source, str | Promise | os.PathLike):
        return repr(str(source))
    return f"of {source.field}" if isinstance(source, FieldFile) else f"in a {type(source).__name__}"


def _image(name: str, data: bytes) -> Image:
    mimetype = _mimetype(name, data)
    if mimetype is None:
        raise NotAnImage(f"{name or 'the file'} is not an image")
    # It becomes a header and a column: no line breaks, no bytes that were no characters.
    name = "".join(filter(str.isprintable, os.path.basename(name)))[-255:]
    image = Image(name or f"image{mimetypes.guess_extension(mimetype) or ''}", mimetype, data)
    return _alive.setdefault((image.digest, image.name), image)


def _mimetype(name: str, data: bytes) -> str | None:
    """What the bytes say, for the common types, counts for more than the ending of the name."""
    for mimetype, start in MAGIC.items():
        if re.match(start, data[:PROLOG], re.DOTALL):
            return mimetype
    guess, encoding = mimetypes.guess_type(name)
    return guess if guess and guess.startswith("image/") and not encoding else None


def _by_file(file: Any) -> bytes:
    """All of ``file``, which may have been read before, and is left as open as it was."""
    closed = getattr(file, "closed", False)
    if isinstance(file, File):
        file.open()  # or rewind it, if it is open
    elif hasattr(file, "seek"):
        file.seek(0)
    try:
        return _limited(file)
    finally:
        if closed:
            file.close()


def _limited(file: Any) -> bytes:
    limit = conf.get().attachments.max_size
    data = file.read(limit + 1)
    data = data.encode() if isinstance(data, str) else bytes(data)
    if len(data) > limit:
        raise TooLarge(f"an inline image has more than ATTACHMENTS['MAX_SIZE'], {limit:,} bytes")
    return data


def _by_path(path: str) -> bytes:
    if ".." in PurePath(path).parts:
        raise SuspiciousFileOperation(f"{path} has '..' in it")
    with _opened(path) if os.path.isabs(path) else _static(path) as file:
        return _limited(file)


def _static(path: str) -> IO[bytes]:
    """The static file as the finders know it, which needs no ``collectstatic``; else as it was collected."""
    if apps.is_installed("django.contrib.staticfiles"):
        from django.contrib.staticfiles import finders

        if found := finders.find(path):
            return _opened(found)
    return _collected(path)


def _collected(path: str) -> IO[bytes]:
    """The static file from where ``collectstatic`` put it, perhaps only with a hash in its name."""
    try:
        storage: Any = storages["staticfiles"]
        hashed = not storage.exists(path) and hasattr(storage, "stored_name")
        name = storage.stored_name(path) if hashed else path
    except (ImproperlyConfigured, ValueError):  # there is no STATIC_ROOT; it is not in the manifest
        raise _missing(path) from None
    try:
        return _opened(storage.path(name))
    except NotImplementedError:  # it is not on this machine
        return cast("IO[bytes]", storage.open(name))


def _opened(path: str) -> IO[bytes]:
    real = Path(os.path.realpath(path))
    if not any(real.is_relative_to(os.path.realpath(root)) for root in _roots()):
        raise SuspiciousFileOperation(
            f"{path} is in none of the folders that emails show images from; see ATTACHMENTS['IMAGE_ROOTS']"
        )
    if not real.is_file():  # nor a pipe, from which reading never ends
        raise _missing(path)
    return real.open("rb")


def _missing(path: str) -> FileNotFoundError:
    return FileNotFoundError(ENOENT, "There is no such image", path)


def _roots() -> Iterator[str]:
    yield from conf.get().attachments.image_roots
    for storage in _public_storages():
        # MEDIA_ROOT is empty until it is set, and would stand for the folder the worker was started in.
        if isinstance(storage, FileSystemStorage) and storage.base_location:
            yield str(storage.location)


def _public_storages() -> Iterator[Storage]:
    """The storages of uploads and of static files, and the folders that the latter come from."""
    for alias in ("staticfiles", "default"):
        with suppress(ImproperlyConfigured):  # there are no static files in this project
            yield storages[alias]
    if apps.is_installed("django.contrib.staticfiles"):
        from django.contrib.staticfiles import finders

        for finder in finders.get_finders():
            yield from getattr(finder, "storages", {}).values()
