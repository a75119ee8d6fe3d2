import re
import threading

import pytest
from celery import Celery, _state
from celery.exceptions import QueueNotFound
from kombu import Exchange, Queue

from celery_mailer import routing, tasks
from celery_mailer.chain import build
from celery_mailer.exceptions import InvalidSettings
from celery_mailer.values import Priority, uuid7

LANES = ["mail.high", "mail.medium", "mail.low"]
JOBS = [routing.DISPATCH, routing.RESCUE, routing.SETTLE, routing.CLEANUP]
STAGES = [routing.RENDER, routing.DELIVER, routing.LOG]


def project(**config):
    """A project's Celery app, before it is finalised."""
    app = Celery("proj", set_as_current=False)
    app.conf.update({"broker_url": "memory://", **config})
    return app


def served(app):
    """The queues that a plain worker of ``app`` consumes from."""
    app.finalize()
    return list(app.amqp.queues.consume_from)


def routed(app, name, **kwargs):
    """The queue to which a call of task ``name`` goes."""
    app.finalize()
    return app.amqp.router.route({}, name, (), kwargs)["queue"].name


def my_router(name, args, kwargs, options, task=None, **rest):
    return {"queue": "mine"} if name == routing.LOG else None


# Lanes.


@pytest.mark.parametrize(
    ("priority", "queue"),
    [
        (Priority.NOW, "mail.high"),
        (Priority.HIGH, "mail.high"),
        (Priority.MEDIUM, "mail.medium"),
        (Priority.LOW, "mail.low"),
    ],
)
def test_each_priority_has_a_lane(priority, queue):
    assert routing.lane(priority) == queue


def test_lanes_are_named_by_the_settings(settings):
    settings.CELERY_MAILER = {"QUEUES": {"low": "bulk"}}
    assert [routing.lane(p) for p in (2, 1, 0)] == ["mail.high", "mail.medium", "bulk"]


def test_a_lane_tells_its_priority():
    assert [routing.priority_of(q) for q in LANES] == [Priority.HIGH, Priority.MEDIUM, Priority.LOW]


def test_a_queue_that_is_no_lane_has_no_priority():
    assert routing.priority_of("celery") is None


# Which queues an app serves.


def test_a_plain_app_serves_its_default_queue_and_the_lanes():
    assert served(project()) == ["celery", *LANES]


def test_an_app_that_is_configured_after_it_was_made_is_served_too():
    app = Celery("proj", set_as_current=False)
    app.conf.broker_url = "memory://"
    app.conf.task_default_queue = "work"
    assert served(app) == ["work", *LANES]


def test_an_app_that_reads_its_settings_late_serves_the_lanes():
    app = Celery("proj", set_as_current=False)
    app.config_from_object({"broker_url": "memory://", "task_default_queue": "work"})
    assert served(app) == ["work", *LANES]


def test_lanes_of_other_names_are_served(settings):
    settings.CELERY_MAILER = {"QUEUES": {"high": "a", "medium": "b", "low": "c"}}
    assert served(project()) == ["celery", "a", "b", "c"]


def test_a_list_of_queues_is_kept():
    assert served(project(task_queues=[Queue("feeds")])) == ["feeds", *LANES]


def test_a_dict_of_queues_is_kept_with_what_it_says_of_them():
    app = project(task_queues={"feeds": {"exchange": "f", "binding_key": "b"}, "plain": {}})
    assert served(app) == ["feeds", "plain", *LANES]
    assert app.amqp.queues["feeds"].exchange.name == "f"
    assert app.amqp.queues["feeds"].routing_key == "b"
    assert app.amqp.queues["plain"].routing_key == "plain"


def test_a_project_that_leaves_its_default_queue_out_has_its_way():
    assert "celery" not in served(project(task_queues=(Queue("feeds"),)))


def test_a_lane_that_the_project_declares_itself_is_left_as_it_is():
    app = project(task_queues=[Queue("mail.high", Exchange("own"), routing_key="own")])
    assert served(app) == LANES
    assert app.amqp.queues["mail.high"].exchange.name == "own"


def test_a_lane_may_be_the_default_queue(settings):
    settings.CELERY_MAILER = {"QUEUES": {"medium": "celery"}}
    assert served(project()) == ["celery", "mail.high", "mail.low"]


def test_the_default_queue_is_what_celery_would_have_made():
    ours, celerys = project(), project()
    for app in (ours, celerys):
        app.conf.update(task_default_exchange="x", task_default_routing_key="k")
    served(ours)
    # Not finalised, so not ours yet.
    assert list(celerys.amqp.queues) == ["celery"]
    assert ours.amqp.queues["celery"] == celerys.amqp.queues["celery"]


def test_only_the_lane_that_is_asked_for_is_served():
    app = project()
    app.finalize()
    app.amqp.queues.select(["mail.high"])
    assert list(app.amqp.queues.consume_from) == ["mail.high"]


def test_lanes_are_of_the_projects_queue_type():
    app = project(task_default_queue_type="quorum", task_default_exchange_type="topic")
    for name in served(app):
        assert app.amqp.queues[name].queue_arguments == {"x-queue-type": "quorum"}
        assert app.amqp.queues[name].exchange.type == "topic"


def test_lanes_are_plain_queues_by_default():
    app = project()
    for name in served(app):
        assert app.amqp.queues[name].queue_arguments is None
        assert app.amqp.queues[name].exchange.type == "direct"


