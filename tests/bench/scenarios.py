"""What is measured, and of whom."""

from dataclasses import dataclass, replace

QUEUES = ("post_office", "post_office_celery", "mailer", "own")  # those that store
BULK = (
    "raw_smtplib", "raw_pipelined", "django", "post_office", "post_office_celery", "celery_email", "mailer",
    "own_send_many", "own",
)  # fmt: skip
SINGLE = ("django", "post_office", "post_office_celery", "celery_email", "mailer", "homemade", "own")


@dataclass(frozen=True)
class Scenario:
    """``mode``: ``bulk`` (one call for all), ``single`` (one each), ``latency`` (one after the other).

    ``late``: the workers start when the caller has done, so that what a call costs is seen by itself.
    ``kept``: false for what is only put into a database of its own, which is then dropped.
    """

    name: str
    title: str
    mode: str
    count: int
    contestants: tuple[str, ...]
    delay: float = 0
    connections: int = 2
    threads: bool = False
    old: int = 0
    waiting: int = 0
    late: bool = False
    kept: bool = True
    rounds: int = 3
    scaled: bool = True  # whether a fast contestant sends more


DELAY = 0.02
SLOW_LINE = (
    "raw_smtplib",
    "raw_pipelined",
    "post_office",
    "celery_email",
    "homemade",
    "own_send_many",
    "own",
)

FULL = (
    Scenario("bulk", "Bulk", "bulk", 2000, BULK),
    Scenario("single", "One call each", "single", 2000, SINGLE),
    Scenario("latency", "One mail on an idle system", "latency", 30,
             ("post_office_celery", "celery_email", "homemade", "own")),
    Scenario("one_worker", "Bulk, one worker process", "bulk", 2000, ("own",), connections=1),
    Scenario("slow_2", "20 ms per reply, 2 connections", "bulk", 160, ("django", *SLOW_LINE),
             delay=DELAY, rounds=2, scaled=False),
    Scenario("slow_20", "20 ms per reply, 20 connections", "bulk", 2000, SLOW_LINE,
             delay=DELAY, connections=20, threads=True, rounds=3, scaled=False),
    Scenario("slow_20_single", "20 ms per reply, 20 connections, one call each", "single", 1500,
             ("post_office", "homemade", "own"), delay=DELAY, connections=20, threads=True, rounds=2,
             scaled=False),
    Scenario("enqueue_bulk", "Bulk call alone, the workers later", "bulk", 5000,
             ("post_office", "own_send_many", "own"), late=True, scaled=False),
    Scenario("enqueue_single", "Single calls alone, the workers later", "single", 500,
             ("post_office", "celery_email", "mailer", "homemade", "own"), late=True, scaled=False),
    Scenario("bulk_100k", "Bulk, 100,000 old rows", "bulk", 2000, ("post_office", "own"),
             old=100_000, rounds=2),
    Scenario("single_100k", "One call each, 100,000 old rows", "single", 2000, ("post_office", "own"),
             old=100_000, rounds=2),
    Scenario("bulk_1m", "Bulk, 1,000,000 old rows, 200,000 waiting", "bulk", 2000,
             ("post_office", "own"), old=1_000_000, waiting=200_000, rounds=2),
    Scenario("single_1m", "One call each, 1,000,000 old rows, 200,000 waiting", "single", 2000,
             ("post_office", "own"), old=1_000_000, waiting=200_000, rounds=2),
    Scenario("million", "A generator of a million recipients, put into the database", "bulk", 1_000_000,
             ("own",), kept=False, rounds=1, scaled=False),
)  # fmt: skip


def quick() -> tuple[Scenario, ...]:
    """The same in small, once, without the rows that take long to make."""
    counts = {"bulk": 200, "single": 100, "latency": 5, "slow_20": 400, "enqueue_bulk": 500}
    return tuple(replace(s, count=counts[s.name], rounds=1) for s in FULL if s.name in counts)
