"""How many pixels and clicks one process answers in a second, and that none is lost.

    python -m tests.bench.tracking_views [SECONDS]

One process calls Django's WSGI handler, with the middleware of the test project and without an HTTP server,
as fast as it can, each request for a mail of its own. A private Redis is the broker; a worker with two
processes writes to PostgreSQL, which takes no connection for a second in the middle. In the end there must
be an event for each request.
"""

import json
import sys
import time
from contextlib import suppress
from threading import Timer

import psycopg

from tests.servers import databases
from tests.servers.broker import private_broker
from tests.site import Site, wait_until

MAILER = """{
    'TRACKING': {'ENABLED': True, 'BASE_URL': 'https://mail.example.com'},
    'STREAMS': {'transactional': {'TRACK_OPENS': 'identified', 'TRACK_CLICKS': 'identified'}},
}"""
DOWN = 1.0  # seconds

WEB = """
import io, time
from itertools import cycle
from django.core.handlers.wsgi import WSGIHandler
from celery_mailer import mail, tokens
from celery_mailer.tokens import Mark, Purpose
from celery_mailer.tracking.visits import waiting

later = dict(subject="s", message="m", scheduled_time="2100-01-01")
emails = mail.send_many([dict(recipients=f"u{{i}}@example.com", **later) for i in range(500)])
paths = []
for email in emails:
    target = "https://shop.example/product?id=17&utm_source=mail"
    paths.append("/mail/o/" + tokens.sign(Purpose.OPEN, tokens.pack_mark(Mark(email.pk))))
    paths.append("/mail/c/" + tokens.sign(Purpose.CLICK, tokens.pack_mark(Mark(email.pk), target)))
agent = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
base = {{"REQUEST_METHOD": "GET", "SERVER_NAME": "mail.example.com", "SERVER_PORT": "443", "QUERY_STRING": "",
        "HTTP_USER_AGENT": agent, "wsgi.url_scheme": "https", "wsgi.errors": io.StringIO()}}
handler, statuses = WSGIHandler(), {{}}
number, begin, cpu = 0, time.perf_counter(), time.process_time()
for path in cycle(paths):
    request = {{**base, "PATH_INFO": path, "wsgi.input": io.BytesIO()}}
    response = handler(request, lambda status, headers: None)
    statuses[response.status_code] = statuses.get(response.status_code, 0) + 1
    response.close()
    number += 1
    if number % 100 == 0 and time.perf_counter() - begin >= {seconds}:
        break
took, cpu = time.perf_counter() - begin, time.process_time() - cpu
waiting.flush()
result = {{"requests": number, "per_second": round(number / took), "per_cpu_second": round(number / cpu),
          "statuses": statuses, "lost_in_the_process": waiting.lost}}
"""


def measure(seconds: float = 6) -> dict:
    """The figures of one run."""
    with databases.postgres() as url, private_broker() as broker:
        site = Site(url, broker.url, 1, MAILER)
        try:
            site.migrate()
            worker = site.worker("-c", "2")
            stop = Timer(seconds / 2 + 2, _stop_for_a_moment, [url])  # the process takes two seconds to begin
            stop.start()
            figures = site.run(WEB.format(seconds=seconds))
            stop.join()
            recorded = _recorded(url, figures["requests"])
            return figures | {"recorded": recorded, "retried": worker.output().count("retry: Retry in")}
        finally:
            site.close()


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
    print(json.dumps(measure(*map(float, sys.argv[1:])), indent=2))
