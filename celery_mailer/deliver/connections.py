"""Keeps to MAX_CONNECTIONS: one place among all workers for each connection that is in use."""

from collections.abc import Iterator
from contextlib import contextmanager

from celery_mailer import conf
from celery_mailer.deliver import limits, providers


@contextmanager
def place(alias: str) -> Iterator[bool]:
    """Whether a connection to ``alias`` may be open while inside.

    Where the number is limited, it is closed afterwards: an idle one would keep its place from others.
    """
    rules = conf.get().providers.get(alias)
    if rules is None or rules.max_connections is None:
        yield True
        return
    token = limits.connect(alias)
    try:
        yield token is not None
    finally:
        if token is not None:
            providers.close(alias)
            limits.release(alias, token)
