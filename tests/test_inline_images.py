"""Images inside mail: found, kept within bounds, and related to the HTML that shows them."""

import logging
import re
import threading
from base64 import b64encode
from contextlib import ExitStack
from email.message import EmailMessage as StandardMessage
from io import BytesIO, StringIO
from pathlib import Path

import django
import pytest
from anymail.utils import Attachment as AnymailAttachment
from django.contrib.auth.models import User
from django.core.exceptions import SuspiciousFileOperation
from django.core.files.base import ContentFile
from django.core.files.images import ImageFile
from django.core.files.storage import default_storage
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.mail import EmailMessage, EmailMultiAlternatives
from django.core.mail.backends import smtp
from django.db import connection, models
from django.db.models.fields.files import FieldFile
from django.shortcuts import render as render_page
from django.template import Context, Engine, engines
from django.template.loader import get_template
from django.test.utils import CaptureQueriesContext
from django.utils.functional import lazystr

from celery_mailer import chain
from celery_mailer.attaching import FOLDER, Image, enclose_images
from celery_mailer.backends import EmailBackend
from celery_mailer.deliver.message import build
from celery_mailer.models import Content, Email, EmailTemplate, Enclosure, Message
from celery_mailer.models.attachment import enclosures_of
from celery_mailer.render.backend import EmailTemplates
from celery_mailer.render.images import NotAnImage, TooLarge, collecting, keep, read
from celery_mailer.render.stage import render_emails
from tests.factories import make_email, make_emails, stored

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 3
JPEG = b"\xff\xd8\xff\xe0" + bytes(range(256))
GIF = b"GIF89a" + bytes(range(256))
WEBP = b"RIFF\x24\x00\x00\x00WEBPVP8 " + bytes(range(256))
SVG = b'<?xml version="1.0"?>\n<!-- drawn -->\n<svg xmlns="http://www.w3.org/2000/svg"/>'
SHOW = "{% load celery_mailer %}<p>Hello</p><img src=\"{% inline_image 'logo.png' %}\">"

CID = re.compile(r"cid:([0-9a-f]{32}@celery-mailer)")

database = pytest.mark.django_db(transaction=True)


@pytest.fixture
def media(media):
    """MEDIA_ROOT, with an image in it."""
    media.mkdir()
    (media / "logo.png").write_bytes(PNG)
    return media


@pytest.fixture
def static(settings, tmp_path):
    """A folder of static files, with an image in it."""
    folder = tmp_path / "static"
    (folder / "img").mkdir(parents=True)
    (folder / "logo.png").write_bytes(PNG)
    (folder / "img" / "a.gif").write_bytes(GIF)
    settings.STATIC_URL = "/static/"
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "django.contrib.staticfiles"]
    settings.STATICFILES_DIRS = [folder]
    return folder


def image(data=PNG, name="logo.png"):
    return ContentFile(data, name=name)


def shown(message: StandardMessage) -> list[str]:
    """What the HTML of ``message`` shows, by Content-ID."""
    return CID.findall(message.get_body(("html",)).get_content())


def related(message: StandardMessage) -> StandardMessage:
    (part,) = [part for part in message.walk() if part.get_content_type() == "multipart/related"]
    return part


def tree(part: StandardMessage) -> object:
    """The types of a message and its parts."""
    name = part.get_content_type().removeprefix("multipart/")
    return {name: [tree(p) for p in part.iter_parts()]} if part.is_multipart() else name


def sent(server, **arguments) -> StandardMessage:
    """What arrived of an email with these arguments."""
    email = make_email(**arguments)
    chain.run([email.pk])
    assert stored(email).status == "sent", [d.detail for d in email.decisions.all()]
    return server.received[-1].message


# From the template to the mail.


