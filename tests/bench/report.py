"""Writes the page and plots of a run's results: ``python -m tests.bench.report [--print]``."""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.contestants import ALL
from tests.bench.figures import Figures, Who
from tests.bench.svg import LIMIT, OURS, THEIRS, bars, number

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs" / "pages" / "explanation"
RESULTS = ROOT / ".venv-bench" / "results.json"
QUIET = 0.1  # of a core that others may use: on a busier machine, figures are noise
TITLES = {cls.name: cls.title for cls in ALL}
PEERS = ("post_office", "post_office_celery", "celery_email", "mailer", "homemade")
POST_OFFICE = ("post_office", "post_office_celery")
COLUMNS = {
    "rate": "emails/s",
    "us": "µs per call",
    "cpu": "CPU s per 1,000",
    "queries": "queries per email",
    "memory": "MB at most",
    "latency": "ms",
    "grown": "MB more in the caller",
    "connections": "connections opened",
    "postgres": "PostgreSQL",
    "redis": "Valkey",
}
INTRO = """# Benchmark

Made by `make bench`, from one run; this page and its plots are its output. Ratios hold from machine to
machine and from day to day, absolute figures do not: so ratios come first.

Machine: {machine}. {versions}. All on one machine, over loopback; rounds: {rounds}. While it ran,
other processes used {foreign:.0%} of a core.

Everybody sends the same mail: text and HTML from a template, with a context for each recipient, {size}
bytes on average. A server on loopback counts each Message-ID and each recipient. Only what it received
counts; who lost a mail or sent one twice has failed. The runs are interleaved, round by round: what is
shown is the median of the rounds, and of ratios the median of those within one round. Emails per second are
from the first call until all mails are at the server and all their states are committed. CPU is that of the
sender's processes: caller, workers, children; the last two columns are the servers' own. Memory is that of
all the sender's processes together. Unless it says otherwise, there are two worker processes, or two
connections.

With bulk, a call for one email costs what the whole call costs, divided by its number.
"""


@dataclass(frozen=True)
class Goal:
    """What must hold: ``value`` is at least ``bound``, or at most."""

    text: str
    value: Callable[[Figures, dict[str, Any]], float | None]
    bound: float
    at_most: bool = False

    def row(self, figures: Figures, results: dict[str, Any]) -> str:
        value = self.value(figures, results)
        sign = "at most" if self.at_most else "at least"
        if value is None:
            return f"| {self.text} | - | {sign} {number(self.bound)} | not measured |"
        met = value <= self.bound if self.at_most else value >= self.bound
        return f"| {self.text} | {number(value)} | {sign} {number(self.bound)} | {'yes' if met else 'no'} |"


def _ratio(name: str, a: tuple[str, str], b: tuple[str, str]) -> Callable[[Figures, Any], float | None]:
    return lambda figures, _: figures.ratio(name, Who(*a), Who(*b))


def _to_best(name: str, scenario: str, of: Sequence[str]) -> Callable[[Figures, Any], float | None]:
    return lambda figures, _: figures.ratio(name, Who(scenario, "own"), figures.best(name, scenario, of))


def _value(name: str, scenario: str, contestant: str = "own") -> Callable[[Figures, Any], float | None]:
    return lambda figures, _: figures.value(Who(scenario, contestant), name)


def _rows_per_second(figures: Figures, _: Any) -> float | None:
    us = figures.value(Who("enqueue_bulk", "own_send_many"), "us")
    return 1e6 / us if us else None


def _render(_: Figures, results: dict[str, Any]) -> float | None:
    render = results.get("render")
    return render["ours"] / render["bare"] if render else None


