"""The pipelined conversation against a server in memory: every order of faults, every place to cut."""

import itertools
from collections import Counter
from types import SimpleNamespace

import pytest

from celery_mailer.deliver.providers import patience, pipeline
from celery_mailer.deliver.providers.contract import Parcel
from celery_mailer.deliver.providers.patience import Clock, Line
from celery_mailer.deliver.providers.pipeline import Conversation
from celery_mailer.deliver.providers.smtp import compose
from celery_mailer.values import Kind, Outcome, Phase

A, D, R, U = Outcome.ACCEPTED, Outcome.DEFERRED, Outcome.REJECTED, Outcome.UNCERTAIN
NOTHING = ""  # no reply at all


class Server:
    """Its state is that of RFC 5321; what it says is the script's: ``{(number of the mail, step): reply}``.

    A step is MAIL, RCPT0 and so on, DATA, dot, or RSET. ``taken`` are the recipients of the mails that it
    took, by number; ``told[number]`` is how much it had said when the answer to that dot was complete.
    """

    def __init__(self, script=(), *, polite=True):
        self.script = dict(script)
        self.polite = polite  # to commands that cannot follow, it says so
        self.said = b""
        self.taken, self.told = {}, {}
        self.verbs = []
        self.closed = False
        self._input, self._number = b"", -1
        self._sender = self._in_data = False
        self._recipients, self._asked = [], 0

    def feed(self, data):
        self._input += data
        while not self.closed:
            end = b"\r\n.\r\n" if self._in_data and not self._input.startswith(b".\r\n") else b"\r\n"
            line, found, rest = self._input.partition(end)
            if not found:
                break
            self._input = rest
            self._dot() if self._in_data else self._command(line.decode())

    def _command(self, line):
        verb = line.split(" ")[0]
        self.verbs.append(verb)
        if verb == "MAIL":
            self._number, self._asked, self._recipients = self._number + 1, 0, []
            self._sender = self._say("MAIL", "250 fine")
        elif verb == "RCPT":
            step, self._asked = f"RCPT{self._asked}", self._asked + 1
            if self._say(step, "250 fine", possible=self._sender):
                self._recipients.append(line[line.index("<") + 1 : -1])
        elif verb == "DATA":
            possible = bool(self._sender and self._recipients)
            self._in_data = self._say("DATA", "354 go ahead", possible=possible)
        elif verb == "RSET":
            self._sender = False
            self._say("RSET", "250 forgotten")

    def _dot(self):
        self._in_data = self._sender = False
        if self._say("dot", "250 taken", possible=bool(self._recipients)):
            self.taken[self._number] = self._recipients
            self.told[self._number] = len(self.said)

    def _say(self, step, reply, *, possible=True):
        if self.polite and not possible:
            reply = "503 not now"
        else:
            reply = self.script.get((self._number, step), reply)
        if reply is not NOTHING:
            self.said += reply.encode() + b"\r\n"
        self.closed = reply.startswith("421")
        return reply[:1] in ("2", "3")


class Wire:
    """The socket to ``server``, cut after so many bytes ``sent``, or ``heard``.

    With ``lossy`` the system takes bytes that never arrive. The end is an end, or with ``reset`` an error.
    """

    def __init__(self, server, *, sent=None, heard=None, lossy=False, reset=False, at_once=4096):
        self.server, self.sent, self.heard = server, sent, heard
        self.lossy, self.reset, self.at_once = lossy, reset, at_once
        self.writes, self.turns = [], 0
        self._waiting = True
        self._read = 0

    def settimeout(self, seconds):
        self._waiting = seconds > 0

    def setsockopt(self, *option):
        pass

    def send(self, view):
        data = bytes(view)
        room = len(data) if self.sent is None else min(len(data), self.sent)
        if not room and not self.lossy:
            raise BrokenPipeError("cut")
        if self.sent is not None:
            self.sent -= room
        self.server.feed(data[:room])
        self.writes.append(data[:room])
        return len(data) if self.lossy else room

    def recv_into(self, buffer):
        there = self.server.said[: self.heard][self._read :][: min(self.at_once, len(buffer))]
        if there:
            self._read += len(there)
            self.turns += len(self.writes) and 1
            buffer[: len(there)] = there
            return len(there)
        if not self._waiting:
            raise BlockingIOError
        cut = self.heard is not None or self.sent == 0 or self.server.closed
        if self.reset or not cut:
            raise ConnectionResetError("cut") if cut else TimeoutError("silent")
        return 0


