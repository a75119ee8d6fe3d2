"""How far a command is: a bar on a terminal, now and then a line elsewhere."""

import time
from collections.abc import Callable
from typing import Any

WIDTH = 30  # characters of the bar
REDRAW = 0.1  # seconds between two states of the bar
LINES = 10.0  # seconds between two lines, where there is no terminal


class Progress:
    """Tells on ``stream`` (a command's ``stderr``: standard output is for the result) what is done.

    Without a ``total`` it counts. Use it as a context manager: the bar is taken away at the end.
    """

    def __init__(
        self, stream: Any, what: str, total: int = 0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream, self._what, self._total, self._clock = stream, what, total, clock
        self._on_terminal = bool(stream.isatty())
        self._done = 0
        self._told_at = clock()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *raised: object) -> None:
        if self._on_terminal:
            self._write("\r\x1b[K")

    def advance(self, number: int) -> None:
        """``number`` more are done."""
        self._done += number
        now = self._clock()
        if now - self._told_at >= (REDRAW if self._on_terminal else LINES):
            self._told_at = now
            self._write(
                f"\r\x1b[K{self._bar()}{self._words()}" if self._on_terminal else f"{self._words()}\n"
            )

    def _bar(self) -> str:
        filled = WIDTH * min(self._done, self._total) // self._total if self._total else 0
        return f"[{'#' * filled}{'.' * (WIDTH - filled)}] " if self._total else ""

    def _words(self) -> str:
        of = f" of {self._total:,}" if self._total else ""
        return f"{self._done:,}{of} {self._what}"

    def _write(self, text: str) -> None:
        self._stream.write(text, ending="", style_func=str)
        self._stream.flush()
