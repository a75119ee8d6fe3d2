"""The demo's child processes: each is known by its pid, and none outlives the demo."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

CHILD = Path(__file__).with_name("child.py")
PATIENCE = 8.0  # seconds that a process gets to end by itself
LAST_LINES = 30


class DemoFailed(Exception):
    """Something that the demo promises did not come; the message says what."""


class Processes:
    """``with Processes(folder) as processes``: what is started in it is gone after it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder  # where they run, write and log
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *exc: object) -> None:
        for process in self._running.values():
            process.terminate()
        end = time.monotonic() + PATIENCE
        for process in self._running.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, end - time.monotonic()))
            # What is left of its group: itself, if it would not end, or children of its own.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def start(self, name: str, *command: str) -> int:
        """Start ``command``, in a process group of its own: a Ctrl-C is ours to pass on. Returns the pid."""
        child = [sys.executable, str(CHILD), str(os.getpid()), *command]
        with self._log(name).open("wb") as log:
            process = subprocess.Popen(
                child, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0
            )
        self._running[name] = process
        return process.pid

    def check(self) -> None:
        """Raise ``DemoFailed`` if one has ended by itself."""
        for name, process in self._running.items():
            if process.poll() is not None:
                raise DemoFailed(f"The {name} ended by itself, with status {process.returncode}.")

    def wait_for_log(self, name: str, words: str, seconds: float) -> None:
        end = time.monotonic() + seconds
        while words not in self._log(name).read_text(errors="replace"):
            self.check()
            if time.monotonic() > end:
                raise DemoFailed(f"The {name} did not say {words.strip()!r} within {seconds:g} seconds.")
            time.sleep(0.05)

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"


def last_words(folder: Path) -> Iterator[str]:
    """The end of each process's log."""
    for log in sorted(folder.glob("*.log")):
        yield f"The last words of the {log.stem}:"
        yield from (f"  {line}" for line in log.read_text(errors="replace").splitlines()[-LAST_LINES:])
