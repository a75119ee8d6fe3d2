"""Attachments: given in many forms, stored once, complete before anybody can see the email."""

from datetime import timedelta
from email.mime.image import MIMEImage
from io import BytesIO, StringIO

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import connection, transaction
from django.utils import timezone

import celery_mailer
from celery_mailer import chain, mail, periodic
from celery_mailer.attaching import FOLDER, read_files
from celery_mailer.exceptions import InvalidEmail
from celery_mailer.models import Attachment, Attempt, Email, Enclosure
from celery_mailer.models.transitions import CANCEL, move
from celery_mailer.tasks import send_email
from tests.factories import make_email, stored

pytestmark = pytest.mark.django_db(transaction=True)

ALL_BYTES = bytes(range(256))


def files_in(media):
    return [path for path in media.rglob("*") if path.is_file()]


def sent(server, **arguments):
    """The parts that arrived of an email with these arguments."""
    email = make_email(**arguments)
    chain.run([email.pk])
    assert stored(email).status == "sent"
    return list(server.wait_for(1)[0].message.iter_attachments())


@pytest.mark.parametrize(
    ("given", "name", "mimetype"),
    [
        (lambda path: {"a.pdf": ContentFile(b"data")}, "a.pdf", "application/pdf"),
        (lambda path: {"a.bin": BytesIO(b"data")}, "a.bin", "application/octet-stream"),
        (lambda path: {"a.txt": StringIO("data")}, "a.txt", "text/plain"),
        (lambda path: {"other.doc": str(path)}, "other.doc", "application/msword"),
        (lambda path: {"a": {"file": ContentFile(b"data"), "mimetype": "image/x-own"}}, "a", "image/x-own"),
        (lambda path: [path], "there.csv", "text/csv"),
        (lambda path: [ContentFile(b"data", name="c.png")], "c.png", "image/png"),
        (lambda path: [("a.pdf", b"data", None)], "a.pdf", "application/pdf"),
        (lambda path: [("a.txt", "data", "text/plain")], "a.txt", "text/plain"),
        (lambda path: [{"file": str(path), "mimetype": "text/x-own"}], "there.csv", "text/x-own"),
    ],
    ids=["content", "bytesio", "stringio", "path", "dict", "listed path", "django file", "tuple",
         "text tuple", "listed dict"],
)  # fmt: skip
def test_an_attachment_can_be_given_as(real_smtp, tmp_path, given, name, mimetype):
    path = tmp_path / "there.csv"
    path.write_bytes(b"data")
    (part,) = sent(real_smtp, attachments=given(path))
    assert (part.get_filename(), part.get_content_type()) == (name, mimetype)
    assert part.get_payload(decode=True).rstrip() == b"data"


def test_an_open_file_can_be_given_and_stays_open(real_smtp, tmp_path):
    (tmp_path / "a.csv").write_bytes(b"data")
    with (tmp_path / "a.csv").open("rb") as file:
        (part,) = sent(real_smtp, attachments=[file])
        assert not file.closed
    assert (part.get_filename(), part.get_content().strip()) == ("a.csv", "data")


def test_every_byte_arrives(real_smtp):
    (part,) = sent(real_smtp, attachments={"a.bin": ContentFile(ALL_BYTES * 100)})
    assert part.get_payload(decode=True) == ALL_BYTES * 100


def test_two_attachments_with_one_name_both_arrive_in_their_order(real_smtp):
    parts = sent(real_smtp, attachments=[("a.bin", b"1", None), ("a.bin", b"2", None)])
    assert [p.get_payload(decode=True) for p in parts] == [b"1", b"2"]