def talk(wire, *, pipelining=True):
    line = Line(SimpleNamespace(sock=wire, file=None), Clock(5))
    return Conversation(line, pipelining=pipelining)


def recipients(number, count=2):
    return [f"{number}.{i}@example.com" for i in range(count)]


def mails(number, count=2, begin=lambda: True, body=b"text\r\n"):
    for i in range(number):
        parcel = Parcel(None, recipients(i, count), begin)
        yield compose(parcel, "shop@example.com", body, {"pipelining": ""})


def say(server, transactions=None, *, pipelining=True, **wire):
    """The results, and the conversation that they come from."""
    conversation = talk(Wire(server, **wire), pipelining=pipelining)
    ended = conversation.run(mails(3) if transactions is None else iter(transactions), 10)
    return [t.result() for t in ended], conversation


def seen(reply):
    return (reply.outcome, reply.kind, reply.phase, reply.code)


def outcomes(result):
    return [reply.outcome for reply in result.recipients.values()]


def assert_true(server, results, wire_heard=None):
    """No mail has a result that its server would deny; none that was taken can go out again unnoticed."""
    for number in range(3):
        taken = server.taken.get(number, [])
        for address in recipients(number):
            outcome = results[number].recipients[address].outcome if number < len(results) else None
            if outcome == A:
                assert address in taken
            if address in taken:
                assert outcome in (A, U)
            if address in taken and (wire_heard is None or server.told[number] <= wire_heard):
                assert outcome == A


# In good order
def test_every_mail_of_a_stream_is_taken_once():
    server = Server()
    results, conversation = say(server)
    assert [outcomes(r) for r in results] == [[A, A]] * 3
    assert server.taken == {i: recipients(i) for i in range(3)}
    assert not conversation.over


def test_the_next_envelope_goes_out_with_the_end_of_the_body():
    wire = Wire(Server())
    list(talk(wire).run(mails(3), 10))
    first, *middle, last = wire.writes
    assert first.startswith(b"MAIL")
    assert first.endswith(b"DATA\r\n")
    assert len(middle) == 2
    assert all(b"\r\n.\r\nMAIL FROM" in w and w.endswith(b"DATA\r\n") for w in middle)
    assert last.endswith(b"\r\n.\r\n")


def test_without_pipelining_every_command_waits_for_its_reply():
    wire = Wire(Server())
    list(talk(wire, pipelining=False).run(mails(2, 1), 10))
    starts = [w.split(b" ")[0].strip() for w in wire.writes]
    assert starts == [b"MAIL", b"RCPT", b"DATA", b"text\r\n."] * 2


def test_the_next_mail_is_composed_while_the_server_works_on_this_one():
    wire, drawn = Wire(Server()), []

    def noted():
        for transaction in mails(3):
            drawn.append(len(wire.writes))
            yield transaction

    list(talk(wire).run(noted(), 10))
    assert drawn == [0, 1, 2]


def test_no_mail_is_drawn_ahead_without_pipelining():
    drawn = []

    def noted():
        for transaction in mails(3):
            drawn.append(transaction)
            yield transaction

    for number, _ in enumerate(talk(Wire(Server()), pipelining=False).run(noted(), 10), start=1):
        assert len(drawn) == number


def test_at_most_one_message_is_under_way():
    begun = []
    conversation = talk(Wire(Server()))
    transactions = mails(5, begin=lambda: not begun.append(1))
    assert [len(begun) for _ in conversation.run(transactions, 10)] == [1, 2, 3, 4, 5]


def test_a_line_carries_several_streams():
    server = Server()
    conversation = talk(Wire(server))
    for _ in range(3):
        list(conversation.run(mails(1), 10))
        conversation.resume()
    assert len(server.taken) == 3


def test_replies_may_have_several_lines_and_come_in_any_pieces():
    script = {(0, "MAIL"): "250-well\r\n250 fine", (1, "dot"): "250-taken\r\n250-and\r\n250 kept"}
    results, _ = say(Server(script), at_once=1)
    assert [r.summary.outcome for r in results] == [A, A, A]
    assert results[1].summary.text == "taken\nand\nkept"


