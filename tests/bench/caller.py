"""The process that wants mail sent: does what the harness says, line by line, and says what it cost."""

import json
import sys
import time
from pathlib import Path
from statistics import median, quantiles

import django

from tests.bench.config import Config
from tests.bench.contestants import find


class Caller:
    def __init__(self) -> None:
        django.setup()
        self.config = Config.from_environment()
        self.contestant = find(self.config.contestant)

    def prepare(self, first: int, count: int) -> dict:
        self.contestant.prepare(self.config, first, count)
        return {}

    def bulk(self, first: int, count: int) -> dict:
        memory, start = _peak_memory(), time.monotonic()
        self.contestant.bulk(first, count)
        end = time.monotonic()
        return {"start": start, "us": (end - start) / count * 1e6, "grown": _peak_memory() - memory}

    def single(self, first: int, count: int) -> dict:
        memory, start = _peak_memory(), time.monotonic()
        times = []
        for i in range(first, first + count):
            begin = time.perf_counter()
            self.contestant.one(i)
            times.append((time.perf_counter() - begin) * 1e6)
        p95 = quantiles(times, n=20)[-1] if count > 1 else times[0]
        return {"start": start, "us": median(times), "p95_us": p95, "grown": _peak_memory() - memory}

    def fill(self, old: int, waiting: int) -> dict:
        from django.db import connection

        with connection.cursor() as cursor:
            self.contestant.fill(cursor, old, waiting)
            cursor.execute("VACUUM ANALYZE")
        return {}


def _peak_memory() -> float:
    """Of this process so far, in MB (``ru_maxrss`` would begin with that of the process that forked it)."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


def main() -> None:
    caller = Caller()
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        print(json.dumps(getattr(caller, order.pop("do"))(**order)), flush=True)


if __name__ == "__main__":
    main()
