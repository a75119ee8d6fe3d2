"""A template's context as JSON, and back, fresh, in the worker. Nothing is ever pickled.

What JSON does not know is written as ``{"$": kind, …}``. Model instances and querysets travel as references
(model, primary keys, database) and are loaded when the email is rendered, so that it says what is true
then. Own types join by ``register``.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from math import isfinite
from types import NoneType
from typing import Any
from uuid import UUID

from django.apps import apps
from django.db.models import Model, QuerySet
from django.utils.dateparse import parse_duration
from django.utils.duration import duration_iso_string
from django.utils.encoding import force_str
from django.utils.functional import Promise
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import get_language

from celery_mailer.exceptions import InvalidEmail, RenderError

TAG = "$"


class _Codec:
    """How a type is written as a string, and read again."""

    def __init__(self, kind: type, write: Callable[[Any], Any], read: Callable[[Any], Any]) -> None:
        self.kind = kind
        self.write = write
        self.read = read


# Looked through in this order: a datetime is a date, and a SafeString is a str.
_codecs: dict[str, _Codec] = {
    "datetime": _Codec(datetime, datetime.isoformat, datetime.fromisoformat),
    "date": _Codec(date, date.isoformat, date.fromisoformat),
    "time": _Codec(time, time.isoformat, time.fromisoformat),
    "timedelta": _Codec(timedelta, duration_iso_string, parse_duration),
    "decimal": _Codec(Decimal, str, Decimal),
    "uuid": _Codec(UUID, str, UUID),
    "safe": _Codec(SafeString, str, mark_safe),
}


def register(name: str, kind: type, write: Callable[[Any], Any], read: Callable[[Any], Any]) -> None:
    """Let contexts hold instances of ``kind``: ``write`` makes JSON of one, ``read`` one of that JSON.

    ``name`` is stored with each value; call this in ``AppConfig.ready``, also where the workers run.
    """
    _codecs[name] = _Codec(kind, write, read)


class NotPlain(Exception):
    """It may be a fault, or something that ``encode`` knows how to write."""


def plain(value: Any) -> Any:
    """A copy of ``value``, which is JSON as it stands: what ``encode`` gives, for most contexts in a third of
    the time. Raises ``NotPlain`` where ``encode`` has to look.
    """
    kind = type(value)
    if kind is dict:
        if TAG in value:
            raise NotPlain
        return {  # without a call for each of the many short strings
            key if type(key) is str and key.isascii() and "\x00" not in key else _plain_text(key):
            item if type(item) is str and item.isascii() and "\x00" not in item else plain(item)
            for key, item in value.items()
        }  # fmt: skip
    if kind is list:
        return [plain(item) for item in value]
    if kind is str:
        return _plain_text(value)
    if kind in (int, bool, NoneType) or (kind is float and isfinite(value)):
        return value
    raise NotPlain


def _plain_text(value: Any) -> str:
    if type(value) is str and "\x00" not in value and _is_whole(value):
        return value
    raise NotPlain


def _is_whole(text: str) -> bool:
    """Whether it has no half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def encode(path: str, value: Any) -> Any:
    """``value`` as JSON. Raises ``InvalidEmail`` that names the ``path`` to what cannot be stored."""
    for name, codec in _codecs.items():
        if isinstance(value, codec.kind):
            return {TAG: name, "v": codec.write(value)}
    for kinds, write in _WRITERS:
        if isinstance(value, kinds):
            return write(path, value)
    raise InvalidEmail(path, f"a {type(value).__name__} cannot be stored")


class Shared:
    """A value in the contexts of many emails: written once for each language, not once for each email.

    For a queryset that is one query in the place of a million.
    """

    def __init__(self, value: Any) -> None:
        self._value = value
        self._written: dict[str | None, Any] = {}

    def write(self, path: str) -> Any:
        language = get_language()  # what is lazily translated is for the recipient
        if language not in self._written:
            self._written[language] = encode(path, self._value)
        return self._written[language]


def _shared(path: str, value: Shared) -> Any:
    return value.write(path)


def _as_it_is(path: str, value: Any) -> Any:
    return value


def _number(path: str, value: float) -> float:
    if not isfinite(value):
        raise InvalidEmail(path, "is not a finite number")
    return value


def storable_text(path: str, value: str | Promise) -> str:
    """``value`` as a plain string that every database takes. Raises ``InvalidEmail`` otherwise."""
    text = force_str(value)
    if "\x00" in text:
        raise InvalidEmail(path, "has a NUL character")
    if not _is_whole(text):
        raise InvalidEmail(path, "has half of a surrogate pair")
    return text


