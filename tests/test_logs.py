"""What the log says, to people and to programs."""

import ast
import inspect
import logging
from pathlib import Path

import pytest
from django.db import transaction
from django.utils import timezone

import celery_mailer
from celery_mailer import chain, logs
from celery_mailer.models.transitions import BROKEN, CANCEL, CLAIM, MOVES, move
from celery_mailer.values import Status
from tests.factories import make_email, make_emails

FOLDER = Path(celery_mailer.__file__).parent


@pytest.fixture
def log(caplog):
    """The records of this app, at all levels."""
    caplog.set_level(logging.DEBUG, "celery_mailer")
    return lambda: [r for r in caplog.records if r.name == "celery_mailer"]


def test_only_one_file_logs():
    users = {p.name for p in FOLDER.rglob("*.py") if "getLogger" in p.read_text()}
    assert users == {"logs.py"}


def test_every_line_names_its_event():
    body = ast.parse(inspect.getsource(logs)).body
    functions = [f for f in body if isinstance(f, ast.FunctionDef) and not f.name.startswith("_")]
    for function in functions:
        calls = [n for n in ast.walk(function) if isinstance(n, ast.Call) and ast.unparse(n.func) == "_log"]
        assert [ast.literal_eval(call.args[1]) for call in calls] == [function.name] * len(calls)


def test_the_moves_that_it_tells_apart_exist():
    assert {m.name for m in MOVES} >= logs.NOTABLE | logs.ROUTINE


def test_a_line_has_the_place_that_it_is_about(log):
    logs.refused_in_silence(ValueError("to: empty"))
    (record,) = log()
    assert record.filename == "test_logs.py"
    assert record.event == "refused_in_silence"


@pytest.mark.django_db(transaction=True)
class TestMoves:
    def test_what_was_sent_is_told_in_one_line_with_the_ids(self, real_smtp, log):
        emails = make_emails(3)
        chain.run([e.pk for e in emails])
        (record,) = [r for r in log() if r.move == "sent"]
        assert record.levelname == "INFO"
        assert record.getMessage() == "3 emails: sent"
        assert (record.status, record.emails) == ("sent", [str(e.pk) for e in emails])

    def test_a_single_email_is_named(self, log):
        email = make_email()
        move([email.pk], CANCEL, reason="by_hand")
        assert log()[-1].getMessage() == f"{email.pk}: cancelled (by_hand)"

    def test_what_somebody_must_mend_is_a_warning(self, log):
        move([make_email().pk], BROKEN, reason="render")
        assert log()[-1].levelname == "WARNING"

    def test_routine_is_for_debugging(self, log, caplog):
        caplog.set_level(logging.INFO, "celery_mailer")
        email = make_email()
        move([email.pk], CLAIM, lease_until=timezone.now())
        assert log() == []

    def test_what_is_rolled_back_is_not_told(self, log):
        with transaction.atomic():
            move([make_email().pk], CANCEL)
            transaction.set_rollback(True)
        assert log() == []

    def test_a_move_that_was_lost_is_not_told(self, log):
        email = make_email()
        move([email.pk], CANCEL)
        move([email.pk], CANCEL)
        assert len(log()) == 1

    def test_no_address_is_told(self, real_smtp, log):
        email = make_email(to="ann@example.com", subject="Secret")
        chain.run([email.pk])
        assert log()
        for record in log():
            assert "ann" not in str(vars(record))
            assert "Secret" not in str(vars(record))


def test_the_status_is_text_for_whoever_writes_json(log):
    logs.moved("sent", Status.SENT, [], "")
    assert type(log()[0].status) is str
