"""JSON that is read quickly, and JSON that keeps the order of its keys."""

import json
from typing import Any

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper

_EMPTY: dict[Any, Any] = {"[]": list, "{}": dict}


class QuickJSON(models.JSONField):
    """A ``JSONField`` of what is mostly empty, which then needs no decoder."""

    def from_db_value(self, value: Any, expression: Any, connection: BaseDatabaseWrapper) -> Any:
        if type(value) is str and (empty := _EMPTY.get(value)):
            return empty()
        return super().from_db_value(value, expression, connection)


class OrderedJSON(QuickJSON):
    """JSON stored as text, for what nobody searches by key.

    PostgreSQL's ``jsonb`` sorts keys by length; the order of an email's headers, and of a dict that a
    template loops over, is the caller's.
    """

    def db_type(self, connection: BaseDatabaseWrapper) -> str | None:
        return models.TextField().db_type(connection)

    def db_check(self, connection: BaseDatabaseWrapper) -> str | None:
        return None

    def get_db_prep_value(self, value: Any, connection: BaseDatabaseWrapper, prepared: bool = False) -> Any:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