def test_many_recipients_are_named_in_groups():
    server, unanswered = Server(), []

    class Watched(Wire):
        def send(self, view):
            unanswered.append(len(view))
            return super().send(view)

    wire = Watched(server)
    (transaction,) = talk(wire).run(mails(1, 1000), 10)
    assert outcomes(transaction.result()) == [A] * 1000
    assert max(unanswered) <= pipeline.GROUP
    assert len(unanswered) < 20


def test_when_all_of_a_first_group_are_refused_the_others_are_still_asked():
    count = 200
    server = Server({(0, f"RCPT{i}"): "550 no" for i in range(count - 1)})
    (transaction,) = talk(Wire(server)).run(mails(1, count), 10)
    assert server.taken == {0: recipients(0, count)[-1:]}
    assert outcomes(transaction.result()) == [R] * (count - 1) + [A]


# Every order of faults
STEPS = ("MAIL", "RCPT0", "RCPT1", "DATA", "dot")
FAULTS = ("", "451 later", "550 no", "421 bye")


def script_of(faults, number=1):
    return {(number, step): fault for step, fault in zip(STEPS, faults, strict=True) if fault}


@pytest.mark.parametrize("polite", [True, False])
def test_in_every_order_of_faults_each_recipient_gets_the_servers_answer(polite):
    for faults in itertools.product(FAULTS, repeat=len(STEPS)):
        server = Server(script_of(faults), polite=polite)
        results, _ = say(server)
        assert_true(server, results)


def test_in_every_order_of_faults_pipelining_comes_to_the_same():
    for faults in itertools.product(FAULTS, repeat=len(STEPS)):
        slow, quick = Server(script_of(faults)), Server(script_of(faults))
        expected, _ = say(slow, pipelining=False)
        results, conversation = say(quick)
        assert results == expected, faults
        assert quick.taken == slow.taken
        assert not conversation.odd


def test_one_recipient_refused_in_the_middle_is_told_apart():
    server = Server({(1, "RCPT1"): "550 no"})
    results, _ = say(server, mails(3, 3))
    assert [outcomes(r) for r in results] == [[A, A, A], [A, R, A], [A, A, A]]
    assert server.taken[1] == [recipients(1, 3)[0], recipients(1, 3)[2]]


def test_after_a_refusal_the_server_is_told_to_forget():
    server = Server({(0, "DATA"): "451 later"})
    results, _ = say(server)
    assert [r.summary.outcome for r in results] == [D, A, A]
    assert server.verbs == ["MAIL", "RCPT", "RCPT", "DATA", "RSET"] + ["MAIL", "RCPT", "RCPT", "DATA"] * 2


def test_a_refusal_at_the_end_of_a_stream_is_forgotten_with_the_next():
    server = Server({(0, "RCPT0"): "550 no", (0, "RCPT1"): "550 no"})
    conversation = talk(Wire(server))
    list(conversation.run(mails(1), 10))
    conversation.resume()
    (transaction,) = conversation.run(mails(1), 10)
    assert transaction.result().summary.outcome == A
    assert "RSET" in server.verbs


def test_invited_for_nobody_an_empty_message_ends_it():
    script = {(0, "RCPT0"): "550 no", (0, "RCPT1"): "550 no", (0, "dot"): "554 nobody"}
    server = Server(script, polite=False)
    wire = Wire(server)
    results = [t.result() for t in talk(wire).run(mails(3), 10)]
    assert [outcomes(r) for r in results] == [[R, R], [A, A], [A, A]]
    assert results[0].summary.kind == Kind.RECIPIENT
    assert 0 not in server.taken
    assert wire.writes[1].startswith(b".\r\nMAIL")


def test_invited_after_the_sender_was_refused_nothing_is_sent():
    server = Server({(0, "MAIL"): "550 no"}, polite=False)
    results, conversation = say(server)
    assert (results, server.taken) == ([], {})
    assert (conversation.over, conversation.odd) == (True, True)


# Every place to cut the line
CUT_SCRIPTS = {
    "all well": {},
    "one refused": {(1, "RCPT0"): "550 no"},
    "all refused": {(1, "RCPT0"): "550 no", (1, "RCPT1"): "451 later"},
    "data refused": {(1, "DATA"): "554 no"},
    "dot refused": {(0, "dot"): "554-spam\r\n554 no", (1, "dot"): "451 later"},
    "421 in the middle": {(1, "RCPT1"): "421 bye"},
    "421 to the dot": {(1, "dot"): "421 bye"},
    "421 between two": {(1, "MAIL"): "421-enough\r\n421 bye"},
}


