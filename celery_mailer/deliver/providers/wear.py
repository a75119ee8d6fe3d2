"""How long a connection may be used: not for too many mails, not for too long, and not after a rest."""

import time

from celery_mailer import options

# Seconds without use after which what is open is opened anew: a line that the server closed meanwhile
# fails in the middle of a mail, and nobody can say in which.
KEEP_IDLE = 5.0


class Wear:
    """The age and use of one connection, by the rules of its provider."""

    def __init__(self, rules: options.Provider) -> None:
        self._rules = rules
        self._opened_at = self._used_at = 0.0
        self._sent = 0

    def renewed(self) -> None:
        self._opened_at = self._used_at = time.monotonic()
        self._sent = 0

    def used(self) -> None:
        self._used_at = time.monotonic()
        self._sent += 1

    @property
    def fit(self) -> bool:
        """Whether it may carry one more mail."""
        now = time.monotonic()
        return (
            self._sent < self._rules.max_messages_per_connection
            and now - self._opened_at <= self._rules.max_connection_age.total_seconds()
            and now - self._used_at <= KEEP_IDLE
        )
