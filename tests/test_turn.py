"""How long a slice goes on, and whether it keeps anybody waiting."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from celery import current_app
from celery.worker import state

from celery_mailer import broker
from celery_mailer.deliver import fetched, turn
from celery_mailer.deliver.turn import LONGEST, SECONDS, Others, Turn, Waiting


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(turn, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


class Beside:
    """``Others`` that say what the test wants, time after time."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = 0

    def waiting(self):
        self.asked += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


class TestTurn:
    def test_it_ends_after_its_seconds(self, clock):
        mine = Turn(SECONDS, None)
        assert mine.left() == pytest.approx(SECONDS)
        assert not mine.over()
        clock.now += SECONDS + 0.01
        assert mine.over()

    def test_with_others_waiting_there_is_no_more_time(self, clock):
        mine = Turn(SECONDS, Beside(Waiting.OTHERS))
        assert mine.left() == pytest.approx(SECONDS)
        clock.now += SECONDS + 0.01
        assert mine.over()

    @pytest.mark.parametrize("waiting", [Waiting.NOTHING, Waiting.SAME])
    def test_with_nobody_else_waiting_it_may_go_on(self, clock, waiting):
        mine = Turn(SECONDS, Beside(waiting))
        assert mine.left() == pytest.approx(LONGEST)
        clock.now += LONGEST - 0.01
        assert not mine.over()

    def test_it_does_not_go_on_for_ever(self, clock):
        mine = Turn(SECONDS, Beside(Waiting.NOTHING))
        clock.now += LONGEST + 0.01
        assert mine.over()

    def test_it_ends_when_somebody_comes(self, clock):
        mine = Turn(SECONDS, Beside(Waiting.NOTHING, Waiting.SAME, Waiting.OTHERS))
        clock.now += SECONDS
        assert not mine.over()
        clock.now += SECONDS
        assert mine.over()
        assert mine.left() <= 0

    def test_it_asks_no_oftener_than_it_has_to(self, clock):
        others = Beside(Waiting.SAME)
        mine = Turn(0.5, others)
        for _ in range(10):
            clock.now += 0.125
            mine.over()
        assert others.asked == 3

    def test_what_is_sent_now_has_all_the_time(self, clock):
        mine = Turn(float("inf"), None)
        clock.now += 1e6
        assert not mine.over()

    def test_it_may_share_when_nothing_waits_once_for_each_look(self, clock):
        others = Beside(Waiting.NOTHING)
        mine = Turn(SECONDS, others)
        assert mine.idle() is None  # a short slice ends before it has looked
        clock.now += SECONDS
        mine.over()
        assert mine.idle() is others
        assert mine.idle() is None

    def test_it_keeps_all_while_more_of_its_lane_waits(self, clock):
        mine = Turn(SECONDS, Beside(Waiting.SAME))
        clock.now += SECONDS
        mine.over()
        assert mine.idle() is None


LANE = "mail.low"


class Request:
    eta = None

    def __init__(self, lane, eta=None):
        self.delivery_info = {"routing_key": lane}
        self.eta = eta


class TestOthers:
    @pytest.fixture(autouse=True)
    def worker(self, monkeypatch):
        """A worker of threads that serves the lanes, and has fetched nothing."""
        lengths = {"mail.low": 7, "mail.high": 0, "celery": 0}
        served = SimpleNamespace(consume_from=dict.fromkeys(lengths))
        self.asked = []

        def outstanding(*names):
            self.asked.append(names)
            return None if None in [lengths[name] for name in names] else sum(lengths[name] for name in names)

        monkeypatch.setattr(turn, "outstanding", outstanding)
        monkeypatch.setattr(turn, "_queues", turn._Queues())
        monkeypatch.setattr(fetched, "_here", fetched._Here())
        for name in ("reserved_requests", "active_requests"):
            monkeypatch.setattr(state, name, set())
        self.app = SimpleNamespace(amqp=SimpleNamespace(queues=served))
        self.lengths = lengths

    def waiting(self, lane=LANE):
        return Others(self.app, lane).waiting()

    def test_more_of_the_lane(self):
        assert self.waiting() is Waiting.SAME
        assert self.asked == [("mail.high", "celery"), ("mail.low",)]

    def test_nothing_in_any_queue(self):
        self.lengths[LANE] = 0
        assert self.waiting() is Waiting.NOTHING

    def test_that_nothing_waits_only_one_slice_is_told(self):
        self.lengths[LANE] = 0
        assert [self.waiting(), self.waiting()] == [Waiting.NOTHING, Waiting.SAME]

    @pytest.mark.parametrize("other", ["mail.high", "celery"])
    def test_something_in_another_queue(self, other):
        self.lengths[other] = 1
        assert self.waiting() is Waiting.OTHERS

    def test_a_broker_that_does_not_know(self):
        self.lengths["mail.high"] = None
        assert self.waiting() is Waiting.OTHERS

    def test_a_broker_that_does_not_know_of_its_own_lane(self):
        self.lengths[LANE] = None
        assert self.waiting() is Waiting.SAME

    def test_the_broker_is_asked_once_for_all_threads(self):
        self.waiting()
        asked = len(self.asked)
        assert self.waiting() is Waiting.SAME
        assert len(self.asked) == asked

    def test_a_lane_that_is_not_known(self):
        assert self.waiting(None) is Waiting.OTHERS

    @pytest.mark.parametrize("how", ["should_stop", "should_terminate"])
    def test_a_worker_that_is_told_to_end_has_no_time(self, monkeypatch, how):
        monkeypatch.setattr(state, how, 0)
        assert self.waiting() is Waiting.OTHERS

    def test_a_task_of_another_lane_that_was_fetched_and_waits(self):
        state.reserved_requests.add(Request("mail.high"))
        assert self.waiting() is Waiting.OTHERS

    def test_a_task_of_another_lane_that_runs_does_not_wait(self):
        running = Request("mail.high")
        state.reserved_requests.add(running)
        state.active_requests.add(running)
        assert self.waiting() is Waiting.SAME

    def test_a_task_of_its_own_lane_that_was_fetched(self):
        self.lengths[LANE] = 0
        state.reserved_requests.add(Request(LANE))
        assert self.waiting() is Waiting.SAME

    def test_what_is_left_goes_to_the_end_of_the_lane(self, monkeypatch):
        passed = []
        monkeypatch.setattr(turn.routing, "deliver_rest", lambda *arguments: passed.append(arguments))
        Others(self.app, LANE).pass_on(["id"])
        assert passed == [(self.app, ["id"], LANE)]


