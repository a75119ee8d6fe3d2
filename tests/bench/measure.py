"""What processes cost, from /proc: CPU time with their children's, memory, and what others used."""

import os
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
SAMPLE_EVERY = 0.5  # seconds between looks at the memory


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on (proc(5)): the name before them may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def parent_of(pid: int) -> int:
    return int(_stat(pid)[1])


def tree(pids: Iterable[int]) -> list[int]:
    """The processes, and all that descend from them."""
    found = []
    for pid in pids:
        found.append(pid)
        with suppress(OSError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                found += tree(map(int, (task / "children").read_text().split()))
    return found


def cpu(pids: Iterable[int]) -> float:
    """Seconds that the trees of ``pids`` have used so far, user and system, ended children included."""
    ticks = 0
    for pid in tree(pids):
        with suppress(OSError):
            ticks += sum(map(int, _stat(pid)[11:15]))  # utime, stime, cutime, cstime
    return ticks / TICK


def own_cpu() -> float:
    """Seconds of this process alone."""
    return sum(map(int, _stat(os.getpid())[11:13])) / TICK


def machine_cpu() -> float:
    """Seconds that all processes of the machine have used so far."""
    user, nice, system, _idle, _wait, irq, softirq = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:8]
    )
    return (user + nice + system + irq + softirq) / TICK


def memory(pids: Iterable[int]) -> float:
    """MB that the trees of ``pids`` use now; what they share is counted once (PSS)."""
    kilobytes = 0
    for pid in tree(pids):
        with suppress(OSError):
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            kilobytes += int(rollup.split("\nPss:")[1].split()[0])
    return kilobytes / 1024


class Peak:
    """``with Peak(pids) as peak``: ``peak.megabytes`` is the most that was seen of their memory."""

    def __init__(self, pids: Callable[[], list[int]]) -> None:
        self.pids = pids
        self.megabytes = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Peak":
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._over.wait(SAMPLE_EVERY):
            self._look()

    def _look(self) -> None:
        self.megabytes = max(self.megabytes, memory(self.pids()))


def machine() -> str:
    """What runs the benchmark, by kind and not by name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    model = models[0] if models else "unknown processor"
    return f"{model}, {os.cpu_count()} cores"