def _reference(path: str, instance: Model) -> dict[str, Any]:
    if instance.pk is None or instance._state.adding:
        raise InvalidEmail(path, f"an unsaved {type(instance).__name__} cannot be stored")
    key = encode(path, instance.pk)
    return {TAG: "model", "model": instance._meta.label_lower, "pk": key, "db": instance._state.db}


def _rows(path: str, rows: "QuerySet[Model]") -> dict[str, Any]:
    keys = [encode(path, pk) for pk in rows.values_list("pk", flat=True)]
    return {TAG: "queryset", "model": rows.model._meta.label_lower, "pks": keys, "db": rows.db}


def _mapping(path: str, value: Mapping[Any, Any]) -> dict[str, Any]:
    for key in value:
        if not isinstance(key, str | int):
            raise InvalidEmail(path, f"has a key that is a {type(key).__name__}")
    plain = {storable_text(path, str(key)): encode(f"{path}[{key!r}]", item) for key, item in value.items()}
    return {TAG: "dict", "v": plain} if TAG in plain else plain


def _sequence(path: str, value: Iterable[Any]) -> list[Any]:
    return [encode(f"{path}[{i}]", item) for i, item in enumerate(value)]


_WRITERS: tuple[tuple[tuple[type, ...], Callable[[str, Any], Any]], ...] = (
    ((Shared,), _shared),
    ((NoneType, bool, int), _as_it_is),
    ((float,), _number),
    ((str, Promise), storable_text),
    ((Model,), _reference),
    ((QuerySet,), _rows),
    ((Mapping,), _mapping),
    ((list, tuple), _sequence),  # no set: it has no order, and the same email must be the same twice
)


class Loader:
    """Decodes contexts, and loads what they refer to with one query for each model.

    Announce every context with ``expect`` before the first is decoded, so that a slice shares its queries.
    """

    def __init__(self) -> None:
        self._wanted: dict[tuple[str, str], set[Any]] = defaultdict(set)
        self._found: dict[tuple[str, str], dict[Any, Model]] = {}

    def expect(self, stored: Any) -> None:
        """Note what ``stored`` refers to."""
        for tag in _tagged(stored):
            if tag[TAG] in ("model", "queryset"):
                keys = tag["pks"] if tag[TAG] == "queryset" else [tag["pk"]]
                self._wanted[tag["model"], tag["db"]].update(self.decode("", key) for key in keys)

    def decode(self, path: str, stored: Any) -> Any:
        """The value that was stored. Raises ``RenderError`` if a row that it refers to is gone."""
        if isinstance(stored, list):
            return [self.decode(f"{path}[{i}]", item) for i, item in enumerate(stored)]
        if not isinstance(stored, dict):
            return stored
        match stored.get(TAG):
            case None:
                return {key: self.decode(f"{path}[{key!r}]", item) for key, item in stored.items()}
            case "dict":
                return {key: self.decode(f"{path}[{key!r}]", item) for key, item in stored["v"].items()}
            case "model":
                return self._load(path, stored, self.decode(path, stored["pk"]))
            case "queryset":
                return self._queryset(path, stored)
            case name if name in _codecs:
                return _codecs[name].read(stored["v"])
        raise RenderError(f"{path}: nothing is registered as {stored[TAG]!r}")

    def _queryset(self, path: str, stored: dict[str, Any]) -> QuerySet[Model]:
        """Still a queryset (``items.count`` in a template), in the order of then."""
        keys = [self.decode(path, pk) for pk in stored["pks"]]
        rows: QuerySet[Model] = (
            apps.get_model(stored["model"])._base_manager.using(stored["db"]).filter(pk__in=keys)
        )
        rows._result_cache = [self._load(path, stored, pk) for pk in keys]
        return rows

    def _load(self, path: str, stored: dict[str, Any], pk: Any) -> Model:
        where = (stored["model"], stored["db"])
        if pk not in self._wanted[where]:
            self._wanted[where].add(pk)
            self._found.pop(where, None)
        if where not in self._found:
            model = apps.get_model(stored["model"])
            self._found[where] = model._base_manager.using(stored["db"]).in_bulk(self._wanted[where])
        try:
            return self._found[where][pk]
        except KeyError:
            raise RenderError(f"{path}: {stored['model']} {pk} does not exist any more") from None


def _tagged(stored: Any) -> Iterable[dict[str, Any]]:
    if isinstance(stored, list):
        for item in stored:
            yield from _tagged(item)
    elif isinstance(stored, dict):
        if TAG in stored and stored[TAG] != "dict":
            yield stored
        else:
            for item in (stored["v"] if TAG in stored else stored).values():
                yield from _tagged(item)
