"""How many pixels and clicks one process answers in a second, and that none is lost.

    pip install -e ".[test,bench]"
    CELERY_MAILER_SERVICES=required python -m tests.bench.tracking_views [granian|gunicorn] [SECONDS]

One process of a web server answers on loopback, with the middleware of the test project, as behind a proxy
that keeps its connections. A client in a process of its own asks over eight, each time for another mail, with
a browser's headers. A private Redis is the broker; a worker with two processes writes to PostgreSQL, which
takes no connection for a second in the middle. Then the server is stopped as a deployment stops it (SIGTERM).
In the end there must be an event for each request.

Granian reads HTTP outside of Python, so that the time is Django's and the views'; with gunicorn's threads
about as much again is the server's own.

The server has a CPU to itself, as far as the machine is left alone; client, broker and worker share the rest.
``server_cpu`` and ``client_cpu`` are the parts of the time in which each has run: where the server's is
well below 1, something else was the limit, and ``per_cpu_second`` says what it can do. ``load`` is the
machine's, before.
"""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Timer

import psycopg

from tests.servers import databases
from tests.servers.broker import private_broker
from tests.servers.smtp import free_port
from tests.site import Process, Site, wait_until

MAILER = """{
    'TRACKING': {'ENABLED': True, 'BASE_URL': 'https://mail.example.com'},
    'STREAMS': {'transactional': {'TRACK_OPENS': 'identified', 'TRACK_CLICKS': 'identified'}},
}"""
DOWN = 1.0  # seconds
ADDRESS = "127.0.0.1"
APP = "django.core.wsgi:get_wsgi_application"
SERVERS = {
    "granian": [
        "--interface=wsgi",
        "--workers=1",
        "--blocking-threads=1",
        f"--host={ADDRESS}",
        "--factory",
        APP,
    ],
    "gunicorn": ["--worker-class=gthread", "--threads=4", "--keep-alive=60", f"{APP}()"],
}
TICKS = os.sysconf("SC_CLK_TCK")

PATHS = """
from celery_mailer import mail, tokens
from celery_mailer.tokens import Mark, Purpose

later = dict(subject="s", message="m", scheduled_time="2100-01-01")
emails = mail.send_many([dict(recipients=f"u{i}@example.com", **later) for i in range(500)])
result = []
for email in emails:
    target = "https://shop.example/product?id=17&utm_source=mail"
    result.append("/mail/o/" + tokens.sign(Purpose.OPEN, tokens.pack_mark(Mark(email.pk))))
    result.append("/mail/c/" + tokens.sign(Purpose.CLICK, tokens.pack_mark(Mark(email.pk), target)))
"""

CLIENT = """
import json, selectors, socket, sys, time
from collections import Counter
from itertools import cycle

port, seconds, connections, paths = json.load(sys.stdin)
headers = '''Host: mail.example.com
User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0
Accept: image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5
Accept-Language: en-GB,en;q=0.5
Accept-Encoding: gzip, deflate, br, zstd
Referer: https://webmail.example.net/
Sec-Fetch-Dest: image
Sec-Fetch-Mode: no-cors
Sec-Fetch-Site: cross-site
X-Forwarded-For: 192.0.2.17
X-Forwarded-Proto: https
'''
requests = cycle([f"GET {path} HTTP/1.1\\n{headers}\\n".replace("\\n", "\\r\\n").encode() for path in paths])

def is_whole(answer):
    head, found, body = answer.partition(b"\\r\\n\\r\\n")
    if not found:
        return False
    length = head.lower().partition(b"content-length:")[2]
    return len(body) >= int(length.split()[0]) if length else body.endswith(b"0\\r\\n\\r\\n")

statuses, answers, selector = Counter(), {}, selectors.DefaultSelector()
begin, cpu = time.perf_counter(), time.process_time()
for _ in range(connections):
    sock = socket.create_connection(("127.0.0.1", port), timeout=20)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    selector.register(sock, selectors.EVENT_READ)
    answers[sock] = b""
    sock.sendall(next(requests))
while answers:
    for key, _ in selector.select(20):
        sock = key.fileobj
        data = sock.recv(65536)
        assert data, "the server has closed a connection"
        answers[sock] += data
        if is_whole(answers[sock]):
            statuses[answers[sock][9:12].decode()] += 1
            if time.perf_counter() - begin < seconds:
                answers[sock] = b""
                sock.sendall(next(requests))
            else:
                selector.unregister(sock)
                answers.pop(sock)
                sock.close()
took, cpu = time.perf_counter() - begin, time.process_time() - cpu
print(json.dumps({"took": took, "cpu": cpu, "statuses": statuses}))
"""


