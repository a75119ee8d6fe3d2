import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from celery_mailer.models import Content, EmailTemplate, TemplateVersion
from celery_mailer.render.stage import render_emails
from tests.factories import make_email, stored

pytestmark = pytest.mark.django_db


def make(**fields):
    return EmailTemplate.objects.create(**{"name": "hello", "subject": "Hello", **fields})


# Versions.


def test_each_change_of_the_words_is_a_version():
    row = make()
    row.subject = "Changed"
    row.save()
    row.description = "for newcomers"
    row.save()
    assert [v.subject for v in row.versions.order_by("pk")] == ["Hello", "Changed"]


def test_words_that_come_back_are_the_version_that_they_were():
    row = make()
    for subject in ("Changed", "Hello"):
        row.subject = subject
        row.save()
    assert row.version() == row.versions.earliest("pk")
    assert row.versions.count() == 2


def test_an_email_knows_the_version_it_was_written_from():
    row = make()
    email = make_email(template="hello", subject="", message="")
    row.subject = "Changed"
    row.save()
    render_emails([email.pk])
    assert stored(email).rendered.subject == "Hello"
    assert stored(email).content.template_version.subject == "Hello"


def test_the_next_email_is_written_from_the_edited_template():
    row = make()
    make_email(template="hello", subject="", message="")
    row.subject = "Changed"
    row.save()
    email = make_email(template="hello", subject="", message="")
    render_emails([email.pk])
    assert stored(email).rendered.subject == "Changed"


def test_an_edited_translation_is_used_by_the_next_email():
    row = make().translated_templates.create(language="id", subject="Halo")
    row.subject = "Selamat"
    row.save()
    email = make_email(template="hello", language="id", subject="", message="")
    render_emails([email.pk])
    assert stored(email).rendered.subject == "Selamat"


def test_deleting_a_template_deletes_no_email_and_no_version():
    row = make()
    email = make_email(template="hello", subject="", message="")
    row.delete()
    render_emails([email.pk])
    assert stored(email).rendered.subject == "Hello"
    assert Content.objects.get().template_version.subject == "Hello"


# Translations.


def test_a_translation_has_the_name_of_its_default_template():
    assert make().translated_templates.create(language="id", subject="Halo").name == "hello"


def test_renaming_a_template_renames_its_translations():
    row = make()
    row.translated_templates.create(language="id", subject="Halo")
    row.name = "welcome"
    row.save()
    assert set(EmailTemplate.objects.values_list("name", flat=True)) == {"welcome"}


def test_a_language_is_there_once():
    row = make()
    row.translated_templates.create(language="id", subject="Halo")
    with pytest.raises(IntegrityError), transaction.atomic():
        row.translated_templates.create(language="id", subject="Halo again")


def test_a_form_refuses_a_language_that_is_there():
    row = make()
    row.translated_templates.create(language="id", subject="Halo")
    with pytest.raises(ValidationError, match="already exists"):
        EmailTemplate(default_template=row, language="id", subject="x").full_clean()


# What is refused on save.


@pytest.mark.parametrize("field", ["subject", "content", "html_content"])
def test_bad_syntax_is_refused(field):
    with pytest.raises(ValidationError) as error:
        make(**{field: "{% if %}"})
    assert list(error.value.message_dict) == [field]
    assert "Bad syntax" in error.value.message_dict[field][0]
    assert not EmailTemplate.objects.exists()


def test_bad_syntax_in_an_edit_leaves_the_template_as_it_was():
    row = make()
    row.subject = "{{ x"
    row.content = "{% endif %}"
    with pytest.raises(ValidationError):
        row.save()
    row.refresh_from_db()
    assert (row.subject, row.content) == ("Hello", "")


def test_a_template_needs_a_name():
    with pytest.raises(ValidationError, match="needs a name"):
        make(name="")


def test_what_is_used_but_not_declared_is_named():
    with pytest.raises(ValidationError) as error:
        make(variables={"name": "Ada"}, content="{{ name }} {{ order.number }} {{ when }}")
    assert error.value.message_dict == {"content": ["Uses what variables do not declare: order.number, when"]}


def test_what_fails_with_the_samples_is_refused():
    with pytest.raises(ValidationError) as error:
        make(variables={"day": "x"}, content="{% include 'none.html' %}{{ day }}")
    assert "TemplateDoesNotExist: none.html" in error.value.message_dict["content"][0]


def test_a_translation_may_use_what_the_default_template_declares():
    row = make(variables={"name": "Ada"}, content="{{ name }}")
    row.translated_templates.create(language="id", content="{{ name }}")
    with pytest.raises(ValidationError, match="do not declare: nama"):
        row.translated_templates.create(language="de", content="{{ nama }}")


def test_a_declaration_that_a_translation_still_needs_is_kept():
    row = make(variables={"name": "Ada", "day": 1}, content="{{ name }}")
    row.translated_templates.create(language="id", content="{{ day }}")
    row.variables = {"name": "Ada"}
    with pytest.raises(ValidationError, match="id, content: Uses what variables do not declare: day"):
        row.save()


def test_variables_are_names():
    with pytest.raises(ValidationError, match="Give an object"):
        make(variables=["name"])


def test_a_version_says_what_it_is():
    make(language="de")
    assert str(TemplateVersion.objects.get()).startswith("hello (de) of 20")
    assert str(EmailTemplate.objects.get()) == "hello (de)"
