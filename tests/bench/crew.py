"""The processes of one contestant in one scenario."""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.bench.config import Config
from tests.bench.contestants import Contestant
from tests.bench.ground import ROOT

VENVS = ROOT / ".venv-bench"


class Failed(Exception):
    """The contestant did not do what it was to do."""


def python(environment: str) -> str:
    return str(VENVS / environment / "bin" / "python")


class Crew:
    """``with Crew(...) as crew``: a caller now, workers on ``start_workers``, all of them gone in the end."""

    def __init__(self, contestant: Contestant, config: Config) -> None:
        self.contestant = contestant
        self.config = config
        self.log = Path(config.folder) / f"{contestant.name}.log"
        self.env = {**os.environ, **config.environment(), "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
        self.workers: list[subprocess.Popen] = []

    def __enter__(self) -> "Crew":
        pipe = subprocess.PIPE
        self.caller = self._start(["-m", "tests.bench.caller"], stdin=pipe, stdout=pipe, text=True)
        self._answer(30)
        return self

    def __exit__(self, *exc: object) -> None:
        self.caller.stdin.close()
        processes = [self.caller, *self.workers]
        for process in processes:
            process.terminate()
        for process in processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # and what it may have left behind
            process.wait(10)
        self.caller.stdout.close()

    def start_workers(self) -> None:
        for argv in self.contestant.workers(self.config):
            self.workers.append(self._start(argv, stdin=subprocess.DEVNULL))

    def manage(self, *argv: str) -> None:
        done = subprocess.run(
            [python(self.contestant.environment), "-m", "django", *argv],
            env=self.env,
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise Failed(done.stderr[-2000:])

    def pids(self) -> list[int]:
        return [self.caller.pid, *(worker.pid for worker in self.workers)]

    def order(self, do: str, timeout: float, **arguments: Any) -> dict[str, Any]:
        """Have the caller do it; its answer. ``Failed`` if it dies, or takes longer than ``timeout`` s."""
        with suppress(BrokenPipeError):  # the answer says it better
            self.caller.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self.caller.stdin.flush()
        return self._answer(timeout)

    def _answer(self, timeout: float) -> Any:
        late = threading.Timer(timeout, self.caller.kill)
        late.start()
        try:
            line = self.caller.stdout.readline()
        finally:
            late.cancel()
        if not line:
            raise Failed(f"the caller ended, or took more than {timeout:.0f} s: {self.last_words()}")
        return json.loads(line)

    def last_words(self) -> str:
        return self.log.read_text(errors="replace")[-600:].strip()

    def _start(self, argv: Sequence[str], **pipes: Any) -> subprocess.Popen:
        with self.log.open("a") as log:
            return subprocess.Popen(
                [python(self.contestant.environment), *argv],
                env=self.env,
                cwd=ROOT,
                stderr=log,
                start_new_session=True,
                **({"stdout": log} | pipes),
            )


def wait_until(condition: Any, timeout: float, every: float = 0.02) -> float:
    """The time at which ``condition()`` was true; raises ``TimeoutError``."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(every)
    return time.monotonic()
