"""Mail transactions on an open SMTP session, each begun with the end of the one before (RFC 2920).

With PIPELINING the commands of an envelope go out together, and those of the next one right behind the final
dot of this message: a message costs one round trip, where it takes four with a wait for each reply. Without
it, or after a server showed that it does not do as it says, every command waits for its reply: the same
conversation, with groups of one command.

Two things keep it exact. Replies come in the order of the commands (RFC 2920, section 3.2), and the 354 to
DATA, which no other command may have for an answer, shows with each message that none was lost or added. And
a body goes out only when every reply before it was read: so at most one message is ever in doubt.
"""

import re
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from celery_mailer.deliver.providers.outcomes import broken_line, error_words, smtp_reply
from celery_mailer.deliver.providers.patience import Line
from celery_mailer.values import Kind, Outcome, Phase, Reply, Result, summarise

# Bytes of commands that wait for their replies together. Client and server would wait for each other for
# ever if each filled the other's buffers while it writes (RFC 2920, section 3.1): this is far below them.
GROUP = 4096

# "Unknown command", "not implemented", "bad sequence" (RFC 5321, section 4.2.2): in answer to a command that
# was in order, the server has lost its place. That says nothing against the email.
OUT_OF_STEP = frozenset({500, 502, 503})


@dataclass(frozen=True, slots=True)
class Command:
    """What one reply answers: a line that was said, or the message itself (``BODY``, ``DOT``)."""

    phase: Phase
    line: bytes = b""
    recipient: str = ""


RESET = Command(Phase.MAIL, b"RSET\r\n")


@dataclass(slots=True)
class Transaction:
    """One message's way through a session: what is to be said, what was heard, and what it comes to.

    ``commands`` are its MAIL, RCPT and DATA; ``body`` is the message as the line wants it, dot and all. One
    that may not be sent at all has no commands, but a ``verdict``, or everybody in ``refused``.
    """

    recipients: list[str]
    begin: Callable[[], bool]
    body: bytes = b""
    commands: deque[Command] = field(default_factory=deque)  # not said yet
    awaited: deque[Command] = field(default_factory=deque)  # said, and not answered yet
    phase: Phase | None = None  # of the last reply, or of the one that did not come
    verdict: Reply | None = None  # on all who are not in ``refused``
    refused: dict[str, Reply] = field(default_factory=dict)
    accepted: int = 0  # recipients
    invited: bool = False  # the server said 354, and waits for the message
    begun: bool = False  # the message is on its way
    lost: Reply | None = None  # how the line failed meanwhile, or what the server said when it closed it

    def say(self, size: int) -> bytes:
        """The next commands: as many as ``size`` bytes hold, or one; none that can come to nothing."""
        only_data = bool(self.commands) and self.commands[0].phase == Phase.DATA
        if self.verdict is not None or (only_data and not self.accepted):
            self.commands.clear()
        said = b""
        while self.commands and (not said or len(said) + len(self.commands[0].line) <= size):
            self.awaited.append(self.commands.popleft())
            said += self.awaited[-1].line
        return said

    def hear(self, code: int, words: bytes) -> None:
        """Take the reply to the earliest command that has none."""
        command = self.awaited.popleft()
        self.phase = command.phase
        if command.phase == Phase.DATA and code == 354 and self.verdict is None:
            self.invited = True
            return
        reply = smtp_reply(command.phase, -1 if command is RESET and code not in (250, 421) else code, words)
        if code == 421 or reply.code is None:
            # What fits no rule leaves open whose turn it is, so nothing more can be said on this line.
            self._lose(reply)
        elif self.verdict is None:  # else it follows from that
            self._judge(command, reply)

    def _judge(self, command: Command, reply: Reply) -> None:
        if command.phase == Phase.RCPT and reply.outcome == Outcome.ACCEPTED:
            self.accepted += 1
        elif command.phase == Phase.RCPT:
            self.refused[command.recipient] = reply
        elif command.phase == Phase.DOT or reply.outcome != Outcome.ACCEPTED:
            self.verdict = reply

    def fail(self, words: str) -> None:
        """The line failed before the next reply came."""
        self.phase = self.awaited[0].phase if self.awaited else self.phase
        self._lose(broken_line(self.phase or Phase.MAIL, words))

    def _lose(self, reply: Reply) -> None:
        self.lost = reply
        self.verdict = self.verdict or reply
        self.commands.clear()
        self.awaited.clear()

    @property
    def in_order(self) -> bool:
        """Whether the next reply is to a command, and all went well with those before it."""
        command = self.awaited[0]
        possible = self.accepted > 0 or command.phase != Phase.DATA
        return bool(command.line) and self.verdict is None and possible

    def result(self) -> Result:
        """What it came to, for each recipient."""
        if self.accepted:
            self.refused = {address: _about_one(reply) for address, reply in self.refused.items()}
        # A verdict is missing only where everybody was refused.
        return summarise({r: self.refused.get(r) or self.verdict for r in self.recipients})  # type: ignore[misc]