@database
class TestSent:
    def test_html_alone_arrives_in_one_with_its_image(self, real_smtp, static):
        message = sent(real_smtp, message="", html_message=SHOW, context={})
        # Whether or not a text is made of the HTML where none was given.
        assert tree(related(message)) == {"related": ["text/html", "image/png"]}

    def test_beside_a_text_it_is_the_html_that_has_the_image(self, real_smtp, static):
        message = sent(real_smtp, message="Hello", html_message=SHOW, context={})
        assert tree(message) == {"alternative": ["text/plain", {"related": ["text/html", "image/png"]}]}

    def test_other_attachments_stand_around_it(self, real_smtp, static):
        files = {"a.pdf": ContentFile(b"%PDF"), "b.png": ContentFile(PNG)}
        message = sent(real_smtp, message="Hello", html_message=SHOW, context={}, attachments=files)
        body = {"alternative": ["text/plain", {"related": ["text/html", "image/png"]}]}
        assert tree(message) == {"mixed": [body, "application/pdf", "image/png"]}
        assert [p.get_filename() for p in message.iter_attachments()] == ["a.pdf", "b.png"]

    def test_the_part_is_named_inline_and_the_same_to_the_byte(self, real_smtp, static):
        message = sent(real_smtp, message="Hello", html_message=SHOW, context={})
        (part,) = list(related(message).iter_attachments())
        assert [part["Content-ID"]] == [f"<{cid}>" for cid in shown(message)]
        assert (part.get_content_disposition(), part.get_filename()) == ("inline", "logo.png")
        assert part.get_payload(decode=True) == PNG

    def test_the_related_parts_say_which_of_them_is_the_page(self, real_smtp, static):
        message = sent(real_smtp, message="Hello", html_message=SHOW, context={})
        assert related(message).get_param("type") == "text/html"

    def test_headers_stand_where_they_belong(self, real_smtp, static):
        message = sent(real_smtp, subject="Grüße", message="", html_message=SHOW, context={})
        assert (message["Subject"], message["To"]) == ("Grüße", "a@example.com")
        assert all(part["Subject"] is None for part in message.iter_parts())

    def test_a_file_template_and_what_it_includes_and_extends(self, real_smtp, static):
        context = {"top": "img/a.gif", "picture": "logo.png", "name": "Ann"}
        message = sent(real_smtp, message="", template="inline/child.html", context=context)
        parts = list(related(message).iter_attachments())
        assert [p.get_content_type() for p in parts] == ["image/gif", "image/png"]
        assert [p["Content-ID"] for p in parts] == [f"<{cid}>" for cid in shown(message)]

    def test_a_database_template(self, real_smtp, static):
        EmailTemplate.objects.create(name="welcome", subject="s", content="Hello", html_content=SHOW)
        message = sent(real_smtp, subject="", message="", template="welcome")
        assert tree(message) == {"alternative": ["text/plain", {"related": ["text/html", "image/png"]}]}

    def test_an_image_field_of_a_row_in_the_context(self, real_smtp, media, monkeypatch):
        row = Product(photo="logo.png")
        monkeypatch.setattr(User, "photo", property(lambda user: row.photo), raising=False)
        html = '{% load celery_mailer %}<img src="{% inline_image user.photo %}">'
        user = User.objects.create(username="ann")
        message = sent(real_smtp, html_message=html, context={"user": user})
        assert next(iter(related(message).iter_attachments())).get_payload(decode=True) == PNG

    def test_the_same_image_twice_is_one_part(self, real_smtp, static):
        (static / "copy.png").write_bytes(PNG)
        twice = SHOW + "<img src=\"{% inline_image 'copy.png' %}\">"
        message = sent(real_smtp, html_message=twice, context={})
        assert tree(related(message)) == {"related": ["text/html", "image/png"]}
        assert len(shown(message)) == 2
        assert len(set(shown(message))) == 1

    def test_an_image_that_is_not_shown_does_not_go_out(self, real_smtp, static):
        html = "{% load celery_mailer %}{% inline_image 'logo.png' as src %}<p>Hello</p>"
        message = sent(real_smtp, message="Hello", html_message=html, context={})
        assert tree(message) == {"alternative": ["text/plain", "text/html"]}

    def test_an_image_in_the_text_does_not_go_out(self, real_smtp, static):
        assert tree(sent(real_smtp, message=SHOW, context={})) == "text/plain"

    def test_a_missing_image_is_left_out(self, real_smtp, static):
        (static / "logo.png").unlink()
        message = sent(real_smtp, message="Hello", html_message=SHOW, context={})
        assert tree(message) == {"alternative": ["text/plain", "text/html"]}
        assert '<img src="">' in message.get_body(("html",)).get_content()

    def test_an_image_that_the_queue_was_given_otherwise_stays_an_attachment(self, real_smtp, static):
        own = {"file": image(), "headers": {"Content-ID": "<own>", "Content-Disposition": "inline"}}
        message = sent(
            real_smtp, html_message='<img src="cid:own">', message="m", attachments={"own.png": own}
        )
        assert tree(message) == {"mixed": [{"alternative": ["text/plain", "text/html"]}, "image/png"]}