def test_headers_of_an_attachment_arrive(real_smtp):
    image = {"file": ContentFile(b"data"), "mimetype": "image/png", "headers": {"Content-ID": "<logo>"}}
    inline = {**image, "headers": {"Content-ID": "<logo>", "Content-Disposition": "inline"}}
    parts = sent(real_smtp, attachments={"a.png": image, "b.png": inline})
    assert [p["Content-ID"] for p in parts] == ["<logo>", "<logo>"]
    assert [p.get_content_disposition() for p in parts] == ["attachment", "inline"]
    assert parts[0].get_payload(decode=True) == b"data"


def test_mail_send_takes_them(real_smtp):
    email = mail.send("a@example.com", subject="s", message="m", attachments={"a.txt": ContentFile(b"x")})
    assert [e.name for e in email.enclosures.all()] == ["a.txt"]


def test_send_many_takes_them(real_smtp):
    shared = ContentFile(b"shared")
    mail.send_many({"recipients": "a@example.com", "attachments": {"a.txt": shared}} for _ in range(3))
    assert Enclosure.objects.count() == 3
    assert Attachment.objects.count() == 1


def test_a_direct_call_sends_them(real_smtp):
    send_email("s", "m", None, ["a@example.com"], attachments=[("a.txt", "text", "text/plain")])
    (part,) = real_smtp.received[0].message.iter_attachments()
    assert part.get_content().strip() == "text"


def test_the_same_content_is_stored_once(media):
    for i in range(12):
        make_email(attachments={f"{i}.bin": ContentFile(ALL_BYTES)})
    assert Attachment.objects.count() == 1
    assert len(files_in(media)) == 1
    assert Enclosure.objects.count() == 12


def test_another_storage_can_be_named(settings, tmp_path, media):
    other = {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {"location": tmp_path / "o"},
    }
    settings.STORAGES = {**settings.STORAGES, "mail": other}
    settings.CELERY_MAILER = {"ATTACHMENTS": {"STORAGE": "mail"}}
    make_email(attachments={"a": ContentFile(b"x")})
    assert len(files_in(tmp_path / "o")) == 1
    assert files_in(media) == []


@pytest.mark.parametrize(
    ("given", "field", "fault"),
    [
        ({"a": "/no/such/file"}, "attachments['a']", "cannot be read"),
        ({"a": object()}, "attachments['a']", "is a object, not a file"),
        ([("a", b"x" * 11, None)], "attachments[0]", "has 11 bytes"),
        ("/a/path", "attachments", "is a str, not a list"),
        ([("a\nb", b"x", None)], "attachments[0]", "control characters"),
        ([("a", b"x", "no type")], "attachments[0]", "mimetype"),
        ({"a": {"file": b"x", "headers": {"X": "a\nBcc: b"}}}, "attachments['a']['headers']", "control"),
    ],
)
def test_what_cannot_be_attached_is_refused_at_the_door(settings, given, field, fault):
    settings.CELERY_MAILER = {"ATTACHMENTS": {"MAX_SIZE": 10}}
    with pytest.raises(InvalidEmail, match=fault) as error:
        make_email(attachments=given)
    assert error.value.field == field
    assert not Email.objects.exists()


def test_no_email_is_left_behind_when_its_files_cannot_be_stored(monkeypatch):
    def full(self, *args):
        raise OSError("no space left on device")

    monkeypatch.setattr("django.core.files.storage.FileSystemStorage._save", full)
    with pytest.raises(OSError, match="no space"):
        make_email(attachments={"a": ContentFile(b"x")})
    assert not Email.objects.exists()


def test_half_a_file_that_a_killed_process_left_is_written_anew(real_smtp, media):
    (file,) = read_files("attachments", {"a.bin": ContentFile(ALL_BYTES)})
    default_storage.save(f"{FOLDER}/{file.digest[:2]}/{file.digest}", ContentFile(ALL_BYTES[:10]))
    (part,) = sent(real_smtp, attachments={"a.bin": ContentFile(ALL_BYTES)})
    assert part.get_payload(decode=True) == ALL_BYTES


