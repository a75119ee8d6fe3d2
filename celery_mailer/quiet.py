"""Quiet hours: from when until when, by the clock on the wall, a stream's mail waits for the morning."""

from datetime import UTC, datetime, time, timedelta, tzinfo
from typing import NamedTuple


class QuietHours(NamedTuple):
    """From ``start`` until before ``end``, over midnight if ``end`` comes first; never the whole day."""

    start: time
    end: time

    def __str__(self) -> str:
        return f"{self.start:%H:%M} to {self.end:%H:%M}"

    def until(self, now: datetime, zone: tzinfo) -> datetime | None:
        """When they end, in UTC, if it is quiet now; else ``None``.

        ``now`` is aware; one that is not (``USE_TZ`` off) is the time on the wall, and so is the answer.
        """
        wall = now.astimezone(zone) if now.tzinfo else now
        at = wall.time()
        if self.start < self.end:
            quiet, days = self.start <= at < self.end, 0
        else:
            quiet, days = not self.end <= at < self.start, int(at >= self.start)
        if not quiet:
            return None
        end = datetime.combine(wall.date() + timedelta(days=days), self.end)
        return _instant(end, wall) if now.tzinfo else end


def _instant(end: datetime, wall: datetime) -> datetime:
    """The first time after ``wall`` that the clock shows ``end``: one hour in autumn has it twice.

    The hour that spring leaves out is reckoned by the offset before it (PEP 495): its 02:30 is 03:30.
    """
    first, second = (end.replace(tzinfo=wall.tzinfo, fold=fold).astimezone(UTC) for fold in (0, 1))
    return first if first > wall else second