def measure(name: str = "granian", seconds: float = 6) -> dict:
    """The figures of one run, by the server of that ``name``."""
    load = os.getloadavg()[0]
    with databases.postgres() as url, private_broker() as broker:
        site = Site(url, broker.url, 1, MAILER)
        try:
            site.migrate()
            paths = site.run(PATHS)
            port = free_port()
            with _cpus(own=True):
                server = _serve(site, name, port)
            with _cpus(own=False):
                worker = site.worker("-c", "2")
                stop = Timer(seconds / 2, _stop_for_a_moment, [url])
                stop.start()
                before = _cpu_seconds(server)
                client = _ask(port, seconds, paths)
                cpu = _cpu_seconds(server) - before
                stop.join()
            server.stop()
            number, took = sum(client["statuses"].values()), client["took"]
            return {
                "server": name,
                "requests": number,
                "per_second": round(number / took),
                "per_cpu_second": round(number / cpu),
                "server_cpu": round(cpu / took, 2),
                "client_cpu": round(client["cpu"] / took, 2),
                "load": round(load, 2),
                "statuses": client["statuses"],
                "recorded": _recorded(url, number),
                "retried": worker.output().count("retry: Retry in"),
            }
        finally:
            site.close()


@contextmanager
def _cpus(*, own: bool) -> Iterator[None]:
    """What is started inside runs on one CPU, the server's ``own``, or on all the others."""
    first, *others = before = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {first} if own or not others else others)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _serve(site: Site, name: str, port: int) -> Process:
    where = f"--port={port}" if name == "granian" else f"--bind={ADDRESS}:{port}"
    server = site._start(name, [sys.executable, "-m", name, where, *SERVERS[name]])

    def answers() -> bool:
        assert server.popen.poll() is None, server.output()
        with suppress(OSError), urllib.request.urlopen(f"http://{ADDRESS}:{port}/mail/o/nobodys") as answer:
            return answer.status == 200
        return False

    wait_until("the server answers", answers)
    return server


def _ask(port: int, seconds: float, paths: list[str]) -> dict:
    done = subprocess.run(
        [sys.executable, "-c", CLIENT],
        input=json.dumps([port, seconds, 8, paths]),
        capture_output=True,
        text=True,
        timeout=seconds + 60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _cpu_seconds(server: Process) -> float:
    """What the process that answers has used so far; the other only watches it."""
    (pid,) = server.children()
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _stop_for_a_moment(url: str) -> None:
    server, _, name = url.rpartition("/")
    with psycopg.connect(f"{server}/postgres", autocommit=True) as admin:
        admin.execute(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false")
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        time.sleep(DOWN)
        admin.execute(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true")


def _recorded(url: str, wanted: int) -> int:
    """The events that were written, once they are all there or none has come for a while."""
    with psycopg.connect(url, autocommit=True) as connection:

        def count() -> int:
            return connection.execute("SELECT count(*) FROM celery_mailer_event").fetchone()[0]

        with suppress(AssertionError):
            wait_until("every event", lambda: count() >= wanted, timeout=120, every=0.5)
        return count()


if __name__ == "__main__":
    print(json.dumps(measure(*sys.argv[1:2], *map(float, sys.argv[2:])), indent=2))