def whole(script):
    """How many bytes go each way when nothing is cut."""
    server = Server(script)
    wire = Wire(server)
    list(talk(wire).run(mails(3), 10))
    return len(b"".join(wire.writes)), len(server.said)


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("script", CUT_SCRIPTS)
def test_cut_after_any_byte_of_the_replies_no_mail_is_misjudged(script, reset):
    for heard in range(whole(CUT_SCRIPTS[script])[1]):
        server = Server(CUT_SCRIPTS[script])
        results, conversation = say(server, heard=heard, reset=reset)
        assert_true(server, results, heard)
        assert sum(r.summary.outcome == U for r in results) <= 1
        assert conversation.over


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("lossy", [False, True], ids=["noticed", "unnoticed"])
@pytest.mark.parametrize("script", CUT_SCRIPTS)
def test_cut_after_any_byte_of_what_is_said_no_mail_is_misjudged(script, lossy, reset):
    for sent in range(whole(CUT_SCRIPTS[script])[0]):
        server = Server(CUT_SCRIPTS[script])
        results, _ = say(server, sent=sent, lossy=lossy, reset=reset)
        assert_true(server, results)
        unanswered = [r for r in results if r.summary.outcome == U]
        assert len(unanswered) <= (1 if lossy else 0)  # what did not leave is in no doubt


@pytest.mark.parametrize("pipelining", [True, False])
def test_cut_in_both_directions_no_mail_is_misjudged(pipelining):
    sent, heard = whole({})
    for cut_sent, cut_heard in itertools.product(range(0, sent, 5), range(0, heard, 3)):
        server = Server()
        results, _ = say(server, sent=cut_sent, heard=cut_heard, pipelining=pipelining)
        assert_true(server, results, cut_heard)


@pytest.mark.parametrize("script", CUT_SCRIPTS)
def test_what_a_cut_line_left_untouched_goes_out_once_on_the_next(script):
    for heard in range(whole(CUT_SCRIPTS[script])[1]):
        first, second = Server(CUT_SCRIPTS[script]), Server()
        results, _ = say(first, heard=heard)
        again, _ = say(second, list(mails(3))[len(results) :])
        arrived = Counter(address for taken in first.taken.values() for address in taken)
        arrived.update(address for taken in second.taken.values() for address in taken)
        assert set(arrived.values()) <= {1}
        assert len(results) + len(again) == 3


def test_a_server_that_had_enough_of_a_body_says_why_and_hears_no_more():
    server = Server()

    class Full(Wire):
        def send(self, view):
            if bytes(view).startswith(b"text"):
                server.said += b"552 too large\r\n"
                raise BrokenPipeError
            return super().send(view)

    conversation = talk(Full(server))
    results = [t.result() for t in conversation.run(mails(3), 10)]
    assert [seen(r.summary) for r in results] == [(R, Kind.CONTENT, Phase.BODY, 552)]
    assert (server.taken, conversation.over, conversation.odd) == ({}, True, False)


