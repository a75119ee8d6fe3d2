"""The benchmark's own arithmetic, and that its server counts. It measures nothing here."""

import smtplib
import socket

import pytest

from tests.bench import report
from tests.bench.contestants import ALL, base, find
from tests.bench.figures import Figures, Who
from tests.bench.scenarios import FULL, quick
from tests.bench.sink import Sink
from tests.bench.svg import bars, number

MAIL = "From: a@example.com\r\nMessage-ID: <{}@bench>\r\n\r\nMessage-ID: <not-this@bench>\r\n"


@pytest.fixture
def sink():
    with Sink() as sink:
        yield sink


def send(sink, *mails):
    with smtplib.SMTP("127.0.0.1", sink.port) as connection:
        for message_id, recipients in mails:
            connection.sendmail("shop@example.com", recipients, MAIL.format(message_id))
    sink.wait(len(mails), 10)


def test_the_sink_counts_mails_and_recipients(sink):
    send(sink, ("one", ["a@example.com"]), ("two", ["b@example.com", "c@example.com"]))
    came = sink.report()
    assert (came["mails"], came["recipients"], came["wrong"], came["connections"]) == (2, 3, [], 1)


def test_the_sink_names_a_mail_that_came_twice(sink):
    send(sink, ("one", ["a@example.com"]), ("one", ["b@example.com"]))
    assert sink.report()["wrong"] == ["<one@bench>"]


def test_the_sink_names_a_recipient_who_had_two_mails(sink):
    send(sink, ("one", ["a@example.com"]), ("two", ["a@example.com"]))
    assert sink.report()["wrong"] == ["a@example.com"]


def test_the_sink_names_a_mail_without_a_message_id(sink):
    with smtplib.SMTP("127.0.0.1", sink.port) as connection:
        connection.sendmail("shop@example.com", ["a@example.com"], "Subject: x\r\n\r\nMessage-ID: <x@y>\r\n")
    assert sink.report()["wrong"] == ["no Message-ID"]


def test_the_sink_takes_pipelined_commands_across_mails(sink):
    with socket.create_connection(("127.0.0.1", sink.port)) as sock, sock.makefile("r") as replies:
        envelope = "MAIL FROM:<a@example.com>\r\nRCPT TO:<{}@example.com>\r\nDATA\r\n"
        first, second = (envelope.format(n) + MAIL.format(n) + ".\r\n" for n in ("one", "two"))
        sock.sendall(f"EHLO me\r\n{first}{second}QUIT\r\n".encode())
        codes = [line[:3] for line in replies]
    assert codes == ["220", *["250"] * 4, *["250", "250", "354", "250"] * 2, "221"]
    assert sink.report()["mails"] == 2


def test_the_sink_forgets_on_reset(sink):
    send(sink, ("one", ["a@example.com"]))
    sink.reset()
    assert sink.report()["mails"] == 0


def runs(scenario, contestant, *values, name="rate"):
    return [
        {"scenario": scenario, "contestant": contestant, "round": n, name: value}
        for n, value in enumerate(values)
    ]


def test_a_figure_is_the_median_of_the_rounds():
    figures = Figures(runs("bulk", "own", 1, 100, 3))
    assert figures.value(Who("bulk", "own"), "rate") == 3


def test_a_ratio_is_the_median_of_those_within_one_round():
    figures = Figures(runs("bulk", "own", 10, 80, 30) + runs("bulk", "mailer", 5, 20, 10))
    assert figures.ratio("rate", Who("bulk", "own"), Who("bulk", "mailer")) == 3  # of 2, 4 and 3


def test_a_ratio_takes_only_rounds_that_both_made():
    figures = Figures(runs("bulk", "own", 10, 80) + runs("bulk", "mailer", 5))
    assert figures.ratio("rate", Who("bulk", "own"), Who("bulk", "mailer")) == 2


def test_who_failed_once_has_no_figures():
    fault = {"scenario": "bulk", "contestant": "mailer", "round": 1, "fault": "lost one"}
    figures = Figures([*runs("bulk", "own", 10), *runs("bulk", "mailer", 5), fault])
    assert figures.value(Who("bulk", "mailer"), "rate") is None
    assert figures.ratio("rate", Who("bulk", "own"), Who("bulk", "mailer")) is None
    assert figures.best("rate", "bulk", ["mailer", "own"]) == Who("bulk", "own")


def test_a_goal_says_whether_it_is_met():
    figures = Figures(runs("bulk", "own", 0.7, name="cpu"))
    rows = report.goals(figures, {}).splitlines()
    assert "| bulk: CPU seconds per 1,000 | 0.70 | at most 0.80 | yes |" in rows
    assert any(row.endswith("| not measured |") for row in rows)


def test_a_report_shows_who_failed_and_leaves_out_empty_columns():
    fault = {"scenario": "bulk", "contestant": "mailer", "round": 0, "fault": "1 mail was lost\nand more"}
    scenario = {"name": "bulk", "contestants": ["own", "mailer"]}
    table = report.table(Figures([*runs("bulk", "own", 1234.5), fault]), scenario).splitlines()
    assert table[0] == "| | emails/s |"
    assert "| celery_mailer | 1,234 |" in table
    assert table[-1].endswith("failed: 1 mail was lost |")


def test_a_plot_is_svg_with_its_words_escaped():
    svg = bars("a < b", "emails/s", [("x & y", 10, "#000"), ("z", 5, "#111")])
    assert svg.startswith("<svg ")
    assert "a &lt; b, emails/s" in svg
    assert "x &amp; y" in svg
    assert svg.count("<rect") == 2


@pytest.mark.parametrize(("value", "shown"), [(1234.5, "1,234"), (12.34, "12.3"), (0.456, "0.46")])
def test_numbers_have_the_digits_that_count(value, shown):
    assert number(value) == shown


def test_scenarios_name_contestants_that_there_are():
    for scenario in (*FULL, *quick()):
        assert all(find(name) for name in scenario.contestants)


def test_every_contestant_has_its_requirements():
    folder = report.ROOT / "tests" / "bench" / "requirements"
    assert {cls.environment for cls in ALL} == {path.stem for path in folder.iterdir()} - {"common"}


def test_old_rows_are_copies_of_a_specimen():
    sql = base.copy_rows("t", {"id": "new.id"}, ["id", "word"], "t s, new")
    assert sql == 'INSERT INTO t ("id", "word") SELECT new.id, s."word" FROM t s, new'
