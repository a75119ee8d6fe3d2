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
from typing import Any, TypeVar
from uuid import UUID

from django.db import IntegrityError, connections, models, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.base import ModelState
from django.db.models.constants import OnConflict

Row = TypeVar("Row", bound=models.Model)
Rows = Sequence[models.Model]
ENOUGH = 5  # rows from which on COPY takes less time than INSERT

Reader = Callable[[Any, Any], Any]

_PLAIN = frozenset({str, int, bool})  # what every driver takes as it is
_NOTHING: frozenset[type] = frozenset()
_EMPTY: dict[type, str] = {list: "[]", dict: "{}"}
_json = JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def new(model: type[Row], **values: Any) -> Row:
    """What ``model(**values)`` gives, in half of the time; ``values`` are by attribute (``batch_id``).

    No signal is sent, and no name is checked.
    """
    row = model.__new__(model)
    constant, made = _defaults(model)
    row.__dict__ = constant | values
    for name, make in made:
        if name not in values:
            row.__dict__[name] = make()
    row._state = ModelState()
    return row


@cache
def _defaults(model: type[models.Model]) -> tuple[dict[str, Any], list[tuple[str, Callable[[], Any]]]]:
    """By attribute: the defaults that are always the same, and what makes the others."""
    fields = model._meta.concrete_fields
    made = {f.attname: f.get_default for f in fields if f.has_default() and callable(f.default)}
    constant = {f.attname: f.get_default() for f in fields if f.attname not in made}
    return constant, list(made.items())


def point(row: models.Model, name: str, other: models.Model) -> None:
    """What ``row.name = other`` does, in half of the time; nobody is asked whether they may be related."""
    field: Any = row._meta.get_field(name)
    row.__dict__[field.attname] = other.pk
    field.set_cached_value(row, other)
    if field.one_to_one:
        field.remote_field.set_cached_value(other, row)


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
    values = row.__dict__
    return [
        # What most values are is decided here: a call for each would take as long as all the rest.
        value if (value := values[name]) is None or type(value) in as_it_is else read(row, connection)
        for name, as_it_is, read in _readers(type(row), connection.vendor)
    ]


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
def _readers(model: type[models.Model], vendor: str) -> list[tuple[str, frozenset[type], Reader]]:
    """For each field its attribute, the types that the driver takes as they are, and what prepares others."""
    return [(field.attname, *_reader(field, vendor)) for field in model._meta.concrete_fields]


def _reader(field: Any, vendor: str) -> tuple[frozenset[type], Reader]:
    name = field.attname

    def prepared(row: Any, connection: Any) -> Any:
        return field.get_db_prep_save(field.pre_save(row, True), connection)

    def plain(row: Any, connection: Any) -> Any:
        value = getattr(row, name)
        # With a time zone, Django does nothing to it.
        return value if type(value) is datetime and value.tzinfo is not None else prepared(row, connection)

    def json(row: Any, connection: Any) -> Any:
        value = getattr(row, name)
        return _EMPTY[type(value)] if not value and type(value) in _EMPTY else _json(value)

    native = vendor == "postgresql"
    if _fills_itself(field):
        return _NOTHING, prepared
    if isinstance(field, models.JSONField):
        return _NOTHING, json if field.encoder is None and native else prepared
    return (_PLAIN | {UUID}, plain) if native else (_PLAIN, prepared)


def _fills_itself(field: Any) -> bool:
    if isinstance(field, models.DateTimeField):
        return field.auto_now or field.auto_now_add
    return type(field).pre_save is not models.Field.pre_save
