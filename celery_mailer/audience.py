"""Who a bulk call is for: recipients one after the other, from whatever the caller has them in.

Never all of them at once. A queryset is read in pages by its primary key: that is flat in memory on every
database, where ``iterator()`` has the whole result in memory on MySQL and behind a transaction pooler, and
keeps a cursor open for hours on the others. Only a queryset with an order of its own, slices or ``values()``
is read by ``iterator()``.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import reduce
from itertools import islice
from typing import Any

from django.db.models import Model, QuerySet
from django.db.models.query import ModelIterable

from celery_mailer.exceptions import InvalidEmail

PAGE = 1_000  # rows that are read at a time
KEYS = frozenset({"email", "name", "context", "language"})


class Audience:
    """The recipients in ``given``: addresses, dicts, model instances; in any iterable, or a queryset.

    ``email_field`` is where an instance, or a row of ``values()``, has its address; ``__`` leads to another
    row.
    """

    def __init__(self, given: Iterable[Any], email_field: str = "email") -> None:
        if isinstance(given, str | Mapping | Model) or not isinstance(given, Iterable):
            raise InvalidEmail("recipients", f"is a {type(given).__name__}, not a list or a queryset")
        self._given = given
        self._email_field = email_field

    def slices(self, first: int, most: int) -> Iterator[list[Any]]:
        """What there is, as it is in the source: ``read`` makes recipients of it.

        ``first`` of them to begin with, so that there is soon something to do, and each time twice as many,
        up to ``most``.
        """
        items = iter(_rows(self._given) if isinstance(self._given, QuerySet) else self._given)
        size = min(first, most)
        while taken := list(islice(items, size)):
            yield taken
            size = min(2 * size, most)

    def read(self, item: Any) -> Mapping[str, Any]:
        """``item`` as a dict with ``email`` and perhaps ``name``, ``context`` and ``language``.

        Raises ``InvalidEmail`` for what is none.
        """
        recipient = self._mapping(item)
        if not recipient.get("email"):
            raise InvalidEmail("email", "is empty")
        if unknown := recipient.keys() - KEYS:
            raise InvalidEmail("recipients", f"has the unknown key {min(map(str, unknown))!r}")
        if not isinstance(recipient.get("context") or {}, Mapping):
            raise InvalidEmail("context", f"is a {type(recipient['context']).__name__}, not a dict")
        return recipient

    def _mapping(self, item: Any) -> Mapping[str, Any]:
        if isinstance(item, str):
            return {"email": item}
        if isinstance(item, Model):
            return self._of_instance(item)
        if not isinstance(item, Mapping):
            raise InvalidEmail("recipients", f"is a {type(item).__name__}, not an address, a dict or a row")
        return self._of_values(item) if isinstance(self._given, QuerySet) else item

    def _of_instance(self, instance: Model) -> Mapping[str, Any]:
        """Its template finds ``instance`` by the name of its model: ``{{ user.first_name }}``."""
        try:
            email = reduce(getattr, self._email_field.split("__"), instance)
        except AttributeError:  # also of a related row that is not there
            raise InvalidEmail("email_field", f"{self._email_field!r} leads nowhere") from None
        # Django's users have a method for it.
        name = instance.get_full_name() if hasattr(instance, "get_full_name") else ""
        return {"email": email, "name": name, "context": {str(instance._meta.model_name): instance}}

    def _of_values(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """Columns that do not describe the recipient are context."""
        own = {"email": row.get(self._email_field), "name": row.get("name"), "language": row.get("language")}
        return own | {"context": {k: v for k, v in row.items() if k != self._email_field and k not in own}}


def _rows(rows: "QuerySet[Any]") -> Iterator[Any]:
    query = rows.query
    plain = issubclass(rows._iterable_class, ModelIterable) and not query.combinator
    own_order = query.order_by or query.extra_order_by or query.distinct_fields
    if plain and not own_order and not query.is_sliced:
        return _pages(rows.order_by("pk"))
    return rows.iterator(chunk_size=PAGE)


def _pages(rows: "QuerySet[Any]") -> Iterator[Any]:
    page = list(rows[:PAGE])
    while page:
        yield from page
        page = list(rows.filter(pk__gt=page[-1].pk)[:PAGE])
