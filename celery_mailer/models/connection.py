"""Database connections that are kept open between tasks, and die in the meantime.

With ``CELERY_DB_REUSE_MAX`` Celery reuses a connection without looking whether it still lives. What is
idempotent says so with ``survives_lost_connection``, and is simply done again on a new one.
"""

from django.db import InterfaceError, OperationalError, connections
from tenacity import RetryCallState, retry, retry_if_exception_type, stop_after_attempt, wait_random

LOST = (OperationalError, InterfaceError)


def drop_dead(state: RetryCallState | None = None) -> None:
    """Close this thread's connections that no longer answer; those inside a transaction are left alone."""
    for connection in connections.all(initialized_only=True):
        connection.close_if_unusable_or_obsolete()


# Once more, and after a moment: a deadlock with another worker is an OperationalError too.
survives_lost_connection = retry(
    retry=retry_if_exception_type(LOST),
    stop=stop_after_attempt(2),
    wait=wait_random(0, 0.1),
    before_sleep=drop_dead,
    reraise=True,
)
