"""What an examination comes to."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum


class Level(StrEnum):
    OK = "ok"
    SKIPPED = "skipped"  # nobody knows
    WARNING = "warning"  # mail goes out, and something about it is wrong
    FAULT = "fault"  # mail does not go out, or not for long


@dataclass(frozen=True)
class Finding:
    """``words`` say what is wrong, ``mend`` how to mend it, ``area`` where it was found."""

    level: Level
    words: str
    mend: str = ""
    area: str = ""

    def of(self, area: str) -> "Finding":
        return replace(self, area=area)


@dataclass(frozen=True)
class Examination:
    """``look`` yields findings; none: all is in order."""

    name: str
    look: Callable[..., Iterable[Finding]]
    needs: tuple[str, ...] = ()


def fault(words: str, mend: str) -> Finding:
    return Finding(Level.FAULT, words, mend)


def warning(words: str, mend: str) -> Finding:
    return Finding(Level.WARNING, words, mend)


def skipped(words: str, mend: str = "") -> Finding:
    return Finding(Level.SKIPPED, words, mend)
