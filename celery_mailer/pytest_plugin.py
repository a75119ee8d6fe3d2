"""Fixtures for pytest. Nothing of Django is imported before a test asks for one of them."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("celery_mailer")
    group.addoption("--update-mail-snapshots", action="store_true", help="write what mail_snapshot compares")


@pytest.fixture
def mailer(db: None) -> Iterator[Any]:
    """``celery_mailer.testing``, with the database and without what other tests have left in the process."""
    from celery_mailer import testing

    testing.forget()
    yield testing
    testing.forget()


@pytest.fixture
def mail_snapshot(request: pytest.FixtureRequest, db: None) -> Callable[..., None]:
    """``mail_snapshot(template, context, language)``: it says what it said when it was looked at last.

    The snapshots are files beside the test, in ``snapshots``; ``--update-mail-snapshots`` writes them.
    """
    from celery_mailer.testing import assert_snapshot, rendered

    folder = request.path.parent / "snapshots" / request.path.stem
    name = re.sub(r"[^\w.-]+", "_", request.node.name)
    update = request.config.getoption("--update-mail-snapshots")
    taken = iter(range(1, 1000))

    def compare(template: Any, context: Any = None, language: str | None = None) -> None:
        path = folder / f"{name}.{next(taken)}.txt"
        assert_snapshot(rendered(template, context, language), path, update=update)

    return compare
