"""Runs the benchmark: ``python -m tests.bench.run [--quick] [--only own,mailer] [--scenarios bulk,single]``.

Round by round, and within a round one contestant after the other, so that what the machine does beside hits
all of them alike. Only what reached the sink counts; a contestant that lost or doubled a mail has failed.
"""

import argparse
import json
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

import psycopg

from tests.bench import measure, report
from tests.bench.config import Config
from tests.bench.contestants import Contestant, find
from tests.bench.crew import ROOT, Crew, Failed, python, wait_until
from tests.bench.ground import Ground
from tests.bench.scenarios import FULL, Scenario, quick

MINUTES = 20  # no run is begun later than that
PATIENCE = 120  # seconds for one run


class Bench:
    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.databases: dict[tuple[str, int, int], str] = {}

    def run(self, contestant: Contestant, scenario: Scenario) -> dict[str, Any]:
        """One run, as numbers by name; ``fault`` says why there are none."""
        try:
            config = self.config(contestant, scenario)
            with Crew(contestant, config) as crew:
                return Run(self.ground, crew, scenario).measure()
        except (Failed, TimeoutError) as error:
            self.forget(contestant, scenario)
            return {"fault": str(error) or f"not done within {PATIENCE} s"}
        finally:
            self.ground.flush_broker()

    def config(self, contestant: Contestant, scenario: Scenario) -> Config:
        self.ground.sink.reset()
        queries = self.ground.folder / "queries"
        queries.write_bytes(b"")
        config = Config(
            contestant.name,
            "postgres://nobody@127.0.0.1/none",
            self.ground.broker.url,
            self.ground.sink.port,
            str(self.ground.folder),
            str(queries),
            scenario.delay,
            scenario.connections,
            scenario.threads,
        )
        return (
            replace(config, database=self.database(contestant, config, scenario))
            if contestant.stores
            else config
        )

    def database(self, contestant: Contestant, config: Config, scenario: Scenario) -> str:
        """Kept for later runs: a few thousand rows more make no difference."""
        key = (contestant.stores, scenario.old, scenario.waiting)
        if key in self.databases and scenario.kept:
            return self.databases[key]
        url = self.ground.create_database("_".join(map(str, (*key, scenario.kept))).lower())
        with Crew(contestant, replace(config, database=url, connections=2, threads=False, delay=0)) as crew:
            crew.manage("migrate", "-v0")
            if scenario.old or scenario.waiting:
                self.fill(crew, url, scenario)
        if scenario.kept:
            self.databases[key] = url
        return url

    def forget(self, contestant: Contestant, scenario: Scenario) -> None:
        """What a run left unsent must not be sent by the next."""
        url = self.databases.pop((contestant.stores, scenario.old, scenario.waiting), None)
        if url is not None:
            self.ground.drop_database(url)

    def fill(self, crew: Crew, url: str, scenario: Scenario) -> None:
        """One mail goes all its way, and is then multiplied."""
        crew.start_workers()
        crew.order("single", PATIENCE, first=0, count=1)
        self.ground.sink.wait(1, PATIENCE)
        with psycopg.connect(url, autocommit=True) as connection:
            wait_until(lambda: not connection.execute(crew.contestant.pending).fetchone()[0], PATIENCE)
        crew.order("fill", 5 * PATIENCE, old=scenario.old, waiting=scenario.waiting)


