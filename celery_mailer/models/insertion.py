"""Inserts new rows by the quickest way that the database has.

``bulk_create`` prepares every value by generic code, field by field, and on PostgreSQL hands the rows over
as arrays, whose text is escaped once more: 256 microseconds for an email and its content. Here what needs
no preparing goes as it is, many rows by ``COPY`` (54 microseconds), a single one by a statement that is put
together once (CPU of this process, 500 at a time; psycopg 3.3, PostgreSQL 15).
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from datetime import datetime
from functools import cache
from json import JSONEncoder
from types import NoneType
from typing import Any
from uuid import UUID

from django.db import IntegrityError, connections, models, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.constants import OnConflict

Rows = Sequence[models.Model]
ENOUGH = 5  # rows from which on COPY takes less time than INSERT

_PLAIN = {str, int, bool, NoneType}  # what every driver takes as it is
_json = JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def insert(rows: Rows, using: str, *, new_only: bool = False) -> None:
    """Insert ``rows`` of one model into the database ``using``; with ``new_only``, those that are not there.

    Each has its key already. No ``save`` is called and no signal sent. Raises ``IntegrityError``.
    """
    if not rows:
        return
    connection = connections[using]
    if len(rows) == 1:
        _insert_one(rows[0], connection, new_only)
    elif len(rows) < ENOUGH or not _can_copy(connection):
        _insert_many(rows, using, new_only)
    elif not new_only:
        _copy(rows, connection)
    else:
        _copy_new(rows, connection)
    for row in rows:
        row._state.adding, row._state.db = False, using


def insert_both(first: models.Model, second: models.Model, using: str) -> None:
    """Insert two rows of different models, both or neither.

    PostgreSQL does it in one statement, which outside a transaction saves three round trips.
    """
    connection = connections[using]
    if connection.vendor != "postgresql":
        with transaction.atomic(using=using, savepoint=False):
            insert([first], using)
            insert([second], using)
        return
    statements = [_statement(type(row), using, new_only=False) for row in (first, second)]
    with connection.cursor() as cursor:
        cursor.execute(
            f"WITH first AS ({statements[0]}) {statements[1]}",
            [*_values(first, connection), *_values(second, connection)],
        )
    for row in (first, second):
        row._state.adding, row._state.db = False, using


def _insert_many(rows: Rows, using: str, new_only: bool) -> None:
    manager = type(rows[0])._base_manager.using(using)
    manager.bulk_create(rows, batch_size=500, ignore_conflicts=new_only)


def _insert_one(row: models.Model, connection: BaseDatabaseWrapper, new_only: bool) -> None:
    with connection.cursor() as cursor:
        cursor.execute(_statement(type(row), connection.alias, new_only), _values(row, connection))


def _values(row: models.Model, connection: BaseDatabaseWrapper) -> list[Any]:
    return [read(row, connection) for read in _readers(type(row), connection.vendor)]


def _can_copy(connection: BaseDatabaseWrapper) -> bool:
    if connection.vendor != "postgresql":
        return False
    from django.db.backends.postgresql.psycopg_any import is_psycopg3

    return bool(is_psycopg3)


def _copy(rows: Rows, connection: Any) -> None:
    model = type(rows[0])
    table, columns = _names(model, connection)
    statement = f"COPY {table} ({columns}) FROM STDIN"
    with connection.cursor() as cursor, connection.wrap_database_errors, cursor.copy(statement) as copy:
        for row in rows:
            copy.write_row(_values(row, connection))


def _copy_new(rows: Rows, connection: BaseDatabaseWrapper) -> None:
    """COPY knows no conflicts; but they are rare: a task that was repeated, an answer that was lost."""
    # COPY is all or nothing by itself; in a transaction, a failure must not take the rest with it.
    nested = transaction.atomic(connection.alias) if connection.in_atomic_block else nullcontext()
    try:
        with nested:
            _copy(rows, connection)
    except IntegrityError:
        _insert_many(rows, connection.alias, new_only=True)


def _names(model: type[models.Model], connection: BaseDatabaseWrapper) -> tuple[str, str]:
    quote, fields = connection.ops.quote_name, model._meta.concrete_fields
    return quote(model._meta.db_table), ", ".join(quote(str(field.column)) for field in fields)


@cache
def _statement(model: type[models.Model], using: str, new_only: bool) -> str:
    connection = connections[using]
    table, columns = _names(model, connection)
    conflict = OnConflict.IGNORE if new_only else None
    verb = connection.ops.insert_statement(on_conflict=conflict)
    suffix = connection.ops.on_conflict_suffix_sql(model._meta.concrete_fields, conflict, [], [])
    marks = ", ".join(["%s"] * len(model._meta.concrete_fields))
    return f"{verb} {table} ({columns}) VALUES ({marks}) {suffix}".rstrip()


@cache
def _readers(model: type[models.Model], vendor: str) -> list[Callable[[Any, Any], Any]]:
    return [_reader(field, vendor) for field in model._meta.concrete_fields]


def _reader(field: Any, vendor: str) -> Callable[[Any, Any], Any]:
    """What gives ``field`` of a row as the driver takes it."""
    name = field.attname

    def prepared(row: Any, connection: Any) -> Any:
        return field.get_db_prep_save(field.pre_save(row, True), connection)

    def plain(row: Any, connection: Any) -> Any:
        value = getattr(row, name)
        if type(value) in _PLAIN or (native and _is_native(value)):
            return value
        return prepared(row, connection)

    def json(row: Any, connection: Any) -> Any:
        value = getattr(row, name)
        return None if value is None else _json(value)

    native = vendor == "postgresql"
    if _fills_itself(field):
        return prepared
    if isinstance(field, models.JSONField):
        return json if field.encoder is None and native else prepared
    return plain


def _fills_itself(field: Any) -> bool:
    if isinstance(field, models.DateTimeField):
        return field.auto_now or field.auto_now_add
    return type(field).pre_save is not models.Field.pre_save


def _is_native(value: Any) -> bool:
    """Whether psycopg knows it, and Django does nothing to it."""
    return type(value) is UUID or (type(value) is datetime and value.tzinfo is not None)
