"""Frozen dataclasses as the schema of nested dicts: reading one, naming its faults, listing its keys."""

import difflib
import re
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import time, timedelta
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from celery_mailer.quiet import QuietHours


@dataclass(frozen=True)
class Problem:
    """One fault in the settings: where it is, what it is, and how to mend it."""

    path: str
    fault: str
    hint: str

    def __str__(self) -> str:
        return f"{self.path}: {self.fault} {self.hint}"


_UNITS = {"s": 1, "m": 60, "h": 3600}


class Rate(NamedTuple):
    """At most ``number`` in ``seconds``; in the settings ``"14/s"``, ``"600/m"`` or ``"5000/h"``."""

    number: int
    seconds: int

    def __str__(self) -> str:
        return f"{self.number}/{next(unit for unit, seconds in _UNITS.items() if seconds == self.seconds)}"


Rates = tuple[Rate, ...]


def describe(kind: Any) -> str:
    """An annotation in words."""
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(repr(v) for v in get_args(kind))
    options = [a for a in get_args(kind) if a is not types.NoneType]
    if get_origin(kind) in (Union, types.UnionType):
        none = ["None"] if len(options) < len(get_args(kind)) else []
        return " or ".join([*map(describe, options), *none])
    words = {timedelta: "a datetime.timedelta", dict: "a dict", str: "a string", int: "an integer"}
    words |= {list: "a list of strings", bool: "True or False"}
    words |= {Rate: "a rate such as '14/s', '600/m' or '5000/h'", tuple: "a rate or a list of rates"}
    words |= {float: "a share between 0 and 1"}
    words |= {QuietHours: "two times such as ('22:00', '07:00')"}
    return words.get(get_origin(kind) or kind) or kind.__name__


def _read(kind: Any, raw: Any, path: str, problems: list[Problem]) -> Any:
    """``raw`` as a value of ``kind``; what is wrong with it goes to ``problems``."""
    kind = _option(kind, raw)
    if isinstance(kind, type) and hasattr(kind, "__dataclass_fields__"):
        return read_section(kind, raw, path, problems)
    readers = {QuietHours: _read_hours, Rate: _read_rate, Rates: _read_rates}
    if kind in readers:
        return readers[kind](raw, path, problems)
    if get_origin(kind) is dict and get_args(kind)[1] is not Any and isinstance(raw, Mapping):
        unnamed = [k for k in raw if not isinstance(k, str) or not k]
        problems += [Problem(f"{path}[{k!r}]", "is not a name.", "Give a string.") for k in unnamed]
        return {k: _read(get_args(kind)[1], v, f"{path}[{k!r}]", problems) for k, v in raw.items()}
    if not _fits(kind, raw):
        # The value itself is left out: it may be a secret.
        problems.append(Problem(path, f"is not valid ({type(raw).__name__}).", f"Give {describe(kind)}."))
    elif hint := _out_of_range(kind, raw):
        problems.append(Problem(path, "is not valid.", hint))
    elif raw == "":
        problems.append(Problem(path, "is empty.", f"Give {describe(kind)}, or leave the key out."))
    return raw


def _out_of_range(kind: Any, raw: Any) -> str:
    """What to give in its place, if it is."""
    if kind is float and not 0 < raw <= 1:
        return f"Give {describe(kind)}."
    low = (kind is int and raw < 1) or (kind is timedelta and raw <= timedelta(0))
    return "Give a value above zero." if low else ""


def _option(kind: Any, raw: Any) -> Any:
    """What ``raw`` is meant for, if ``kind`` leaves a choice; ``kind`` itself if that cannot be told."""
    if get_origin(kind) not in (Union, types.UnionType):
        return kind
    given = [a for a in get_args(kind) if a is not types.NoneType]
    options = [a for a in get_args(kind) if _fits(a, raw)] or given
    return options[0] if len(options) == 1 else kind


def _read_rates(raw: Any, path: str, problems: list[Problem]) -> Rates:
    if not isinstance(raw, list | tuple):
        return (_read_rate(raw, path, problems),)
    return tuple(_read_rate(item, f"{path}[{i}]", problems) for i, item in enumerate(raw))


def _read_rate(raw: Any, path: str, problems: list[Problem]) -> Rate:
    found = re.fullmatch(r"0*([1-9]\d*)/([smh])", raw, re.ASCII) if isinstance(raw, str) else None
    if found is None:
        problems.append(Problem(path, "is not a rate.", f"Give {describe(Rate)}."))
        return Rate(1, 1)
    return Rate(int(found[1]), _UNITS[found[2]])


def _read_hours(raw: Any, path: str, problems: list[Problem]) -> QuietHours | None:
    times = raw if isinstance(raw, list | tuple) and len(raw) == 2 else ()
    found = [t for t in times if isinstance(t, str) and re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", t, re.ASCII)]
    if len(found) < 2 or found[0] == found[1]:
        problems.append(Problem(path, "are no hours.", f"Give {describe(QuietHours)}."))
        return None
    return QuietHours(*map(time.fromisoformat, found))


def _fits(kind: Any, raw: Any) -> bool:
    if isinstance(raw, bool):
        return kind is bool
    if kind is float:
        return isinstance(raw, int | float)
    if get_origin(kind) in (Union, types.UnionType):
        return any(_fits(option, raw) for option in get_args(kind))
    if get_origin(kind) is Literal:
        return raw in get_args(kind)
    if get_origin(kind) is list:
        return isinstance(raw, list | tuple) and all(isinstance(item, str) for item in raw)
    return isinstance(raw, get_origin(kind) or kind)


def key_of(kind: Any, name: str) -> str:
    """The key of a field: in capitals, as settings are, unless the section says otherwise."""
    return name.lower() if hasattr(kind, "keys_as_in_calls") else name.upper()


def read_section(kind: Any, raw: Any, path: str, problems: list[Problem]) -> Any:
    """The dict ``raw`` as an instance of the dataclass ``kind``; its faults are added to ``problems``."""
    if not isinstance(raw, Mapping):
        problems.append(Problem(path, f"is not valid ({type(raw).__name__}).", "Give a dict."))
        return kind()
    hints = get_type_hints(kind)
    known = {key_of(kind, f.name): f.name for f in fields(kind)}
    values = {}
    for key, value in raw.items():
        if key in known:
            values[known[key]] = _read(hints[known[key]], value, f"{path}[{key!r}]", problems)
        else:
            near = difflib.get_close_matches(key_of(kind, str(key)), known, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else "Known keys: " + ", ".join(known) + "."
            problems.append(Problem(f"{path}[{key!r}]", "is not a known key.", hint))
    return kind(**values)


def keys(kind: Any, prefix: str = "") -> Iterator[tuple[str, str, Any]]:
    """Each key below ``kind``, with its type in words and its default."""
    hints = get_type_hints(kind)
    for f in fields(kind):
        hint = hints[f.name]
        if hasattr(hint, "__dataclass_fields__"):
            yield from keys(hint, f"{prefix}{f.name.upper()}.")
        elif get_origin(hint) is dict and hasattr(get_args(hint)[1], "__dataclass_fields__"):
            yield from keys(get_args(hint)[1], f"{prefix}{f.name.upper()}.<name>.")
        else:
            yield prefix + key_of(kind, f.name), describe(hint), getattr(kind(), f.name)
