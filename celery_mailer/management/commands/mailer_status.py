from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from django.utils import timezone

from celery_mailer import broker, census, conf
from celery_mailer.management.base import JsonCommand
from celery_mailer.models import Pause, ProviderState
from celery_mailer.models.provider import State

LATELY = timedelta(hours=24)


class Command(JsonCommand):
    help = "Tell what waits and for how long, what was sent lately, who works, and what is stopped."

    def handle(self, *args: Any, **options: Any) -> None:
        result = _status()
        self.tell(result, "\n".join(_in_words(result)), options)


def _status() -> dict[str, Any]:
    now = timezone.now()
    unfinished, finished = census.unfinished(), census.finished(now - LATELY)
    pauses = [pause for pause in Pause.objects.order_by("kind", "name") if pause.holds(now)]
    return {
        "lanes": {lane: unfinished[lane] | finished[lane] for lane in census.LANES},
        "oldest_due_seconds": census.oldest_due(now),
        **_workers(),
        "providers": {alias: _breaker(alias) for alias in conf.get().providers},
        "pauses": [
            {"kind": pause.kind, "name": pause.name, "reason": pause.reason, "until": pause.until}
            for pause in pauses
        ],
    }


def _workers() -> dict[str, Any]:
    try:
        return {"workers": broker.queues_by_worker(), "broker": "reached"}
    except broker.Unreachable as error:
        return {"workers": {}, "broker": str(error)}


def _breaker(alias: str) -> dict[str, Any]:
    row = ProviderState.objects.filter(alias=alias).first() or ProviderState(alias=alias)
    return {
        "state": row.state,
        "retry_at": row.retry_at,
        "fault": row.kind if row.state != State.CLOSED else "",
    }


def _in_words(result: dict[str, Any]) -> Iterator[str]:
    statuses = list(result["lanes"][census.LANES[0]])
    yield f"{'lane':8}" + "".join(f"{status:>12}" for status in statuses)
    for lane, counts in result["lanes"].items():
        yield f"{lane:8}" + "".join(f"{counts[status]:>12,}" for status in statuses)
    yield f"(what is final: of the last {LATELY // timedelta(hours=1)} hours)"
    yield "oldest due: " + ", ".join(
        f"{lane} {age:,.0f} s" for lane, age in result["oldest_due_seconds"].items()
    )
    if result["broker"] != "reached":
        yield f"broker: not reached, {result['broker']}"
    elif not result["workers"]:
        yield "workers: none answered"
    for name, queues in result["workers"].items():
        yield f"worker {name}: {', '.join(queues)}"
    for alias, breaker in result["providers"].items():
        again = f" ({breaker['fault']}), again at {breaker['retry_at']}" if breaker["retry_at"] else ""
        yield f"provider {alias}: {breaker['state']}{again}"
    for pause in result["pauses"]:
        end = f", until {pause['until']}" if pause["until"] else ""
        yield f"paused: {pause['kind']} {pause['name']}: {pause['reason']}{end}"