def built(email) -> EmailMessage:
    """The message of ``email``, once it is rendered."""
    render_emails([email.pk])
    row = Email.objects.select_related("content", "rendered").get(pk=email.pk)
    return build(row, row.content, enclosures_of([row.pk]).get(row.pk, ()))


@database
class TestBuilt:
    def test_a_backend_that_looks_for_attachments_finds_the_image_behind_them(self, static):
        files = {"a.pdf": ContentFile(b"%PDF")}
        message = built(make_email(html_message=SHOW, context={}, attachments=files))
        ordinary, inline = map(AnymailAttachment, message.attachments)
        assert (ordinary.inline, ordinary.name) == (False, "a.pdf")
        assert (inline.inline, inline.name, inline.mimetype) == (True, "logo.png", "image/png")
        assert (f"cid:{inline.cid}" in message.alternatives[0][0], inline.content) == (True, PNG)

    def test_writing_it_twice_writes_the_same(self, static):
        message = built(make_email(html_message=SHOW, context={}))
        first, second = tree_of_written(message), tree_of_written(message)
        assert first == second == {"alternative": ["text/plain", {"related": ["text/html", "image/png"]}]}
        assert len(message.attachments) == 1

    def test_a_message_without_images_is_djangos_own(self, static):
        assert type(built(make_email(html_message="<p>{{ n }}</p>", context={}))) is EmailMultiAlternatives


def tree_of_written(message):
    from email import message_from_bytes
    from email.policy import default

    return tree(message_from_bytes(message.message().as_bytes(), policy=default))


# Kept with the email.


@database
class TestKept:
    def test_what_is_rendered_twice_has_its_image_once(self, static):
        email = make_email(html_message=SHOW, context={})
        render_emails([email.pk])
        Message.objects.all().delete()
        render_emails([email.pk])
        assert [e.content_id for e in Enclosure.objects.all()] == CID.findall(stored(email).rendered.html)

    def test_of_two_renderings_only_the_images_of_the_one_that_counts_go_out(self, real_smtp, static):
        email = make_email(html_message=SHOW, context={})
        enclose_images({email.pk: [Image("b.gif", "image/gif", GIF)]})
        chain.run([email.pk])
        (part,) = related(real_smtp.received[0].message).iter_attachments()
        assert part.get_content_type() == "image/png"

    def test_they_stand_behind_the_attachments(self, static):
        files = {"a": ContentFile(b"1"), "b": ContentFile(b"2")}
        email = make_email(html_message=SHOW, context={}, attachments=files)
        render_emails([email.pk])
        (enclosures,) = enclosures_of([email.pk]).values()
        assert [(e.name, e.position) for e in enclosures] == [("a", 0), ("b", 1), ("logo.png", 2)]

    def test_their_bytes_are_stored_once_for_a_slice(self, static, media):
        ids = [e.pk for e in make_emails(20, html_message=SHOW, context={})]
        render_emails(ids)
        assert len({e.attachment_id for e in Enclosure.objects.all()}) == 1
        assert len([p for p in (media / FOLDER).rglob("*") if p.is_file()]) == 1

    def test_deliver_knows_that_there_is_something_to_look_for(self, static):
        email, other = make_email(html_message=SHOW, context={}), make_email(html_message="-", context={})
        render_emails([email.pk, other.pk])
        assert Content.objects.get(pk=email.pk).has_attachments
        assert not Content.objects.get(pk=other.pk).has_attachments

    def test_without_images_there_is_no_query(self, django_assert_num_queries):
        email = make_email(html_message="-", context={})
        with collecting() as images, django_assert_num_queries(0):
            keep({email.pk: images})

    @pytest.mark.parametrize("number", [1, 40])
    def test_a_slice_costs_the_same_queries_however_many_emails_it_has(self, number, media):
        images = []
        with collecting() as found:
            read_into(found, media / "logo.png")
        images = {email.pk: found for email in make_emails(number, context={})}
        with CaptureQueriesContext(connection) as queries:
            keep(images)
        statements = [q["sql"] for q in queries if not q["sql"].startswith(("BEGIN", "COMMIT"))]
        assert len(statements) == 6, statements

    def test_the_emails_of_a_slice_share_an_image_in_memory(self, media):
        first, second = read(media / "logo.png"), read(media / "logo.png")
        assert first is second

    def test_the_same_bytes_under_another_name_keep_that_name(self):
        first, second = read(image(name="ann.png")), read(image(name="bob.png"))
        assert (first.name, second.name, first.cid) == ("ann.png", "bob.png", second.cid)


