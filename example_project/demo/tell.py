import sys
import time


class Teller:
    """Tells what goes on. On a terminal, progress is one line that changes; elsewhere, some lines."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._terminal = sys.stdout.isatty()
        self._shown = ""
        self._next = 0.0

    def __call__(self, text: str) -> None:
        print(f"{self._elapsed():5.1f} s  {text}", flush=True)

    def progress(self, text: str, *, last: bool = False) -> None:
        if self._terminal:
            print(f"\r\033[K{self._elapsed():5.1f} s  {text}", end="\n" if last else "", flush=True)
        elif last or (text != self._shown and self._elapsed() >= self._next):
            self(text)
            self._shown, self._next = text, self._elapsed() + 1

    def _elapsed(self) -> float:
        return time.monotonic() - self._started
