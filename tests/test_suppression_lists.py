"""Suppressions go out and come in as CSV."""

import io
import json
import sys
from datetime import UTC, datetime, timedelta

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from celery_mailer.models import Suppression
from celery_mailer.models.suppression import Entry, digest_of, forget_address, release, suppress, suppressed
from celery_mailer.values import SuppressionReason

pytestmark = pytest.mark.django_db

NEXT_YEAR = datetime(2099, 1, 1, tzinfo=UTC)
HARD, MANUAL = SuppressionReason.HARD_BOUNCE, SuppressionReason.MANUAL


def load(tmp_path, text):
    path = tmp_path / "in.csv"
    path.write_text(text, encoding="utf-8")
    call_command("mailer_suppressions", "import", str(path))


def rows():
    found = Suppression.objects.order_by("address", "stream")
    return list(found.values_list("address", "stream", "reason", "expires_at", "note"))


def test_what_goes_out_comes_in_unchanged(tmp_path):
    suppress([
        Entry("a@example.com", HARD, note='said "550, no"'),
        Entry("b@bücher.example", SuppressionReason.UNSUBSCRIBE, "marketing"),
        Entry("c@example.com", MANUAL, expires_at=NEXT_YEAR),
    ])  # fmt: skip
    before = rows()
    path = tmp_path / "out.csv"
    call_command("mailer_suppressions", "export", str(path))
    Suppression.objects.all().delete()
    call_command("mailer_suppressions", "import", str(path))
    assert rows() == before


def test_what_is_no_longer_in_force_stays_at_home(capsys):
    suppress([Entry("a@example.com", HARD), Entry("b@example.com", MANUAL, expires_at=timezone.now())])
    release([Suppression.objects.get(reason=HARD).pk], by="eve", note="")
    call_command("mailer_suppressions", "export")
    assert capsys.readouterr().out.split() == ["address,stream,reason,created_at,expires_at,note"]


def test_an_erased_address_travels_as_its_digest(tmp_path):
    suppress([Entry("a@example.com", HARD)])
    forget_address("a@example.com")
    path = tmp_path / "out.csv"
    call_command("mailer_suppressions", "export", str(path))
    assert f"sha256:{digest_of('a@example.com')}" in path.read_text()
    Suppression.objects.all().delete()
    call_command("mailer_suppressions", "import", str(path))
    assert suppressed(["A@example.com"]) == {"A@example.com": {"": "hard_bounce"}}


def test_a_list_of_addresses_alone_is_enough(tmp_path, capsys):
    load(tmp_path, "\ufeffaddress\nA@Example.com\nb@example.com\na@example.com\n")
    assert rows() == [(a, "", "imported", None, "") for a in ("a@example.com", "b@example.com")]
    assert capsys.readouterr().out == "2 new suppressions\n"


def test_the_counts_are_printed_as_json(tmp_path, capsys):
    suppress([Entry("a@example.com", HARD)])
    path = str(tmp_path / "out.csv")
    call_command("mailer_suppressions", "export", path, "--json")
    assert json.loads(capsys.readouterr().out) == {"exported": 1}
    Suppression.objects.all().delete()
    call_command("mailer_suppressions", "import", path, "--json")
    assert json.loads(capsys.readouterr().out) == {"imported": 1}


def test_a_list_on_standard_output_is_no_json():
    with pytest.raises(CommandError, match="--json: give a file"):
        call_command("mailer_suppressions", "export", "--json")


def test_standard_input_is_read(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("address,stream\na@example.com,marketing\n"))
    call_command("mailer_suppressions", "import")
    assert rows() == [("a@example.com", "marketing", "imported", None, "")]


def test_standard_input_is_read_as_files_are(monkeypatch):
    raw = "address,note\na@example.com,Übung\n".encode("utf-8-sig")  # as spreadsheets write it
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw), encoding="latin-1"))
    call_command("mailer_suppressions", "import")
    assert rows() == [("a@example.com", "", "imported", None, "Übung")]


def test_a_time_without_an_offset_is_utc(tmp_path):
    load(tmp_path, "address,expires_at\na@example.com,2099-01-01T00:00:00\n")
    assert Suppression.objects.get().expires_at == NEXT_YEAR


def test_a_list_in_many_steps(tmp_path, monkeypatch):
    monkeypatch.setattr("celery_mailer.tracking.lists.STEP", 2)
    load(tmp_path, "address\n" + "".join(f"u{n}@example.com\n" for n in range(5)))
    assert Suppression.objects.count() == 5


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("email\na@example.com\n", "line 1: there is no column 'address'"),
        ("", "line 1: there is no column 'address'"),
        ("address\na@example.com\nnobody\n", "line 3: the address is not a valid email address"),
        ("address,reason\na@example.com,dislike\n", "line 2: 'dislike' is not a valid SuppressionReason"),
        ("address,stream\na@example.com,other\n", "line 2: there is no stream 'other'"),
        ("address,expires_at\na@example.com,soon\n", "line 2: Invalid isoformat string: 'soon'"),
        ("address\nsha256:abc\n", "line 2: a SHA-256 has 64 digits"),
        (
            "address,reason\na@example.com,unsubscribe\n",
            "line 2: the reason 'unsubscribe' needs a stream, and the column is empty",
        ),
        (f"address,note\na@example.com,\nb@example.com,{'x' * 200_000}\n", "line 3: field larger than field"),
    ],
    ids=["column", "empty", "address", "reason", "stream", "time", "digest", "no stream", "long field"],
)
def test_a_faulty_list_is_refused_whole_with_its_line(tmp_path, text, fault):
    with pytest.raises(CommandError, match=fault):
        load(tmp_path, text)
    assert not Suppression.objects.exists()


@pytest.mark.parametrize("before", [1, 1_000], ids=["first block", "later block"])
def test_a_list_in_another_encoding_is_refused_whole_with_its_line(tmp_path, before):
    lines = ["address,note", *(f"u{n}@example.com,{'x' * 50}" for n in range(before)), "a@example.com,Müller"]
    path = tmp_path / "in.csv"
    path.write_bytes("\r\n".join(lines).encode("latin-1"))
    with pytest.raises(CommandError, match=f"line {before + 2}: is not written in utf-8"):
        call_command("mailer_suppressions", "import", str(path))
    assert not Suppression.objects.exists()


def test_column_names_in_another_encoding_are_refused(tmp_path):
    path = tmp_path / "in.csv"
    path.write_bytes("address,größe\n".encode("latin-1"))
    with pytest.raises(CommandError, match="line 1: is not written in utf-8"):
        call_command("mailer_suppressions", "import", str(path))


def test_a_file_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(CommandError):
        call_command("mailer_suppressions", "import", str(tmp_path / "nowhere.csv"))


def test_an_import_prolongs(tmp_path):
    suppress([Entry("a@example.com", SuppressionReason.IMPORTED, expires_at=timezone.now() + timedelta(1))])
    load(tmp_path, "address\na@example.com\n")
    assert Suppression.objects.get().expires_at is None