def read_into(images, path):
    images.add(read(path))


# Finding and reading.


class Product(models.Model):
    """A row with an image; its table is never made."""

    photo = models.ImageField()

    class Meta:
        app_label = "inline_images_of_tests"
        managed = False

    def __str__(self):
        return self.photo.name


class TestRead:
    def test_a_static_file(self, static):
        assert read("img/a.gif").data == GIF

    def test_a_lazy_path(self, static):
        assert read(lazystr("img/a.gif")).data == GIF

    def test_an_absolute_path(self, media):
        assert read(str(media / "logo.png")).name == "logo.png"

    def test_a_path_object(self, media):
        assert read(media / "logo.png").data == PNG

    def test_an_image_field_and_the_field_is_as_closed_as_before(self, media):
        photo = Product(photo="logo.png").photo
        assert isinstance(photo, FieldFile)
        assert (read(photo).data, read(photo).name, photo.closed) == (PNG, "logo.png", True)

    def test_an_open_file_and_it_stays_open(self, media):
        with (media / "logo.png").open("rb") as file:
            file.read(10)
            assert [read(file).data, read(file).data] == [PNG, PNG]
            assert not file.closed

    @pytest.mark.parametrize(
        ("make", "name"),
        [
            (lambda path: ContentFile(PNG, name="c.png"), "c.png"),
            (lambda path: ContentFile(PNG), "image.png"),
            (lambda path: ImageFile(path.open("rb"), name="folder/i.png"), "i.png"),
            (lambda path: SimpleUploadedFile("u.png", PNG), "u.png"),
            (lambda path: BytesIO(PNG), "image.png"),
            (lambda path: default_storage.open("logo.png"), "logo.png"),
        ],
        ids=["content", "content without a name", "image", "upload", "bytesio", "of a storage"],
    )
    def test_a_file(self, media, make, name):
        with ExitStack() as stack:
            file = make(media / "logo.png")
            stack.callback(file.close)
            found = read(file)
        assert (found.name, found.mimetype, found.data) == (name, "image/png", PNG)

    def test_a_file_of_characters(self):
        assert read(StringIO(SVG.decode())).mimetype == "image/svg+xml"

    def test_an_image_field_in_a_storage_without_paths(self, settings):
        settings.STORAGES = {**settings.STORAGES, "default": IN_MEMORY}
        default_storage.save("far.png", ContentFile(PNG))
        assert read(Product(photo="far.png").photo).data == PNG

    @pytest.mark.parametrize(
        ("name", "data", "mimetype"),
        [
            ("", PNG, "image/png"),
            ("", JPEG, "image/jpeg"),
            ("", GIF, "image/gif"),
            ("", WEBP, "image/webp"),
            ("", SVG, "image/svg+xml"),
            ("", b"\xef\xbb\xbf\n<svg>", "image/svg+xml"),
            ("a.bmp", b"BM", "image/bmp"),
            ("a.tiff", b"II*", "image/tiff"),
            ("tmp1", PNG, "image/png"),
            ("a.png", JPEG, "image/jpeg"),
        ],
    )
    def test_what_it_is_is_told_by_its_bytes_or_else_its_name(self, name, data, mimetype):
        assert read(image(data, name)).mimetype == mimetype

    @pytest.mark.parametrize(
        "given",
        [
            image(b"%PDF", "a.pdf"),
            image(b"text", "a.txt"),
            image(b"<html><svg></svg></html>", "a.html"),
            image(b"\x1f\x8b", "a.svgz"),
            image(b"", ""),
            BytesIO(b"?"),
            None,
            42,
            PNG,
        ],
    )
    def test_what_is_no_image_is_refused(self, given):
        with pytest.raises(NotAnImage):
            read(given)

    def test_many_comments_take_no_longer_than_one_to_look_at(self):
        with pytest.raises(NotAnImage):  # or it would take years
            read(image(b"<!---->" * 600, ""))

    def test_a_large_image_is_refused_before_it_is_read_whole(self, settings):
        settings.CELERY_MAILER = {"ATTACHMENTS": {"MAX_SIZE": 1000}}
        endless = Endless()
        with pytest.raises(TooLarge, match="1,000"):
            read(endless)
        assert endless.asked == 1001

    def test_an_image_as_large_as_may_be_is_taken(self, settings):
        settings.CELERY_MAILER = {"ATTACHMENTS": {"MAX_SIZE": len(PNG)}}
        assert read(image()).data == PNG

    def test_a_name_is_fit_for_a_header_and_a_column(self):
        assert read(image(name="a\r\nBcc: b\udcff.png")).name == "aBcc: b.png"
        assert len(read(image(name="x" * 300 + ".png")).name) == 255


