"""How fast this process hands mail over, so that it claims no more than it can do in its time."""

import sys


class Pace:
    """How many seconds a hand-over takes in this process, lately.

    ``unknown`` is the number that fits while nothing is known.
    """

    def __init__(self, unknown: int) -> None:
        self.unknown = unknown
        self.seconds = 0.0

    def learn(self, seconds: float) -> None:
        self.seconds = 0.8 * self.seconds + 0.2 * seconds if self.seconds else seconds

    def fits(self, seconds: float) -> int:
        """How many hand-overs fit into ``seconds``: at least one."""
        if seconds == float("inf"):
            return sys.maxsize
        return max(1, int(seconds / self.seconds)) if self.seconds else self.unknown
