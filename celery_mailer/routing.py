"""Lanes: which queue an email's priority leads to, and how every Celery app learns of these queues.

A plain ``celery -A proj worker`` consumes from what its app declares, so the lanes are added to the
app when it is finalised. The project's own queues and routes win, and its default queue is kept: a
``task_queues`` that is not empty would remove the implicit one.
"""

from collections.abc import Collection, Mapping
from typing import Any
from uuid import UUID

from celery import Celery, _state, chain
from kombu import Exchange, Queue
from kombu.exceptions import OperationalError

from celery_mailer import conf, logs
from celery_mailer.values import Priority

SEND_EMAIL = "celery_mailer.send_email"
SEND_TEMPLATE_EMAIL = "celery_mailer.send_template_email"
SEND_BULK_EMAIL = "celery_mailer.send_bulk_email"
RENDER = "celery_mailer.render"
DELIVER = "celery_mailer.deliver"
LOG = "celery_mailer.log"
DISPATCH = "celery_mailer.dispatch"
RESCUE = "celery_mailer.rescue"
SETTLE = "celery_mailer.settle"
CLEANUP = "celery_mailer.cleanup"
MATCH_EVENTS = "celery_mailer.match_events"
WATCH = "celery_mailer.watch"
RECORD_VISITS = "celery_mailer.record_visits"


def lane(priority: int) -> str:
    """The queue of ``priority``; what was sent ``now`` is retried in the high lane."""
    queues = conf.get().queues
    if priority >= Priority.HIGH:
        return queues.high
    return queues.medium if priority == Priority.MEDIUM else queues.low


def priority_of(queue: str) -> Priority | None:
    """The priority whose lane ``queue`` is, or ``None``."""
    lanes = {lane(p): p for p in (Priority.HIGH, Priority.MEDIUM, Priority.LOW)}
    return lanes.get(queue)


def route(
    name: str, args: Any, kwargs: Any, options: Any, task: Any = None, **rest: Any
) -> dict[str, str] | None:
    """Celery router for what carries no queue of its own: calls by name, beat, retries by hand.

    The periodic jobs go to the high lane: whoever serves mail serves them, and a backlog of
    the project's own tasks in the default queue cannot delay them.
    """
    if name in (DISPATCH, RESCUE, SETTLE, CLEANUP, MATCH_EVENTS, WATCH):
        return {"queue": lane(Priority.HIGH)}
    if name in (SEND_BULK_EMAIL, RECORD_VISITS):
        return {"queue": lane(Priority.LOW)}
    if name in (SEND_EMAIL, SEND_TEMPLATE_EMAIL, RENDER, DELIVER, LOG):
        wanted = _priority((kwargs or {}).get("priority"))
        return {"queue": lane(Priority[conf.get().default_priority.upper()] if wanted is None else wanted)}
    return None


def _priority(value: Any) -> Priority | None:
    """``value`` as a priority, by name or number; ``None`` if it is neither, which the task will say."""
    return next((p for p in Priority if value in (p.label, p.value)), None)


def add_lanes(app: Celery) -> None:
    """Add the lanes' queues and ``route`` to ``app``; called when it is finalised."""
    queues = app.conf.task_queues or [_queue(app, _default_queue(app))]
    if not isinstance(queues, Mapping):
        queues = {q.name: q for q in queues}
    wanted = (lane(p) for p in (Priority.HIGH, Priority.MEDIUM, Priority.LOW))
    lanes = {name: _queue(app, name) for name in wanted if name not in queues}
    app.conf.task_queues = {**queues, **lanes}
    if "queues" in vars(app.amqp):  # the app was in use before it heard of us
        for queue in lanes.values():
            app.amqp.queues.select_add(queue)
    routes = app.conf.task_routes or ()
    routes = list(routes) if isinstance(routes, list | tuple) else [routes]
    if route not in routes:
        # By ``update``, which tells an app that has made its router already.
        app.conf.update(task_routes=[*routes, route])


def _default_queue(app: Celery) -> str:
    return str(app.conf.task_default_queue)


def _queue(app: Celery, name: str) -> Queue:
    # RabbitMQ refuses to declare a queue anew with another type, so ours follow the project's default.
    is_default = name == _default_queue(app)
    kind = app.conf.task_default_exchange_type or "direct"
    exchange = (app.conf.task_default_exchange if is_default else None) or name
    key = (app.conf.task_default_routing_key if is_default else None) or name
    quorum = {"x-queue-type": "quorum"} if app.conf.task_default_queue_type == "quorum" else None
    return Queue(name, Exchange(exchange, type=kind), routing_key=key, queue_arguments=quorum)


def connect() -> None:
    """Have every Celery app, finalised already or later, serve the lanes."""
    # Private, but it is what ``shared_task`` itself stands on; the public signals need the app object
    # or do not fire in web processes.
    _state.connect_on_app_finalize(add_lanes)
    for app in _state._get_active_apps():  # type: ignore[attr-defined]
        # With faulty settings the project must come up far enough for the system checks to say so.
        if app.finalized and not conf.problems():
            add_lanes(app)


def deliver_rest(app: Celery, ids: Collection[UUID], queue: str | None) -> None:
    """Start a chain for what a slice had no time for; if the broker does not take it, the dispatcher will."""
    names = [str(pk) for pk in ids]
    options = {"queue": queue} if queue else {}
    steps = [app.signature(name, args=(names,), immutable=True, options=options) for name in (DELIVER, LOG)]
    try:
        chain(*steps).apply_async()
    except OperationalError as error:
        logs.broker_not_reached(error, len(ids))