def test_a_file_that_is_gone_fails_the_email(real_smtp, media):
    email = make_email(attachments={"a": ContentFile(b"once there")})
    for path in files_in(media):
        path.unlink()
    chain.run([email.pk])
    assert (stored(email).status, stored(email).reason) == ("failed", "message")
    assert real_smtp.received == []


def test_a_storage_that_does_not_answer_defers_the_email(real_smtp, monkeypatch):
    email = make_email(attachments={"a": ContentFile(b"far away")})

    def down(self, *args):
        raise ConnectionResetError("storage")

    monkeypatch.setattr("django.core.files.storage.FileSystemStorage._open", down)
    chain.run([email.pk])
    assert stored(email).status == "deferred"
    assert Attempt.objects.get().text == "ConnectionResetError: storage"


def test_attachments_belong_to_what_an_idempotency_key_stands_for():
    def ask(content):
        return make_email(idempotency_key="k", attachments={"a": ContentFile(content)})

    assert ask(b"x").pk == ask(b"x").pk
    with pytest.raises(InvalidEmail):
        ask(b"y")


def test_emails_without_attachments_cost_no_query_for_them(django_assert_num_queries):
    with transaction.atomic(), django_assert_num_queries(1 if connection.vendor == "postgresql" else 2):
        make_email()


class TestCleanup:
    def unused(self, ago):
        email = make_email(attachments={"a": ContentFile(b"x")})
        email.delete()
        Attachment.objects.update(used_at=timezone.now() - ago)

    def test_what_no_email_has_is_deleted_after_a_day(self, media):
        self.unused(timedelta(days=2))
        assert periodic.cleanup()["files_deleted"] == 1
        assert files_in(media) == []
        assert not Attachment.objects.exists()

    def test_what_was_given_to_an_email_lately_is_kept(self, media):
        self.unused(timedelta(hours=23))
        assert periodic.cleanup()["files_deleted"] == 0
        assert len(files_in(media)) == 1

    def test_what_an_email_has_is_kept(self, media):
        make_email(attachments={"a": ContentFile(b"x")})
        Attachment.objects.update(used_at=timezone.now() - timedelta(days=400))
        assert periodic.cleanup()["files_deleted"] == 0

    def test_giving_it_again_renews_it(self):
        make_email(attachments={"a": ContentFile(b"x")})
        Attachment.objects.update(used_at=timezone.now() - timedelta(days=400))
        make_email(attachments={"b": ContentFile(b"x")})
        assert Attachment.objects.get().used_at > timezone.now() - timedelta(minutes=1)

    def test_a_file_that_is_missing_already_does_not_disturb(self, media):
        self.unused(timedelta(days=2))
        for path in files_in(media):
            path.unlink()
        assert periodic.cleanup()["files_deleted"] == 1


def test_a_legacy_part_with_a_content_id_arrives_inline(real_smtp):
    image = MIMEImage(b"data", "png")
    image["Content-ID"] = "<logo>"
    image["Content-Disposition"] = "inline"
    email = make_email(attachments=[image])
    from celery_mailer.deliver.message import build
    from celery_mailer.models.attachment import enclosures_of

    (part,) = build(email, email.content, enclosures_of([email.pk])[email.pk]).attachments
    assert (part["Content-ID"], part.get_content_disposition()) == ("<logo>", "inline")
    assert part.get_payload(decode=True) == b"data"


def test_the_files_of_a_sensitive_email_are_let_go_when_it_is_final():
    kept, secret = (make_email(attachments={"a.txt": ContentFile(b"x")}, sensitive=s) for s in (False, True))
    move([kept.pk, secret.pk], CANCEL)
    assert [enclosure.email_id for enclosure in Enclosure.objects.all()] == [kept.pk]


def test_the_folder_of_attachments_is_not_taken_for_the_package():
    """Without MEDIA_ROOT it is made in the current directory, which may be the first that Python searches."""
    assert celery_mailer.__name__ != FOLDER