IN_MEMORY = {"BACKEND": "django.core.files.storage.InMemoryStorage"}


class Endless:
    """A file without an end."""

    name = "endless.png"

    def read(self, size):
        self.asked = size
        return b"x" * size


class TestBounds:
    def test_a_path_outside_is_refused_whether_it_is_there_or_not(self, media, tmp_path):
        (tmp_path / "secret.png").write_bytes(PNG)
        for name in ("secret.png", "none.png"):
            with pytest.raises(SuspiciousFileOperation, match="IMAGE_ROOTS"):
                read(tmp_path / name)

    def test_a_folder_whose_name_only_begins_like_a_root_is_outside(self, media, tmp_path):
        (tmp_path / "media2").mkdir()
        with pytest.raises(SuspiciousFileOperation):
            read(tmp_path / "media2" / "a.png")

    @pytest.mark.parametrize(
        "path", ["{media}/../secret.png", "{media}/x/../logo.png", "../secret.png", "a/../b.png"]
    )
    def test_a_path_with_dots_is_refused(self, media, static, path):
        with pytest.raises(SuspiciousFileOperation):
            read(path.format(media=media))

    def test_a_link_that_leads_outside_is_refused(self, media, static, tmp_path):
        (tmp_path / "secret.png").write_bytes(PNG)
        for folder in (media, static):
            (folder / "link.png").symlink_to(tmp_path / "secret.png")
        for path in (media / "link.png", "link.png"):
            with pytest.raises(SuspiciousFileOperation):
                read(path)

    def test_a_link_within_is_followed(self, media):
        (media / "link.png").symlink_to(media / "logo.png")
        assert read(media / "link.png").data == PNG

    def test_a_root_may_be_a_link_itself(self, settings, media, tmp_path):
        (tmp_path / "current").symlink_to(media)
        settings.MEDIA_ROOT = tmp_path / "current"
        assert read(tmp_path / "current" / "logo.png").data == PNG

    def test_more_roots_can_be_named(self, settings, tmp_path):
        (tmp_path / "brand").mkdir()
        (tmp_path / "brand" / "logo.png").write_bytes(PNG)
        settings.CELERY_MAILER = {"ATTACHMENTS": {"IMAGE_ROOTS": [str(tmp_path / "brand")]}}
        assert read(tmp_path / "brand" / "logo.png").data == PNG

    def test_the_folders_of_static_files_are_roots(self, static):
        assert read(static / "logo.png").data == PNG

    def test_without_media_root_the_working_directory_is_no_root(self, settings, tmp_path, monkeypatch):
        (tmp_path / "logo.png").write_bytes(PNG)
        monkeypatch.chdir(tmp_path)
        settings.MEDIA_ROOT = ""
        with pytest.raises(SuspiciousFileOperation):
            read(tmp_path / "logo.png")

    @pytest.mark.parametrize("path", ["", ".", "img", "none.png"])
    def test_what_is_no_file_does_not_exist(self, static, path):
        with pytest.raises(FileNotFoundError):
            read(path)

    def test_a_folder_does_not_exist(self, media):
        with pytest.raises(FileNotFoundError):
            read(media)