# "Too many recipients", by RFC 821; the right code is 452 (RFC 5321, section 4.5.3.1.10). With the status of
# a full mailbox, for one, it is what it says.
_TOO_MANY = re.compile(r"(?!5\.\d)|5\.5\.3\b")


def _about_one(reply: Reply) -> Reply:
    """``reply`` to RCPT in a session that took another recipient: so it was not the session it refused."""
    if reply.code == 552 and _TOO_MANY.match(reply.text):
        return replace(reply, outcome=Outcome.DEFERRED, kind=Kind.TEMPORARY)
    return replace(reply, kind=Kind.TEMPORARY) if reply.kind == Kind.PROVIDER else reply


class Conversation:
    """What is said on one line: transactions, one after the other, until it can carry no more."""

    def __init__(self, line: Line, *, pipelining: bool) -> None:
        self.pipelining = pipelining
        self.over = False  # the line can carry nothing more
        self.odd = False  # and pipelining may be to blame for that
        self._line = line
        self._group = GROUP if pipelining else 0
        self._fresh = True  # no transaction on this line yet
        self._rested = False  # nothing was said on it for a while
        self._unfinished = False  # the server still holds a transaction

    def resume(self) -> None:
        """The line was left alone for a while: the server may have hung up."""
        self._fresh, self._rested = False, True

    def run(self, transactions: Iterator[Transaction], timeout: float) -> Iterator[Transaction]:
        """Carry out ``transactions`` and yield them, as they end.

        The envelope may take ``timeout`` seconds, and the message as long again. The next one is composed
        while the network is busy. Ends early when the line is lost or a message may not begin; what was
        drawn and not yielded was then certainly not taken, and can be done again as if nothing had happened.
        """
        ahead = transactions if self.pipelining else iter(())
        while (current := next(transactions, None)) is not None:
            self._line.clock.start(timeout)
            self._line.write(self._opening(current))
            following = next(ahead, None)
            while current is not None:
                self._agree(current)
                if not self._hand_over(current, following, timeout):
                    return
                upcoming = next(ahead, None) if following is not None and not self.over else None
                self._listen(current)
                if self._can_be_repeated(current):
                    return
                self._fresh = self._rested = False
                yield current
                if self.over:
                    return
                self._line.clock.start(timeout)
                current, following = following, upcoming

    def _opening(self, transaction: Transaction) -> bytes:
        if self._unfinished and transaction.commands:
            transaction.commands.appendleft(RESET)
            self._unfinished = False
        return transaction.say(self._group)

    def _agree(self, current: Transaction) -> None:
        """Say what is left of the envelope, and hear what the server says to it."""
        while current.awaited:
            self._listen(current)
            self._line.clock.next_step()
            self._line.write(current.say(self._group))

    def _hand_over(self, current: Transaction, following: Transaction | None, timeout: float) -> bool:
        """Send the message, if the server wants it, and the next envelope; false if it may not begin."""
        self._line.clock.next_step()
        if current.invited and current.accepted and not self._begin(current, timeout):
            return False
        if self.over:
            return True
        body = b""
        if current.invited:
            # Invited for nobody: a message without lines ends it (RFC 2920, section 3.1).
            body = current.body if current.accepted else b".\r\n"
        elif current.phase is not None:
            self._unfinished = True
        taken = self._line.write(body + (self._opening(following) if following is not None else b""))
        if body:
            complete = taken >= len(body)
            current.awaited.append(Command(Phase.DOT if complete else Phase.BODY))
            self.over = not complete
        return True

    def _begin(self, current: Transaction, timeout: float) -> bool:
        if not self._line.quiet():
            current.fail("the server said more than it was asked")
            self._note(current)
            return True
        if not current.begin():
            self.over = True
            return False
        current.begun = True
        # Giving up on the answer to the dot is how duplicates are made (RFC 5321, section 4.5.3.2.6
        # asks for ten minutes of patience): it gets all the time that the lease allows.
        self._line.clock.start(timeout)
        self._line.clock.last_step()
        return True

    def _listen(self, current: Transaction) -> None:
        """Hear the reply to each command that awaits one, or that the line was lost."""
        while current.awaited:
            if not current.begun:
                self._line.clock.next_step()
            try:
                code, words = self._line.reply()
            except OSError as error:
                current.fail(error_words(error))
            else:
                lost_its_place = self.pipelining and code in OUT_OF_STEP and current.in_order
                current.hear(-1 if lost_its_place else code, words)
        self._note(current)

    def _note(self, current: Transaction) -> None:
        if current.lost:
            self.over = True
            hung_up_meanwhile = self._rested and current.phase == Phase.MAIL
            self.odd = self.pipelining and current.lost.code is None and not hung_up_meanwhile

    def _can_be_repeated(self, current: Transaction) -> bool:
        """Whether the loss of the line means nothing for the message, and need not even be told.

        A server may hang up between two messages, by its own count or clock. And where pipelining went wrong,
        no reply can be trusted to be about what it seems to be: so the server is asked again, step by step.
        """
        hung_up = current.phase == Phase.MAIL and not self._fresh
        return current.lost is not None and not current.begun and (hung_up or self.odd)
