"""How the world takes the mail of each stream, beside the shares from which on somebody should look."""

from dataclasses import dataclass
from datetime import datetime

from celery_mailer import conf
from celery_mailer.admin.facts import percent
from celery_mailer.models import Alarm, Figure, Pause
from celery_mailer.reputation import WINDOW, Standing, standings
from celery_mailer.values import Level, Measure, ReputationPolicy

DAYS = WINDOW.days


@dataclass(frozen=True)
class Share:
    """In words, with the limits; ``mark`` is the level that it reaches."""

    number: int
    percent: str
    warn: str
    pause: str
    mark: str


@dataclass(frozen=True)
class Reputation:
    """Of one stream. ``since`` is when a person let it go on, if that was in the last week."""

    name: str
    total: int
    minimum: int
    bounces: Share
    complaints: Share
    pauses: bool
    pause: Pause | None
    since: datetime | None

    @property
    def too_few(self) -> bool:
        return self.total < self.minimum


def reputations(now: datetime) -> list[Reputation]:
    """Of the streams of the settings; three queries, for a few thousand rows of sums."""
    kind = Figure.Subject.STREAM
    alarms = {(str(row.kind), row.name): row for row in Alarm.objects.filter(kind=kind)}
    pauses = {row.name: row for row in Pause.objects.filter(kind=kind) if row.holds(now)}
    found = []
    for name, standing in standings(alarms, now).items():
        policy, alarm = conf.get().reputation_policy(name), alarms.get((str(kind), name))
        since = alarm.since if alarm is not None and alarm.since and alarm.since > now - WINDOW else None
        bounces, complaints = (_share(standing, measure, policy) for measure in Measure)
        found.append(
            Reputation(
                name,
                standing.total,
                policy.minimum,
                bounces,
                complaints,
                policy.pause_stream,
                pauses.get(name),
                since,
            )
        )
    return found


def _share(standing: Standing, measure: Measure, policy: ReputationPolicy) -> Share:
    share, warn, pause = standing.share(measure), policy.warn(measure), policy.pause(measure)
    mark = ""
    if standing.total >= policy.minimum:
        mark = str(Level.PAUSE if share >= pause else Level.WARN if share >= warn else "")
    return Share(standing.number(measure), percent(share), percent(warn), percent(pause), mark)