class TestCollectedStaticFiles:
    def collected(self, settings, tmp_path, backend, name="logo.png"):
        settings.STATIC_URL = "/static/"
        settings.STATIC_ROOT = tmp_path / "collected"
        settings.STORAGES = {**settings.STORAGES, "staticfiles": {"BACKEND": backend}}
        (tmp_path / "collected").mkdir()
        (tmp_path / "collected" / name).write_bytes(PNG)

    def test_they_are_found_without_the_app(self, settings, tmp_path):
        self.collected(settings, tmp_path, "django.contrib.staticfiles.storage.StaticFilesStorage")
        assert read("logo.png").data == PNG

    def test_they_are_found_by_the_name_that_the_manifest_has(self, settings, tmp_path):
        manifest = '{"paths": {"logo.png": "logo.abc.png"}, "version": "1.1", "hash": ""}'
        (tmp_path / "collected").mkdir()
        (tmp_path / "collected" / "staticfiles.json").write_text(manifest)
        (tmp_path / "collected").rename(tmp_path / "before")
        backend = "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"
        self.collected(settings, tmp_path, backend, "logo.abc.png")
        (tmp_path / "before" / "staticfiles.json").rename(tmp_path / "collected" / "staticfiles.json")
        assert read("logo.png").data == PNG
        with pytest.raises(FileNotFoundError):
            read("other.png")

    def test_they_are_found_in_a_storage_without_paths(self, settings):
        settings.STORAGES = {**settings.STORAGES, "staticfiles": IN_MEMORY}
        from django.core.files.storage import storages

        storages["staticfiles"].save("logo.png", ContentFile(PNG))
        assert read("logo.png").data == PNG

    def test_nothing_is_found_where_there_are_none(self, settings):
        settings.STATIC_URL = "/static/"
        with pytest.raises(FileNotFoundError, match=r"logo\.png"):
            read("logo.png")


# The tag.


def rendered(source=SHOW, *, debug=False, **context):
    engine = Engine(debug=debug, libraries={"celery_mailer": "celery_mailer.templatetags.celery_mailer"})
    return engine.from_string(source).render(Context(context))


FILE = "{% load celery_mailer %}{% inline_image file %}"


