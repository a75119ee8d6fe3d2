"""`manage.py demo`, as `make demo` runs it: with nothing but what it brings, and nothing left after it."""

import os
import re
import secrets
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.site import wait_until

ROOT = Path(__file__).parent.parent
MARK = "CELERY_MAILER_TEST_DEMO"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


class Demo:
    """The demo in a process of its own; its temporary files are in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mark = f"{MARK}={secrets.token_hex(8)}"
        env = {k: v for k, v in os.environ.items() if k not in ("BROKER_URL", "DATABASE_URL")}
        name, _, value = self.mark.partition("=")
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "example_project" / "manage.py"), "demo"],
            env=env | {name: value, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def read_until(self, words: str) -> None:
        for line in self.process.stdout:
            if words in line:
                return
        pytest.fail(f"the demo ended before it said {words!r}")

    def end(self, timeout: float = 90) -> tuple[int, str]:
        output, _ = self.process.communicate(timeout=timeout)
        return self.process.returncode, output

    def processes(self) -> list[int]:
        """Every process that inherited the mark; where there is no /proc, this cannot be said."""
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                if self.mark.encode() in path.read_bytes().split(b"\0"):
                    found.append(int(path.parent.name))
            except OSError:
                continue  # ended meanwhile, or is somebody else's
        return found


@pytest.fixture
def demo(tmp_path):
    demo = Demo(tmp_path)
    yield demo
    if demo.process.poll() is None:
        demo.process.kill()
    demo.process.communicate()


def test_shows_the_emails_and_leaves_nothing(demo):
    status, output = demo.end()
    assert status == 0, output
    assert "206 emails: 1 failed, 205 sent. Each sent one was received exactly once" in output
    assert "The mail server received 205 mails:" in output
    for to, subject in {
        "ada": "Password reset on localhost",
        "busy": "Welcome to the Teapot Shop, Bea",
        r"reader\d{3}": "Teapot news: The new blue glaze is here",
    }.items():
        assert re.search(rf"^  {to}@demo.example +\d+ bytes  {subject}$", output, re.MULTILINE), output
    assert "451 4.7.1 Greylisted" in output
    assert "failed, reason 'recipient'" in output
    assert "bob@" not in output
    wait_until("the end of every process", lambda: demo.processes() == [])
    assert list(demo.folder.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_good_order(demo, number):
    demo.read_until("SMTP server" if number == signal.SIGINT else "The worker is ready")
    demo.process.send_signal(number)
    status, output = demo.end()
    assert status == 128 + number, output
    wait_until("the end of every process", lambda: demo.processes() == [])
    assert list(demo.folder.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux's kernel ends children with their parent")
def test_killed_outright_it_takes_its_children_with_it(demo):
    demo.read_until("The worker is ready")
    assert len(demo.processes()) > 4  # the demo, the broker, beat, the worker and its pool
    demo.process.kill()
    demo.process.wait(10)
    wait_until("the end of every process", lambda: demo.processes() == [])