@pytest.mark.parametrize("pipelining", [True, False])
def test_a_reply_that_took_all_its_time_takes_none_from_what_follows(pipelining, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(patience, "time", SimpleNamespace(monotonic=lambda: now[0]))

    class Slow(Wire):
        def recv_into(self, buffer):
            heard = super().recv_into(buffer)
            now[0] += 5 if self._waiting else 0  # the whole step, of which the reply came at the very end
            return heard

    script = {(0, "RCPT0"): "550 no", (0, "RCPT1"): "550 no"}
    ended = talk(Slow(Server(script)), pipelining=pipelining).run(mails(2), 1000)
    assert [t.result().summary.outcome for t in ended] == [R, A]


# What makes no sense
ODD = {
    "a reply is missing at MAIL": {(1, "MAIL"): NOTHING},
    "a reply is missing at RCPT": {(1, "RCPT1"): NOTHING},
    "a reply is missing at DATA": {(1, "DATA"): NOTHING},
    "a reply too many at MAIL": {(1, "MAIL"): "250 fine\r\n250 fine"},
    "a reply too many at RCPT": {(1, "RCPT0"): "250 fine\r\n250 fine"},
    "a reply too many at DATA": {(1, "DATA"): "354 go\r\n250 fine"},
    "a refusal too many": {(1, "RCPT0"): "550 no\r\n550 no"},
    "354 to MAIL": {(1, "MAIL"): "354 go"},
    "354 to RCPT": {(1, "RCPT0"): "354 go"},
    "250 to DATA": {(1, "DATA"): "250 fine"},
    "354 and a refusal": {(1, "DATA"): "354 go\r\n554 no"},
    "garbled at MAIL": {(1, "MAIL"): "what"},
    "garbled at RCPT": {(1, "RCPT1"): "2x0 fine"},
    "no code at all": {(1, "RCPT0"): " "},
    "codes that differ": {(1, "RCPT0"): "250-fine\r\n550 no"},
    "half of DATA": {(1, "DATA"): "500 unknown command"},
    "bad sequence at MAIL": {(1, "MAIL"): "503 nested MAIL"},
    "bad sequence at RCPT": {(1, "RCPT0"): "503 need MAIL"},
    "bad sequence at DATA": {(1, "DATA"): "503 improper pipelining"},
    "not implemented": {(1, "RCPT1"): "502 what"},
}


@pytest.mark.parametrize("what", ODD)
def test_what_makes_no_sense_ends_the_stream_and_leaves_the_mail_untouched(what):
    server = Server(ODD[what])
    results, conversation = say(server)
    assert [r.summary.outcome for r in results] == [A]
    assert set(server.taken) == {0}
    assert (conversation.over, conversation.odd) == (True, True)


DOTS = ["354 what", "what", "25", "25", "250-taken\r\n550 no"]


@pytest.mark.parametrize("reply", DOTS)
def test_an_answer_to_the_dot_that_makes_no_sense_is_no_answer(reply):
    results, conversation = say(Server({(1, "dot"): reply}))
    assert (conversation.over, conversation.odd) == (True, True)
    assert [seen(r.summary) for r in results][1:] == [(U, Kind.NO_ANSWER, Phase.DOT, None)]


def test_when_the_answer_to_a_dot_is_missing_the_next_mail_is_not_sent_out_of_turn():
    server = Server({(1, "dot"): NOTHING})
    _, conversation = say(server)
    assert 2 not in server.taken
    assert (conversation.over, conversation.odd) == (True, True)


def test_bad_sequence_is_an_answer_without_pipelining():
    results, _ = say(Server({(1, "MAIL"): "503 log in first"}), pipelining=False)
    assert [r.summary.outcome for r in results] == [A, R, A]


def test_a_server_that_hangs_up_between_two_mails_is_not_odd():
    server = Server({(1, "MAIL"): "421 enough"})
    results, conversation = say(server)
    assert ([r.summary.outcome for r in results], conversation.over, conversation.odd) == ([A], True, False)


def test_a_line_that_was_closed_while_it_rested_is_not_odd():
    conversation = talk(Wire(Server(), heard=0))
    conversation.resume()
    assert list(conversation.run(mails(1), 10)) == []
    assert (conversation.over, conversation.odd) == (True, False)


def test_a_line_that_fails_at_once_says_so_without_pipelining():
    results, _ = say(Server(), heard=0, pipelining=False)
    assert [seen(r.summary) for r in results] == [(D, Kind.CONNECTION, Phase.MAIL, None)]


# What may not be sent
def test_a_message_that_may_not_begin_is_not_sent_and_ends_the_stream():
    server = Server()
    allowed = iter([True, False])
    results, conversation = say(server, mails(3, begin=lambda: next(allowed)))
    assert ([r.summary.outcome for r in results], set(server.taken)) == ([A], {0})
    assert conversation.over


def test_a_mail_that_is_not_for_this_server_has_its_result_in_its_place():
    server = Server()
    first, _, third = mails(3)
    large = compose(Parcel(None, recipients(1), lambda: True), "a@example.com", b"x" * 99, {"size": "98"})
    results, _ = say(server, [first, large, third])
    assert [r.summary.outcome for r in results] == [A, R, A]
    assert len(server.taken) == 2


def test_an_error_while_composing_passes_through():
    def failing():
        yield from mails(1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(talk(Wire(Server())).run(failing(), 10))
