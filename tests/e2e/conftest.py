import contextlib

import pytest

from tests.servers import databases
from tests.servers.broker import private_broker
from tests.servers.smtp import SmtpServer
from tests.services import require
from tests.site import Site

# A lease and retries short enough to watch; the times of the real defaults are only longer. One hand-over may
# take half of the lease: more than a busy machine stalls.
BRISK = """{
    'LEASE': timedelta(seconds=10),
    'RETRY': {'MIN': timedelta(seconds=1), 'MAX': timedelta(seconds=2)},
}"""


@pytest.fixture
def smtp():
    with SmtpServer() as server:
        yield server


@pytest.fixture
def broker():
    """A private broker that the test may stop, kill and flush."""
    with private_broker() as broker:
        yield broker


@pytest.fixture
def make_site(tmp_path, smtp, request):
    """Makes installations on the servers named, and takes them down with all their processes."""
    with contextlib.ExitStack() as stack:

        def make(database="sqlite", broker="private", smtp_port=None, mailer=BRISK, **more):
            folder = tmp_path / f"site{len(list(tmp_path.iterdir()))}"
            folder.mkdir()
            opened = {
                "sqlite": lambda: databases.sqlite(folder),
                "postgres": databases.postgres,
                "mariadb": databases.mariadb,
            }[database]()
            url = stack.enter_context(opened)
            broker_url = _broker_url(broker, stack)
            site = Site(url, broker_url, smtp_port or smtp.port, mailer, **more)
            stack.callback(_forget_queues, site)
            stack.callback(site.close)
            site.migrate()
            return site

        yield make


def _broker_url(name, stack):
    if "://" in name:
        return name
    if name == "redis":
        require("redis")
        return "redis://127.0.0.1:6379/13"
    if name == "rabbitmq":
        require("rabbitmq")
        return "amqp://guest:guest@127.0.0.1:5672//"
    return stack.enter_context(private_broker()).url


def _forget_queues(site):
    """Remove what the test left on a broker that goes on running."""
    from kombu import Connection

    control = [f"{site.prefix}.pidbox", f"reply.{site.prefix}.pidbox"]
    names = [*site.queues.values(), site.config["default_queue"], *control]
    if site.config["broker"].startswith("amqp"):
        with Connection(site.config["broker"]) as connection:
            for name in names:
                with connection.channel() as channel:
                    channel.queue_delete(name)
                    channel.exchange_delete(name)
    elif ":6379/" in site.config["broker"]:
        import redis

        client = redis.Redis.from_url(site.config["broker"])
        keys = [key for name in names for key in client.scan_iter(f"*{name}*")]
        if keys:
            client.delete(*keys)
        client.close()
