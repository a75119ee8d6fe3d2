"""The servers that some tests need: where they are, and what happens where they are not."""

import importlib.util
import os
import shutil
import socket

import pytest

PORTS = {"redis": 6379, "rabbitmq": 5672, "postgres": 5432, "mariadb": 3306}


def promised() -> bool:
    """Whether the servers of this machine may be used, and must be there."""
    return os.environ.get("CELERY_MAILER_SERVICES") == "required"


def require(name: str) -> None:
    """Skip the test, by name, unless servers were promised; then their absence is a failure.

    A server that merely happens to run here may be somebody's: databases are made and queues are filled
    only on those that the environment offers.
    """
    if not promised():
        pytest.skip(f"needs {name}: set CELERY_MAILER_SERVICES=required where the servers may be used")
    try:
        socket.create_connection(("127.0.0.1", PORTS[name]), timeout=2).close()
    except OSError:
        pytest.fail(f"{name} is not running on 127.0.0.1:{PORTS[name]}")


def chromium() -> str:
    """The path of Chromium; where it or Playwright, which leads it, is missing, as with ``require``."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        missing("Chromium: apt-get install chromium")
    if importlib.util.find_spec("playwright") is None:
        missing("the extra `browser`: make browser")
    return path


def missing(what: str) -> None:
    (pytest.fail if promised() else pytest.skip)(f"needs {what}")