class TestTag:
    def test_the_url_is_that_of_a_content_id(self):
        with collecting() as images:
            url = rendered(FILE, file=image())
        (found,) = images.images
        assert url == f"cid:{found.cid}"
        # A URL's own letters and one @, as in a Message-ID: nothing to escape, RFC 2392 and RFC 2045.
        assert re.fullmatch(r"cid:[a-z0-9]+@[a-z-]+", url)

    def test_the_same_image_has_the_same_url_whatever_its_name(self):
        with collecting():
            assert rendered(FILE, file=image()) == rendered(FILE, file=image(name="b.png"))
            assert rendered(FILE, file=image()) != rendered(FILE, file=image(GIF))

    def test_each_image_is_collected_once_in_order(self):
        with collecting() as images:
            for data in (GIF, PNG, GIF):
                rendered(FILE, file=image(data))
        assert [i.data for i in images.images] == [GIF, PNG]

    def test_collecting_may_be_nested(self):
        with collecting() as outer:
            rendered(FILE, file=image(GIF))
            with collecting() as inner:
                rendered(FILE, file=image(PNG))
            rendered(FILE, file=image(JPEG))
        assert [i.data for i in inner.images] == [PNG]
        assert [i.data for i in outer.images] == [GIF, JPEG]

    def test_a_fault_ends_collecting(self):
        with collecting() as outer:
            with pytest.raises(ZeroDivisionError), collecting():
                raise ZeroDivisionError
            rendered(FILE, file=image())
        assert len(outer.images) == 1

    def test_threads_do_not_see_each_others_images(self):
        meet, found = threading.Barrier(2, timeout=20), {}

        def work(data):
            with collecting() as images:
                meet.wait()
                rendered(FILE, file=image(data))
                meet.wait()
                found[data] = [i.data for i in images.images]

        threads = [threading.Thread(target=work, args=[data]) for data in (PNG, GIF)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == {PNG: [PNG], GIF: [GIF]}

    @pytest.mark.parametrize(
        ("file", "fault"),
        [
            ("none.png", FileNotFoundError),
            ("/etc/hostname", SuspiciousFileOperation),
            (image(b"?", ""), NotAnImage),
        ],
    )
    def test_with_debug_a_fault_is_raised(self, static, file, fault):
        with collecting(), pytest.raises(fault):
            rendered(FILE, debug=True, file=file)

    def test_without_debug_a_fault_is_a_gap_and_a_warning(self, static, caplog):
        with collecting() as images:
            assert rendered(FILE, file="none.png") == ""
        assert images.images == []
        assert [(r.levelno, r.getMessage()) for r in caplog.records] == [
            (logging.WARNING, "the image 'none.png' is left out: FileNotFoundError")
        ]

    def test_a_variable_that_does_not_exist_is_a_gap(self, static):
        with collecting():
            assert rendered(FILE) == ""

    def test_the_log_has_neither_the_name_of_an_upload_nor_the_words_of_a_storage(self, monkeypatch, caplog):
        def fail(self, *args):
            raise RuntimeError("https://key:secret@storage")

        monkeypatch.setattr("django.core.files.storage.FileSystemStorage._open", fail)
        with collecting():
            rendered(FILE, file=Product(photo="ann@example.com.png").photo)
            rendered(FILE, file=image(b"?", "ann@example.com"))
        assert caplog.messages == [
            "the image of inline_images_of_tests.Product.photo is left out: RuntimeError",
            "the image in a ContentFile is left out: NotAnImage",
        ]

    def test_an_image_field_without_a_file_is_a_gap(self):
        with collecting():
            assert rendered(FILE, file=Product().photo) == ""

    def test_on_a_page_the_image_is_part_of_the_page(self, static, rf, caplog):
        page = render_page(rf.get("/"), "inline/page.html", {"picture": "logo.png"}).content.decode()
        assert f'<img src="data:image/png;base64,{b64encode(PNG).decode()}">' in page
        assert caplog.records == []

    def test_outside_of_all_it_is_too_but_the_log_says_that_mail_needs_more(self, static, caplog):
        assert "data:image/png;base64," in rendered()
        assert "EmailTemplates" in caplog.text


# Mail that is put together by hand, as django-post_office's documentation shows it.


def template_settings(settings, **options):
    backend = {"NAME": "post_office", "BACKEND": "celery_mailer.render.backend.EmailTemplates"}
    return [
        *settings.TEMPLATES,
        {**backend, "APP_DIRS": True, "DIRS": settings.TEMPLATES[0]["DIRS"], "OPTIONS": options},
    ]


@pytest.fixture
def post_office(settings):
    processors = ["django.template.context_processors.debug"]
    settings.TEMPLATES = template_settings(settings, context_processors=processors)


def djangos_backend(server):
    options = {"alias": "direct"} if django.VERSION >= (6, 1) else {}
    return smtp.EmailBackend(host="127.0.0.1", port=server.port, **options)


def our_backend(server):
    return EmailBackend(alias="queue", using="default") if django.VERSION >= (6, 1) else EmailBackend()


def by_hand(backend, message, server):
    """What arrives of ``message`` by ``backend``."""
    assert backend(server).send_messages([message]) == 1
    if backend is our_backend:
        chain.run([Email.objects.get().pk])
    return server.received[-1].message


CONTEXT = {"name": "Ann", "picture": "logo.png"}
MODERN = django.VERSION >= (6, 0)


@database
@pytest.mark.usefixtures("post_office", "static")
class TestByHand:
    def both(self):
        message = EmailMultiAlternatives("Hello", "Plain text body", "a@example.com", ["b@example.com"])
        template = get_template("inline/page.html", using="post_office")
        html = template.render(CONTEXT)
        message.attach_alternative(html, "text/html")
        template.attach_related(message)
        return message

    def html_only(self):
        template = get_template("inline/page.html", using="post_office")
        html = template.render(CONTEXT)
        message = EmailMultiAlternatives("Hello", html, "a@example.com", ["b@example.com"])
        message.content_subtype = "html"
        template.attach_related(message)
        return message

    def test_both_through_the_queue_are_related(self, real_smtp):
        message = by_hand(our_backend, self.both(), real_smtp)
        assert tree(message) == {"alternative": ["text/plain", {"related": ["text/html", "image/png"]}]}
        (part,) = related(message).iter_attachments()
        assert (part["Content-ID"], part.get_payload(decode=True)) == (f"<{shown(message)[0]}>", PNG)

    def test_html_through_the_queue_is_related(self, real_smtp):
        message = by_hand(our_backend, self.html_only(), real_smtp)
        assert tree(message) == {"related": ["text/html", "image/png"]}

    def test_other_attachments_through_the_queue_stand_around(self, real_smtp):
        message = self.both()
        message.attach("a.pdf", b"%PDF", "application/pdf")
        body = {"alternative": ["text/plain", {"related": ["text/html", "image/png"]}]}
        assert tree(by_hand(our_backend, message, real_smtp)) == {"mixed": [body, "application/pdf"]}

    def test_both_by_django_itself_can_be_shown(self, real_smtp):
        message = by_hand(djangos_backend, self.both(), real_smtp)
        kind = "mixed" if MODERN else "related"
        assert tree(message) == {kind: [{"alternative": ["text/plain", "text/html"]}, "image/png"]}
        *_, part = message.iter_parts()
        assert (part["Content-ID"], part.get_content_disposition()) == (f"<{shown(message)[0]}>", "inline")
        assert part.get_payload(decode=True) == PNG

    def test_html_by_django_itself_can_be_shown(self, real_smtp):
        message = by_hand(djangos_backend, self.html_only(), real_smtp)
        assert tree(message) == {"mixed" if MODERN else "related": ["text/html", "image/png"]}

    def test_without_images_a_message_stays_as_it_is(self):
        template = engines["post_office"].from_string("<p>Hello</p>")
        template.render({})
        message = EmailMultiAlternatives("Hello", "b", "a@example.com", ["b@example.com"])
        template.attach_related(message)
        assert message.attachments == []
        assert "mixed_subtype" not in vars(message)

    def test_only_the_images_of_the_last_rendering_are_attached(self):
        template = get_template("inline/page.html", using="post_office")
        template.render(CONTEXT)
        template.render({"picture": "img/a.gif"})
        assert [i.data for i in template.images] == [GIF]

    def test_two_users_of_a_template_do_not_see_each_others_images(self):
        first, second = (get_template("inline/page.html", using="post_office") for _ in range(2))
        first.render(CONTEXT)
        second.render({"picture": "img/a.gif"})
        assert [[i.data for i in t.images] for t in (first, second)] == [[PNG], [GIF]]

    def test_a_fragment_hands_its_images_to_the_email_that_it_becomes_part_of(self):
        with collecting() as images:
            get_template("inline/page.html", using="post_office").render(CONTEXT)
        assert len(images.images) == 1


# The name of then.


class TestAlias:
    SOURCE = "{% load post_office %}{% inline_image file %}"

    def engine(self):
        return EmailTemplates(
            {"NAME": "e", "DIRS": [Path(__file__).parent / "templates"], "APP_DIRS": True, "OPTIONS": {}}
        )

    def test_load_post_office_works_when_the_setting_is_on(self, settings):
        settings.CELERY_MAILER = {"POST_OFFICE_TAGS": True}
        template = self.engine().get_template("inline/post_office.html")
        assert CID.search(template.render({"picture": image()}))

    def test_load_post_office_is_unknown_when_it_is_off(self):
        with pytest.raises(Exception, match="post_office' is not a registered tag library"):
            self.engine().from_string(self.SOURCE)

    @database
    def test_it_works_in_emails_of_the_ordinary_engine(self, settings, static):
        settings.CELERY_MAILER = {"POST_OFFICE_TAGS": True}
        email = make_email(template="inline/post_office.html", context={"picture": "logo.png"})
        render_emails([email.pk])
        assert CID.search(stored(email).rendered.html)

    def test_settings_with_faults_are_left_to_the_checks(self, settings):
        settings.CELERY_MAILER = {"NO_SUCH_KEY": True}
        assert self.engine().from_string("x").render() == "x"