def test_every_app_of_a_process_serves_the_lanes():
    one, two = project(), project(task_default_queue="work")
    assert served(one) == ["celery", *LANES]
    assert served(two) == ["work", *LANES]


def test_an_app_that_is_finalised_in_another_thread_serves_the_lanes():
    app = project()
    thread = threading.Thread(target=app.finalize)
    thread.start()
    thread.join()
    assert served(app) == ["celery", *LANES]


# Apps that were finalised before ours was ready.


@pytest.fixture
def early(monkeypatch):
    """Apps that are finalised as if ours were not installed, until ``connect`` is called."""
    monkeypatch.setattr(_state, "_on_app_finalizers", _state._on_app_finalizers - {routing.add_lanes})

    def _early(**config):
        app = project(**config)
        app.finalize()
        monkeypatch.setattr(_state, "_get_active_apps", lambda: [app])
        return app

    return _early


def test_an_app_that_was_finalised_before_serves_the_lanes(early):
    app = early()
    routing.connect()
    assert served(app) == ["celery", *LANES]
    assert routed(app, routing.DISPATCH) == "mail.high"


def test_an_app_that_was_in_use_before_serves_the_lanes(early):
    app = early()
    assert list(app.amqp.queues) == ["celery"]
    assert app.amqp.router
    routing.connect()
    assert served(app) == ["celery", *LANES]
    assert routed(app, routing.DISPATCH) == "mail.high"


def test_with_faulty_settings_such_an_app_is_left_alone(early, settings):
    settings.CELERY_MAILER = {"NONSENSE": 1}
    app = early()
    routing.connect()
    assert served(app) == ["celery"]


def test_with_faulty_settings_no_app_starts(settings):
    settings.CELERY_MAILER = {"NONSENSE": 1}
    with pytest.raises(InvalidSettings, match="NONSENSE"):
        project().finalize()


def test_adding_the_lanes_twice_is_adding_them_once():
    app = project()
    app.finalize()
    routing.add_lanes(app)
    assert served(app) == ["celery", *LANES]
    assert app.conf.task_routes.count(routing.route) == 1


# Routes.


@pytest.mark.parametrize("job", JOBS)
def test_the_periodic_jobs_go_to_the_high_lane(job):
    assert routed(project(), job) == "mail.high"


@pytest.mark.parametrize("name", [*STAGES, routing.SEND_EMAIL])
def test_a_task_by_name_goes_to_the_lane_of_the_default_priority(name):
    assert routed(project(), name) == "mail.medium"


@pytest.mark.parametrize(
    ("given", "queue"), [("low", "mail.low"), ("now", "mail.high"), ("high", "mail.high")]
)
def test_the_default_priority_is_the_settings(settings, given, queue):
    settings.CELERY_MAILER = {"DEFAULT_PRIORITY": given}
    assert routed(project(), routing.SEND_EMAIL) == queue


@pytest.mark.parametrize(
    ("priority", "queue"),
    [
        ("now", "mail.high"),
        ("high", "mail.high"),
        ("medium", "mail.medium"),
        ("low", "mail.low"),
        (3, "mail.high"),
        (2, "mail.high"),
        (1, "mail.medium"),
        (0, "mail.low"),
        (Priority.LOW, "mail.low"),
    ],
)
def test_a_call_by_name_goes_to_the_lane_of_its_priority(priority, queue):
    assert routed(project(), routing.SEND_EMAIL, priority=priority) == queue


@pytest.mark.parametrize("priority", [None, "urgent", "HIGH", 7, [], {}])
def test_what_is_no_priority_goes_to_the_default_lane_for_the_task_to_refuse(priority):
    assert routed(project(), routing.SEND_EMAIL, priority=priority) == "mail.medium"


def test_the_projects_tasks_go_where_they_went():
    assert routed(project(task_default_queue="work"), "proj.other") == "work"


@pytest.mark.parametrize(
    "routes",
    [
        {routing.LOG: {"queue": "mine"}},
        {"celery_mailer.lo*": {"queue": "mine"}},
        {re.compile(r"celery_mailer\.l.*"): {"queue": "mine"}},
        [{routing.LOG: {"queue": "mine"}}],
        ([("celery_mailer.lo*", {"queue": "mine"})],),
        my_router,
        [my_router],
        f"{__name__}.my_router",
        [f"{__name__}.my_router"],
    ],
)
def test_the_projects_own_routes_win_in_every_form_that_celery_knows(routes):
    app = project(task_routes=routes)
    assert routed(app, routing.LOG) == "mine"
    assert routed(app, routing.DELIVER) == "mail.medium"


def test_a_queue_that_the_call_names_wins_over_every_route():
    app = project()
    app.finalize()
    route = app.amqp.router.route({"queue": "mail.low"}, routing.DISPATCH)
    assert route["queue"].name == "mail.low"


def test_an_app_that_makes_no_queues_by_itself_knows_the_lanes():
    app = project(task_create_missing_queues=False, task_queues=[Queue("celery")])
    assert routed(app, routing.DISPATCH) == "mail.high"
    with pytest.raises(QueueNotFound):
        app.amqp.router.route({"queue": "other"}, "proj.other")


def test_every_step_of_a_chain_is_told_its_lane():
    steps = build([uuid7()], Priority.LOW).tasks
    assert [step.options["queue"] for step in steps] == ["mail.low"] * 3
    assert [step.task for step in steps] == STAGES


@pytest.mark.parametrize("name", [*JOBS, *STAGES, routing.SEND_EMAIL])
def test_every_name_is_a_tasks(name):
    assert name in tasks.send_email.app.tasks
