"""Counts the queries of all processes of a contestant: an app, so that it is there before any of them."""

import os

from django.db.backends.signals import connection_created
from django.dispatch import receiver

from tests.bench.config import Config

_file = os.open(Config.from_environment().queries, os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def _note(execute, sql, params, many, context):
    os.write(_file, b".")  # appended whole, whoever else writes
    return execute(sql, params, many, context)


def _count_copies(connection) -> None:
    """COPY goes past Django's wrappers, straight to psycopg's cursor."""
    cursors = connection.connection.cursor_factory

    class Counting(cursors):
        def copy(self, *args, **kwargs):
            os.write(_file, b".")
            return super().copy(*args, **kwargs)

    connection.connection.cursor_factory = Counting


@receiver(connection_created)
def watch(connection, **kwargs) -> None:
    _count_copies(connection)
    if _note not in connection.execute_wrappers:
        connection.execute_wrappers.append(_note)
