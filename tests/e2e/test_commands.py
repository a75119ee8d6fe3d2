"""Commands that ask real workers and a real beat."""

import json
import subprocess
import sys

import pytest

from tests.site import ROOT, wait_until

BROKERS = ["private", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)]


def answer(site, *argv):
    """What a command answers, whatever its exit code."""
    argv = [sys.executable, "-m", "django", *argv, "--json"]
    done = subprocess.run(argv, env=site.env, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


def faults(site):
    return [(f["area"], f["words"]) for f in answer(site, "mailer_doctor") if f["level"] == "fault"]


@pytest.mark.slow
@pytest.mark.parametrize("broker", BROKERS)
def test_the_doctor_sees_beat_start_and_workers_come(make_site, broker):
    # Beat writes down after each run that it ran, not only after three minutes.
    site = make_site(broker=broker, celery={"BEAT_SYNC_EVERY": 1})
    areas = dict(faults(site))
    assert areas["workers"] == "No worker answers: nothing is sent."
    assert areas["beat"].startswith("Beat has not been seen so far")
    site.worker("-c", "1", "-Q", f"{site.queues['high']},{site.queues['medium']}")
    site.beat()
    missing = f"No worker serves the queue {site.queues['low']}"
    wait_until(
        "the lane that nobody serves", lambda: dict(faults(site)).get("workers", "").startswith(missing), 60
    )
    site.worker("-c", "1")
    found = []  # for pytest to show
    wait_until("the doctor finds no fault", lambda: not found.append(faults(site)) and not found[-1], 60)


@pytest.mark.parametrize("broker", BROKERS)
def test_the_status_says_what_each_worker_serves(make_site, broker):
    site = make_site(broker=broker)
    site.worker("-c", "1", "-Q", f"{site.queues['high']},{site.queues['medium']}")
    site.worker("-c", "1")

    def served():
        return sorted(map(len, answer(site, "mailer_status")["workers"].values()))

    wait_until("both workers answer", lambda: served() == [2, 4], 60)


@pytest.mark.parametrize("broker", BROKERS)
def test_a_test_mail_goes_by_a_worker(make_site, broker, smtp):
    site = make_site(broker=broker)
    site.worker("-c", "1")
    result = answer(site, "mailer_send_test", "ann@example.com", "--queue")
    assert result["status"] == "sent"
    assert smtp.received[0].recipients == ["ann@example.com"]
