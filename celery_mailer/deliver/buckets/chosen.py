"""Which store this process uses: ``REDIS_URL``, else the broker where that is Redis, else the database."""

import os
from typing import Any

import redis
from celery import current_app
from redis.backoff import NoBackoff
from redis.retry import Retry

from celery_mailer import conf, options
from celery_mailer.deliver.buckets.contract import Buckets
from celery_mailer.deliver.buckets.database import DatabaseBuckets
from celery_mailer.deliver.buckets.fallback import Fallback
from celery_mailer.deliver.buckets.process import ProcessBuckets
from celery_mailer.deliver.buckets.redis import RedisBuckets

TIMEOUT = 0.5  # seconds: mail waits for the answer

_chosen: tuple[options.Settings, Buckets] | None = None


def store() -> Buckets:
    """The store of this process: made once, and anew after a fork and when the settings change."""
    global _chosen  # noqa: PLW0603
    settings = conf.get()
    if _chosen is None or _chosen[0] is not settings:
        _chosen = settings, _make(settings.redis_url)
    return _chosen[1]


def _make(url: str | None) -> Buckets:
    if url is not None:
        return _in_redis(url)
    broker: Any = current_app.connection_for_write()
    # Others of its transports (Sentinel, sockets) are not the same as a URL of redis-py.
    if broker.transport_cls not in ("redis", "rediss") or "://" in (broker.hostname or ""):
        return DatabaseBuckets()
    url = broker.as_uri(include_password=True)
    if broker.ssl:
        return _in_redis("rediss://" + url.partition("://")[2], broker.ssl)
    return _in_redis(url)


def _in_redis(url: str, tls: Any = None) -> Buckets:
    client = redis.Redis.from_url(
        url,
        socket_timeout=TIMEOUT,
        socket_connect_timeout=TIMEOUT,
        # Once more where the line was found dead, as after a restart; not for one that is slow.
        retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
        **(tls if isinstance(tls, dict) else {}),
    )
    return Fallback(RedisBuckets(client), ProcessBuckets(), redis.RedisError)


def _after_fork() -> None:
    global _chosen  # noqa: PLW0603
    _chosen = None  # the sockets are the parent's, and so may be a lock


os.register_at_fork(after_in_child=_after_fork)
