import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from celery_mailer.engine import rendered
from celery_mailer.exceptions import InvalidEmail
from celery_mailer.models import EmailTemplate
from celery_mailer.sources import Finder, languages

pytestmark = pytest.mark.django_db


def find(template, language="", **kwargs):
    return Finder().find(template, language, **kwargs)


def words(source, **context):
    parts = (source.subject, source.text, source.html)
    return tuple(part and rendered(part.template, context, escape=False, block=part.block) for part in parts)


def make(name="hello", **fields):
    return EmailTemplate.objects.create(name=name, **{"subject": "Hello", **fields})


@pytest.mark.parametrize(
    ("language", "chain"),
    [("", []), ("de", ["de"]), ("de-at", ["de-at", "de"]), ("zh-hant-tw", ["zh-hant-tw", "zh-hant", "zh"])],
)
def test_a_language_falls_back_to_what_it_is_a_form_of(language, chain):
    assert languages(language) == chain


# Files.


@pytest.mark.parametrize("name", ["bill.html", "emails/bill.html", "bill", "emails/bill"])
def test_a_file_is_looked_for_in_the_folder_of_the_settings(name):
    assert words(find(name), name="Ada") == ("Your bill", None, "<p>Bills for Ada</p>")


def test_a_file_elsewhere_is_found_by_its_whole_name():
    assert words(find("letters/outside.html"), name="Ada") == (None, None, "<p>outside Ada</p>")


def test_the_folder_is_a_setting(settings):
    settings.CELERY_MAILER = {"TEMPLATE_DIR": "letters"}
    assert find("outside.html").html


def test_the_folder_may_have_the_name_that_it_had(settings):
    settings.EMAIL_TEMPLATE_DIR = "letters"
    assert find("outside.html").html


@pytest.mark.parametrize("language", ["de", "de-at"])
def test_a_language_has_its_own_file(language):
    source = find("bill.html", language)
    assert words(source, name="Ada") == ("Ihre Rechnung", None, "<p>Rechnung für Ada</p>")
    assert source.language == language


def test_a_language_without_a_file_of_its_own_takes_the_common_one():
    source = find("bill.html", "fr")
    assert words(source, name="Ada")[0] == "Your bill"
    assert source.language == "fr"  # for what the file translates by itself


def test_one_file_may_hold_all_parts_as_blocks():
    assert words(find("onepiece"), name="Ada") == ("One Ada", "Text Ada", "<body><b>Ada</b></body>")


def test_samples_beside_a_file_say_what_it_needs():
    source = find("declared.html")
    assert source.samples == {"order": {"number": 17}, "name": "Ada", "nickname": None}
    assert source.needed == ["order", "name"]


def test_bad_samples_are_refused(settings):
    settings.CELERY_MAILER = {"TEMPLATE_DIR": "broken"}
    with pytest.raises(InvalidEmail, match=r"template: badsamples\.samples\.json is not JSON"):
        find("badsamples.html")


@pytest.mark.parametrize("name", ["gone.html", "../settings.py", "/etc/passwd", "gone"])
def test_a_template_that_does_not_exist_is_refused(name):
    with pytest.raises(InvalidEmail, match=f"template: '{name}' does not exist"):
        find(name)


# The database.


def test_a_template_of_the_database_is_found_by_its_name():
    make(content="Hi {{ name }}", html_content="<p>{{ name }}</p>")
    assert words(find("hello"), name="Ada") == ("Hello", "Hi Ada", "<p>Ada</p>")


def test_a_language_picks_the_translation():
    make().translated_templates.create(language="id", subject="Halo")
    source = find("hello", "id")
    assert (words(source)[0], source.language) == ("Halo", "id")


def test_a_regional_language_takes_the_translation_and_keeps_its_region():
    make().translated_templates.create(language="de", subject="Hallo")
    source = find("hello", "de-at")
    assert (words(source)[0], source.language) == ("Hallo", "de-at")


def test_a_language_that_is_not_there_takes_the_default():
    make()
    source = find("hello", "fr")
    assert (words(source)[0], source.language) == ("Hello", "fr")


def test_a_default_that_says_its_language_is_rendered_in_it():
    make(language="en")
    assert find("hello", "fr").language == "en"


def test_without_fallback_a_language_that_is_not_there_is_refused(settings):
    settings.CELERY_MAILER = {"LANGUAGE_FALLBACK": False}
    make().translated_templates.create(language="de", subject="Hallo")
    for language in ("fr", "de-at"):
        with pytest.raises(InvalidEmail, match=f"language: 'hello' is not there in '{language}'"):
            find("hello", language)
    assert words(find("hello", "de"))[0] == "Hallo"


def test_without_fallback_nobody_asked_for_the_language_that_happens_to_be_active(settings):
    settings.CELERY_MAILER = {"LANGUAGE_FALLBACK": False}
    make()
    assert words(find("hello", "fr", asked=False))[0] == "Hello"


def test_a_row_gives_what_its_name_gives():
    row = make(content="Hi")
    assert find(row) == find("hello")


def test_a_row_gives_its_translation():
    row = make()
    row.translated_templates.create(language="id", subject="Halo")
    assert words(find(row, "id"))[0] == "Halo"


def test_a_translation_given_as_a_row_is_taken_as_it_is():
    row = make().translated_templates.create(language="id", subject="Halo")
    source = find(row, "en", asked=False)
    assert (words(source)[0], source.language) == ("Halo", "id")


def test_a_row_that_is_not_saved_is_refused():
    with pytest.raises(InvalidEmail, match="template: is not saved"):
        find(EmailTemplate(name="new"))


def test_a_file_hides_a_row_of_its_name():
    make("bill", subject="From the database")
    assert words(find("bill"), name="")[0] == "Your bill"


def test_a_row_hides_a_file_of_its_name_if_the_project_wants_it_so(settings):
    settings.CELERY_MAILER = {"TEMPLATE_LOOKUP": "database-first"}
    make("bill", subject="From the database")
    assert words(find("bill"))[0] == "From the database"


def test_a_row_that_was_changed_behind_the_models_back_is_used_as_it_is():
    make()
    EmailTemplate.objects.update(subject="Changed")
    assert words(find("hello"))[0] == "Changed"


def test_a_finder_looks_once():
    make()
    finder = Finder()
    with CaptureQueriesContext(connection) as queries:
        for _ in range(3):
            finder.find("hello", "de")
    assert len(queries) == 2  # the rows of that name, and the version


def test_a_name_is_spelled_as_it_is():
    make("Welcome")
    with pytest.raises(InvalidEmail, match="does not exist"):
        find("welcome")