class TestFetchedForProcesses:
    """The main process and the processes of its pool, all in this one: only the row tells them apart."""

    @pytest.fixture(autouse=True)
    def pool(self, monkeypatch):
        monkeypatch.setattr(fetched, "_here", fetched._Here())
        fetched._prepare()

    def in_process(self, monkeypatch, index):
        monkeypatch.setattr(fetched, "current_process", lambda: SimpleNamespace(index=index))
        fetched._find_row()

    def receive(self, lane, eta=None):
        fetched._count_received(request=Request(lane, eta))

    def begin(self, lane, eta=None):
        fetched._count_begun(task=SimpleNamespace(request=Request(lane, eta)))

    def test_what_was_received_and_not_begun_waits(self, monkeypatch):
        self.receive("mail.high")
        self.in_process(monkeypatch, 0)
        assert fetched.fetched(LANE) == (False, True)
        assert fetched.fetched("mail.high") == (True, False)

    def test_it_no_longer_waits_when_any_process_has_begun_it(self, monkeypatch):
        self.receive("mail.high")
        self.receive("celery")
        self.in_process(monkeypatch, 1)
        self.begin("mail.high")
        assert fetched.fetched(LANE) == (False, True)
        self.in_process(monkeypatch, 0)
        self.begin("celery")
        assert fetched.fetched(LANE) == (False, False)

    def test_a_process_goes_on_with_the_count_of_the_one_in_its_place_before(self, monkeypatch):
        for _ in range(2):
            self.receive(LANE)
            self.in_process(monkeypatch, 0)
            self.begin(LANE)
        assert fetched.fetched(LANE) == (False, False)

    def test_one_for_later_waits_for_nobody(self, monkeypatch):
        self.receive("mail.high", eta="2030-01-01T00:00:00Z")
        self.in_process(monkeypatch, 0)
        assert fetched.fetched(LANE) == (False, False)
        self.begin("mail.high", eta="2030-01-01T00:00:00Z")
        self.receive("mail.high")
        assert fetched.fetched(LANE) == (False, True)

    def test_nobody_knows_when_the_worker_is_to_end(self, monkeypatch):
        fetched._tell_the_end()
        self.in_process(monkeypatch, 0)
        assert fetched.fetched(LANE) is None

    def test_nobody_knows_in_a_process_without_a_place(self, monkeypatch):
        self.in_process(monkeypatch, fetched.PROCESSES)
        assert fetched.fetched(LANE) is None

    def test_nobody_knows_in_a_process_that_was_not_forked_from_the_worker(self, monkeypatch):
        fetched._here.counts = None
        self.in_process(monkeypatch, 0)
        assert fetched.fetched(LANE) is None

    def test_outside_of_a_worker_nothing_is_counted(self):
        fetched._here.counts = None
        self.receive(LANE)
        self.begin(LANE)
        fetched._tell_the_end()
        assert fetched._here.counts is None


def test_a_queue_that_nobody_has_used_is_empty():
    assert broker.outstanding("no.such.queue") == 0


def test_a_broker_that_cannot_be_reached_says_nothing(monkeypatch):
    class Nobody:
        channel_errors = connection_errors = (OSError,)

        def channel(self):
            raise ConnectionRefusedError

        def __enter__(self):
            return self

        def __exit__(self, *exc):
            return None

    monkeypatch.setattr(current_app.__class__, "pool", SimpleNamespace(acquire=lambda block: Nobody()))
    assert broker.outstanding("mail.low") is None


def test_the_readme_says_how_long_a_slice_may_go_on():
    readme = " ".join((Path(__file__).parent.parent / "README.md").read_text().split())
    assert "A slice goes on for up to three while no other queue" in readme
    assert "it looks three times in a second" in readme
    assert LONGEST == 3
    assert int(1 / SECONDS) == 3