class Run:
    def __init__(self, ground: Ground, crew: Crew, scenario: Scenario) -> None:
        self.ground = ground
        self.sink = ground.sink
        self.crew = crew
        self.scenario = scenario
        self.count = scenario.count * (crew.contestant.scale if scenario.scaled else 1)
        self.call = "single" if scenario.mode == "latency" else scenario.mode

    def measure(self) -> dict[str, Any]:
        scenario, warm = self.scenario, self.warm_mails()
        if not scenario.kept:
            return self.only_call()
        self.sink.reset(scenario.delay)
        if not scenario.late:
            self.crew.start_workers()
        self.crew.order("prepare", PATIENCE, first=0, count=warm + self.count)
        self.crew.order(self.call, PATIENCE, first=0, count=warm)
        if not scenario.late:
            self.sink.wait(warm, PATIENCE)
            self.settled()
            self.sink.reset(scenario.delay)
        expected = self.count + (warm if scenario.late else 0)
        with measure.Peak(self.crew.pids) as peak:
            before = self.spent()
            numbers = self.latencies(warm) if scenario.mode == "latency" else self.throughput(warm, expected)
            with suppress(TimeoutError):  # a command that is run again and again is never quiet
                wait_until(self.quiet(), 1, every=0.2)
            costs = {name: value - before[name] for name, value in self.spent().items()}
        return numbers | self.per_mail(costs, expected) | {"memory": peak.megabytes} | self.verified(expected)

    def warm_mails(self) -> int:
        """Enough for each process to have its connections."""
        return self.scenario.connections * (5 if self.scenario.delay or self.scenario.late else 20)

    def only_call(self) -> dict[str, Any]:
        answer = self.crew.order(self.call, 2 * PATIENCE, first=0, count=self.count)
        self.ground.drop_database(self.crew.config.database)
        return {"us": answer["us"], "grown": answer["grown"]}

    def throughput(self, first: int, expected: int) -> dict[str, Any]:
        answer = self.crew.order(self.call, PATIENCE, first=first, count=self.count)
        if self.scenario.late:
            self.crew.start_workers()
        arrived = self.sink.wait(expected, PATIENCE)
        done = max(arrived, self.settled())
        start = answer.pop("start")
        if self.scenario.late:
            return answer
        return answer | {"rate": self.count / (done - start), "arrival_rate": self.count / (arrived - start)}

    def latencies(self, first: int) -> dict[str, Any]:
        times = []
        for i in range(self.count):
            time.sleep(0.1)
            answer = self.crew.order("single", PATIENCE, first=first + i, count=1)
            times.append(self.sink.wait(i + 1, PATIENCE) - answer["start"])
        return {"latency": median(times) * 1000}

    def settled(self) -> float:
        """When every state was committed; 0 for who has none."""
        sql = self.crew.contestant.pending
        if not sql:
            return 0
        with psycopg.connect(self.crew.config.database, autocommit=True) as connection:
            return wait_until(lambda: not connection.execute(sql).fetchone()[0], PATIENCE)

    def quiet(self):
        """Whether the contestant has nothing left to do: it used no time since the last look."""
        last = [-1.0]

        def look() -> bool:
            before, last[0] = last[0], measure.cpu(self.crew.pids())
            return last[0] - before <= 0.01

        return look

    def spent(self) -> dict[str, float]:
        servers = {name: measure.cpu(pids) for name, pids in self.ground.servers().items()}
        own = measure.cpu(self.crew.pids())
        queries = Path(self.crew.config.queries).stat().st_size
        foreign = measure.machine_cpu() - own - measure.own_cpu() - sum(servers.values())
        return servers | {"cpu": own, "queries": queries, "foreign": foreign, "wall": time.monotonic()}

    def per_mail(self, costs: dict[str, float], expected: int) -> dict[str, float]:
        wall, foreign, queries = costs.pop("wall"), costs.pop("foreign"), costs.pop("queries")
        numbers = {name: seconds / expected * 1000 for name, seconds in costs.items()}
        return numbers | {"queries": queries / expected, "foreign": foreign / wall}

    def verified(self, expected: int) -> dict[str, Any]:
        """Whether each mail came once; the sink's own numbers."""
        came = self.sink.report()
        if (came["mails"], came["recipients"]) != (expected, expected) or came["wrong"]:
            raise Failed(
                f"{came['mails']} mails to {came['recipients']} of {expected}; wrong: {came['wrong']}"
            )
        return {"size": came["size"], "connections": came["connections"]}


def rounds(
    scenarios: tuple[Scenario, ...], only: set[str], number: int | None
) -> Iterator[tuple[int, Scenario, str]]:
    """Every run to make, interleaved; each round begins with another contestant."""
    for n in range(max(number or s.rounds for s in scenarios)):
        for scenario in scenarios:
            names = [name for name in scenario.contestants if not only or name in only]
            if names and n < (number or scenario.rounds):
                at = n % len(names)
                yield from ((n, scenario, name) for name in names[at:] + names[:at])


def about(ground: Ground) -> dict[str, Any]:
    """What was used, by name and version; nothing that tells which machine it was."""
    import celery
    import django

    own = {"Python": platform.python_version(), "Django": django.__version__, "Celery": celery.__version__}
    return {"machine": measure.machine(), "versions": own | ground.versions()}


def render_cost() -> dict[str, Any]:
    done = subprocess.run(
        [python("own"), "-m", "tests.bench.render_cost"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def words(run: dict[str, Any]) -> str:
    if "fault" in run:
        return f"FAILED: {run['fault']}"
    names = {
        "rate": "/s",
        "us": " us/call",
        "cpu": " CPU s/1000",
        "queries": " queries",
        "latency": " ms",
        "grown": " MB more",
    }
    parts = [f"{run[name]:,.4g}{unit}" for name, unit in names.items() if name in run]
    return ", ".join([*parts, f"others {run['foreign']:.0%}"] if "foreign" in run else parts)


def listed(given: str) -> set[str]:
    return set(filter(None, given.split(",")))


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("--quick", action="store_true", help="2 minutes; writes no report")
    parser.add_argument("--only", default="", help="contestants, separated by commas")
    parser.add_argument("--scenarios", default="", help="likewise")
    parser.add_argument("--rounds", type=int)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that everything is taken down
    wanted, only = listed(options.scenarios), listed(options.only)
    scenarios = tuple(s for s in (quick() if options.quick else FULL) if not wanted or s.name in wanted)
    end = time.monotonic() + MINUTES * 60
    runs: list[dict[str, Any]] = []
    with Ground() as ground:
        results = about(ground) | {"render": render_cost(), "runs": runs}
        bench = Bench(ground)
        for n, scenario, name in rounds(scenarios, only, options.rounds):
            if time.monotonic() > end:
                print(f"{MINUTES} minutes are over: the rest of round {n + 1} and what follows is left out")
                break
            run = bench.run(find(name), scenario)
            runs.append({"round": n, "scenario": scenario.name, "contestant": name} | run)
            print(f"{n + 1} {scenario.name:16} {name:20} {words(run)}", flush=True)
        results["scenarios"] = [asdict(s) for s in scenarios]
    report.RESULTS.write_text(json.dumps(results))
    report.main(["--print"] if options.quick or wanted or only else [])


if __name__ == "__main__":
    main()
