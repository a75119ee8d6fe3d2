"""A whole installation for a test: its own database, lanes, workers and beat, in real processes.

The web process is a process of its own as well (``run``), so that it can be killed like the others.
"""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent
SETUP = "import json, django; django.setup()\nfrom datetime import timedelta\n"


def wait_until(what: str, condition: Callable[[], object], timeout: float = 60, every: float = 0.1):
    """The first true value of ``condition()``; fails, and says ``what`` is missing, after ``timeout`` s."""
    end = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < end, f"not within {timeout} s: {what}"
        time.sleep(every)
    return value


class Process:
    """A process of the installation, ended by its own pid and never by name."""

    def __init__(self, name: str, argv: list[str], env: dict[str, str], log: Path, cwd: Path = ROOT) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as out:
            self.popen = subprocess.Popen(
                argv, env=env, cwd=cwd, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
            )

    @property
    def pid(self) -> int:
        return self.popen.pid

    def children(self) -> list[int]:
        path = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        return [int(pid) for pid in path.read_text().split()] if path.exists() else []

    def kill(self) -> None:
        """kill -9, the pool children included: they die with their parent."""
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait(30)

    def stop(self, timeout: float = 20) -> None:
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
        try:
            self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()

    def output(self) -> str:
        return self.log.read_text(errors="replace")


class Site:
    """``database`` and ``broker`` are URLs, ``mailer`` the source of the ``CELERY_MAILER`` dict."""

    def __init__(self, database: str, broker: str, smtp_port: int, mailer: str = "{}", **more) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mailer-test-"))
        prefix = f"test-{secrets.token_hex(4)}"
        self.queues = {lane: f"{prefix}.{lane}" for lane in ("high", "medium", "low")}
        self.prefix = prefix
        self.processes: list[Process] = []
        celery = more.pop("celery", {})
        self.config = {
            "database": database,
            "broker": broker,
            "smtp_port": smtp_port,
            "media": str(self.folder / "media"),
            "default_queue": f"{prefix}.celery",
            "mailer": f"{{**{{'QUEUES': {self.queues!r}}}, **{mailer}}}",
            "transport_options": transport_options(broker),
            # Workers of another installation on the same broker must not answer to this one's commands.
            "celery": {"WORKER_PREFETCH_MULTIPLIER": 1, "CONTROL_EXCHANGE": prefix, **celery},
            **more,
        }

    @property
    def env(self) -> dict[str, str]:
        own = {"DJANGO_SETTINGS_MODULE": "tests.settings", "TEST_SITE": json.dumps(self.config)}
        return {**os.environ, **own, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}

    def migrate(self) -> None:
        self.manage("migrate", "-v0")

    def manage(self, *argv: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "django", *argv], env=self.env, cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, code: str) -> Process:
        """Run ``code`` as a web process and go on at once."""
        source = SETUP + textwrap.dedent(code)
        return self._start("web", [sys.executable, "-W", "ignore", "-c", source])

    def run(self, code: str, timeout: float = 120):
        """Run ``code`` as a web process; the value that it leaves in ``result``, through JSON."""
        source = (
            SETUP + textwrap.dedent(code) + "\nprint('\\n' + json.dumps(locals().get('result'), default=str))"
        )
        done = subprocess.run(
            [sys.executable, "-c", source],
            env=self.env,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.strip().splitlines()[-1])

    def worker(self, *options: str, wait: bool = True) -> Process:
        argv = [sys.executable, "-m", "celery", "-A", "tests", "worker", "-l", "INFO"]
        name = f"w{len(self.processes)}@{self.folder.name}"
        process = self._start("worker", [*argv, "-n", name, *options])
        if wait:
            wait_until(
                "the worker is ready", lambda: " ready." in process.output() or process.popen.poll(), 60
            )
            assert process.popen.poll() is None, process.output()
        return process

    def beat(self) -> Process:
        pidfile = f"--pidfile={self.folder / 'beat.pid'}"
        return self._start(
            "beat", [sys.executable, "-m", "celery", "-A", "tests", "beat", "-l", "INFO", pidfile]
        )

    def flower(self, port: int) -> Process:
        argv = [
            sys.executable,
            "-m",
            "celery",
            "-A",
            "tests",
            "flower",
            f"--port={port}",
            "--address=127.0.0.1",
        ]
        return self._start("flower", argv, FLOWER_UNAUTHENTICATED_API="1")

    def _start(self, name: str, argv: list[str], **env: str) -> Process:
        log = self.folder / f"{len(self.processes)}-{name}.log"
        process = Process(name, argv, {**self.env, **env}, log)
        self.processes.append(process)
        return process

    def statuses(self) -> dict[str, int]:
        return self.run("""
            from django.db.models import Count
            from celery_mailer.models import Email
            result = dict(Email.objects.values_list("status").annotate(Count("pk")))
        """)

    def wait_for(self, status: str, number: int, timeout: float = 60) -> None:
        """Wait until ``number`` emails have ``status``."""
        self.run(f"""
            import time
            from celery_mailer.models import Email
            from django.db.models import Count
            end = time.monotonic() + {timeout}
            while Email.objects.filter(status={status!r}).count() < {number}:
                left = dict(Email.objects.values_list("status").annotate(Count("pk")))
                assert time.monotonic() < end, left
                time.sleep(0.1)
        """)

    def close(self) -> None:
        for process in reversed(self.processes):
            process.stop()
        if os.environ.get("KEEP_LOGS"):
            return
        shutil.rmtree(self.folder)

    def logs(self) -> str:
        return "\n".join(f"== {p.log.name}\n{p.output()[-4000:]}" for p in self.processes)


def transport_options(broker: str) -> dict:
    if broker.startswith("redis"):
        return {"socket_timeout": 5, "socket_connect_timeout": 1}
    return {}