GOALS = (
    Goal("bulk: emails/s, to django-post_office at its best", _to_best("rate", "bulk", POST_OFFICE), 8),
    Goal("bulk: emails/s, to django-celery-email", _to_best("rate", "bulk", ["celery_email"]), 3),
    Goal("bulk: CPU seconds per 1,000", _value("cpu", "bulk"), 0.8, at_most=True),
    Goal("one call each: emails/s, to django-post_office at its best",
         _to_best("rate", "single", POST_OFFICE), 3),
    Goal("one call each: emails/s, to the home-made task", _to_best("rate", "single", ["homemade"]), 1.5),
    Goal("20 ms per reply, 20 connections: emails/s, to the best peer",
         _to_best("rate", "slow_20", PEERS), 4),
    Goal("20 ms per reply, 20 connections: to the raw limit",
         _to_best("rate", "slow_20", ["raw_pipelined"]), 0.8),
    Goal("a call of `.delay()`: time, to post_office's `mail.send`",
         _ratio("us", ("enqueue_single", "own"), ("enqueue_single", "post_office")), 0.6, at_most=True),
    Goal("`send_many`: rows per second", _rows_per_second, 8000),
    Goal("a million recipients: MB more in the caller", _value("grown", "million"), 100, at_most=True),
    Goal("bulk with 1,000,000 old rows and 200,000 waiting, to none",
         _ratio("rate", ("bulk_1m", "own"), ("bulk", "own")), 0.9),
    Goal("one call each, likewise", _ratio("rate", ("single_1m", "own"), ("single", "own")), 0.9),
    Goal("one mail on an idle system: time, to the home-made task",
         _ratio("latency", ("latency", "own"), ("latency", "homemade")), 1.5, at_most=True),
    Goal("two worker processes, to one", _ratio("rate", ("bulk", "own"), ("one_worker", "own")), 1.7),
    Goal("bulk: queries per email", _value("queries", "bulk"), 0.15, at_most=True),
    Goal("rendering one email: time, to `Template.render` and css-inline", _render, 1.5, at_most=True),
)  # fmt: skip

PLOTS = {
    "bulk": ("Bulk", "rate"),
    "single": ("One call each", "rate"),
    "slow_20": ("20 ms per reply, 20 connections", "rate"),
}


def goals(figures: Figures, results: dict[str, Any]) -> str:
    head = "| | ratio or value | goal | met |\n|---|---|---|---|\n"
    return head + "\n".join(goal.row(figures, results) for goal in GOALS) + "\n"


def table(figures: Figures, scenario: dict[str, Any]) -> str:
    """The figures of one scenario; a column that nobody has is left out."""
    names = [n for n in scenario["contestants"] if Who(scenario["name"], n) in figures.rounds]
    cells = {n: {c: figures.value(Who(scenario["name"], n), c) for c in COLUMNS} for n in names}
    columns = [c for c in COLUMNS if any(cells[n][c] is not None for n in names)]
    lines = ["| | " + " | ".join(COLUMNS[c] for c in columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name in names:
        fault = figures.faults.get(Who(scenario["name"], name))
        shown = [_cell(cells[name][c]) for c in columns]
        if fault:
            shown = [f"failed: {fault.splitlines()[0][:120]}"]
        lines.append(f"| {TITLES[name]} | " + " | ".join(shown) + " |")
    return "\n".join(lines) + "\n"


def _cell(value: float | None) -> str:
    return "" if value is None else number(value)


def plot(figures: Figures, scenario: str) -> str:
    title, name = PLOTS[scenario]
    rows = [(TITLES[who.contestant], value, _colour(who.contestant))
            for who in figures.rounds
            if who.scenario == scenario and (value := figures.value(who, name)) is not None]  # fmt: skip
    return bars(title, COLUMNS[name], sorted(rows, key=lambda row: -row[1]))


def _colour(contestant: str) -> str:
    return OURS if contestant.startswith("own") else LIMIT if contestant.startswith("raw") else THEIRS


def page(figures: Figures, results: dict[str, Any]) -> Iterator[str]:
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    size = figures.value(Who("bulk", "django"), "size") or 0
    yield INTRO.format(
        machine=results["machine"],
        versions=versions,
        rounds=1 + max(run["round"] for run in results["runs"]),
        foreign=figures.foreign(),
        size=f"{size:,.0f}",
    )
    yield "## What was to hold\n"
    yield goals(figures, results)
    for scenario in results["scenarios"]:
        yield f"## {scenario['title']}\n"
        if scenario["name"] in PLOTS:
            yield f"![{scenario['title']}](bench-{scenario['name'].replace('_', '-')}.svg)\n"
        yield table(figures, scenario)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--print", action="store_true", help="print it, and leave the page alone")
    options = parser.parse_args(argv)
    results = json.loads(RESULTS.read_text())
    figures = Figures(results["runs"])
    if options.print or figures.foreign() > QUIET:
        print("\n".join(page(figures, results)))
        busy = f"others used {figures.foreign():.0%} of a core, where {QUIET:.0%} would do"
        print(f"the page is left as it is: {'only printed' if options.print else busy}")
        return
    write(figures, results)


def write(figures: Figures, results: dict[str, Any]) -> None:
    DOCS.mkdir(exist_ok=True)
    (DOCS / "benchmark.md").write_text("\n".join(page(figures, results)))
    for scenario in PLOTS:
        (DOCS / f"bench-{scenario.replace('_', '-')}.svg").write_text(plot(figures, scenario))


if __name__ == "__main__":
    main()
