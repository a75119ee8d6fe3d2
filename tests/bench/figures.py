"""From runs to figures: medians over the rounds, and ratios of what ran in the same round."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any, NamedTuple


class Who(NamedTuple):
    scenario: str
    contestant: str


class Figures:
    """``runs`` are dicts with ``scenario``, ``contestant``, ``round``, and numbers by name or a ``fault``."""

    def __init__(self, runs: Iterable[Mapping[str, Any]]) -> None:
        self.rounds: dict[Who, dict[int, Mapping[str, Any]]] = defaultdict(dict)
        self.faults: dict[Who, str] = {}
        for run in runs:
            who = Who(run["scenario"], run["contestant"])
            self.rounds[who][run["round"]] = run
            if "fault" in run:
                self.faults[who] = run["fault"]

    def value(self, who: Who, name: str) -> float | None:
        """The median of ``name``; nothing for who has failed, even once."""
        values = [run[name] for run in self.rounds.get(who, {}).values() if name in run]
        return median(values) if values and who not in self.faults else None

    def ratio(self, name: str, a: Who, b: Who) -> float | None:
        """The median of a to b, each within one round: so the machine's drift is out of it."""
        if {a, b} & self.faults.keys():
            return None
        mine, other = self.rounds.get(a, {}), self.rounds.get(b, {})
        ratios = [
            mine[n][name] / other[n][name]
            for n in mine.keys() & other.keys()
            if name in mine[n] and other[n].get(name)
        ]
        return median(ratios) if ratios else None

    def best(self, name: str, scenario: str, contestants: Iterable[str]) -> Who:
        """Who of ``contestants`` has the most of ``name``."""
        return max((Who(scenario, c) for c in contestants), key=lambda who: self.value(who, name) or 0)

    def foreign(self) -> float:
        """The part of a core that others used meanwhile, median."""
        runs = [run for rounds in self.rounds.values() for run in rounds.values()]
        parts = [run["foreign"] for run in runs if "foreign" in run]
        return median(parts) if parts else 0.0
