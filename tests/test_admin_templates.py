"""The admin's pages about templates."""

import json

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import translation

from celery_mailer import chain
from celery_mailer.models import Email, EmailTemplate, TemplateVersion
from celery_mailer.render.stage import render_emails
from tests.factories import make_email, stored
from tests.test_admin_emails import text_of
from tests.test_inline_images import PNG

pytestmark = pytest.mark.django_db

LIST = "/admin/celery_mailer/emailtemplate/"
PREVIEW = LIST + "preview/"


@pytest.fixture
def admin(client):
    client.force_login(User.objects.create_superuser("ada", "ada@example.com"))
    return client


@pytest.fixture
def login(client):
    """Logs in somebody with these permissions."""

    def log_in(*codenames):
        user = User.objects.create_user("bob", "bob@example.com", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        client.force_login(user)
        return client

    return log_in


def make(**fields):
    values = {"name": "hello", "subject": "Hello {{ name }}", "variables": {"name": "Ada"}, **fields}
    return EmailTemplate.objects.create(**values)


def page(template, name="change", *more):
    return reverse(f"admin:celery_mailer_emailtemplate_{name}", args=[template.pk, *more])


def form(template=None, translations=(), **fields):
    """What the browser sends: the template's fields, and a dict for each translation."""
    names = ("name", "description", "language", "subject", "content", "html_content")
    data = {name: getattr(template, name) if template else "" for name in names}
    data["variables"] = json.dumps(template.variables) if template else ""
    stored_ones = [row for row in translations if "id" in row]
    data["translated_templates-TOTAL_FORMS"] = len(translations)
    data["translated_templates-INITIAL_FORMS"] = len(stored_ones)
    for i, row in enumerate([*stored_ones, *(row for row in translations if "id" not in row)]):
        data |= {f"translated_templates-{i}-{name}": value for name, value in row.items()}
        if template:
            data[f"translated_templates-{i}-default_template"] = template.pk
    return data | fields


def posted(row, **fields):
    """A stored translation as the browser sends it back."""
    names = ("language", "subject", "content", "html_content")
    return {"id": row.pk, "variables": "", **{name: getattr(row, name) for name in names}, **fields}


def errors(response):
    formset = response.context["inline_admin_formsets"][0].formset
    return response.context["adminform"].form.errors, formset.errors


# The list and the form.


def test_the_list_shows_default_templates_with_their_languages(admin):
    template = make(language="en")
    template.translated_templates.create(language="de", subject="Hallo")
    response = admin.get(LIST)
    assert list(response.context["cl"].result_list) == [template]
    assert "en, de" in text_of(response)


def test_the_list_costs_the_same_however_long_it_is(admin):
    def queries():
        with CaptureQueriesContext(connection) as found:
            assert admin.get(LIST).status_code == 200
        return len(found)

    make().translated_templates.create(language="de", subject="Hallo")
    one = queries()
    for i in range(5):
        make(name=f"t{i}").translated_templates.create(language="de", subject="Hallo")
    assert queries() == one


def test_a_template_and_its_translations_are_made_in_one_form(admin):
    german = {"language": "de", "subject": "Hallo {{ name }}"}
    fields = {"name": "hello", "subject": "Hello {{ name }}", "variables": '{"name": "Ada"}'}
    response = admin.post(LIST + "add/", form(translations=[german], **fields))
    assert response.status_code == 302
    row = EmailTemplate.objects.get(language="de")
    assert (row.name, row.default_template.subject) == ("hello", "Hello {{ name }}")
    assert row.default_template.variables == {"name": "Ada"}


def test_variables_left_empty_are_none(admin):
    assert admin.post(LIST + "add/", form(name="hello", subject="Hello")).status_code == 302
    assert EmailTemplate.objects.get().variables == {}


def test_a_translation_that_was_added_and_left_empty_is_none(admin):
    template = make()
    empty = {"language": "", "subject": "", "variables": ""}
    assert admin.post(page(template), form(template, [empty])).status_code == 302
    assert not template.translated_templates.exists()


def test_the_fields_of_a_new_template_are_empty(admin):
    assert "null</textarea>" not in admin.get(LIST + "add/").content.decode()


def test_a_syntax_error_stands_at_its_field(admin):
    template = make()
    german = template.translated_templates.create(language="de", subject="Hallo")
    wrong = form(template, [posted(german, html_content="{% if %}")], content="{{ a b }}")
    own, translations = errors(admin.post(page(template), wrong))
    assert "Bad syntax" in own["content"][0]
    assert "Bad syntax" in translations[0]["html_content"][0]


def test_what_is_not_declared_stands_at_its_field(admin):
    template = make()
    german = {"language": "de", "subject": "{{ other }}"}
    _, translations = errors(admin.post(page(template), form(template, [german])))
    assert "other" in translations[0]["subject"][0]


def test_variables_that_are_not_json_are_refused(admin):
    template = make()
    for wrong in ("{", "[1]"):
        own, _ = errors(admin.post(page(template), form(template, variables=wrong)))
        assert "variables" in own


def test_a_variable_is_renamed_in_all_languages_at_once(admin):
    template = make()
    german = template.translated_templates.create(language="de", subject="Hallo {{ name }}")
    data = form(
        template,
        [posted(german, subject="Hallo {{ first }}")],
        subject="Hello {{ first }}",
        variables='{"first": "Ada"}',
    )
    assert admin.post(page(template), data).status_code == 302
    german.refresh_from_db()
    assert german.subject == "Hallo {{ first }}"


def test_a_variable_that_a_translation_still_uses_cannot_be_taken_away(admin):
    template = make()
    german = template.translated_templates.create(language="de", subject="Hallo {{ name }}")
    data = form(template, [posted(german)], subject="Hello {{ first }}", variables='{"first": "Ada"}')
    _, translations = errors(admin.post(page(template), data))
    assert "name" in translations[0]["subject"][0]


def test_a_second_translation_in_one_language_is_refused(admin):
    template = make(language="en")
    template.translated_templates.create(language="de", subject="Hallo")
    german = posted(template.translated_templates.get())
    for again in ("de", "en"):
        _, faults = errors(admin.post(page(template), form(template, [german, {"language": again}])))
        assert "another translation" in faults[1]["language"][0]
    two = [german, {"language": "fr"}, {"language": "fr"}]
    _, faults = errors(admin.post(page(template), form(template, two)))
    assert faults[:2] == [{}, {}]
    assert "language" in faults[2]


def test_two_translations_cannot_change_places(admin):
    template = make()
    german = template.translated_templates.create(language="de", subject="Hallo")
    french = template.translated_templates.create(language="fr", subject="Bonjour")
    rows = [posted(german, language="fr"), posted(french, language="de")]
    _, faults = errors(admin.post(page(template), form(template, rows)))
    assert all("language" in fault for fault in faults)


def test_a_name_that_another_template_has_is_refused(admin):
    make()
    own, _ = errors(admin.post(LIST + "add/", form(name="hello", language="de", subject="Hallo")))
    assert "Add a translation" in own["name"][0]


def test_a_template_without_a_name_is_refused_and_so_are_no_translations(admin):
    response = admin.post(
        LIST + "add/", form(translations=[{"language": "de", "subject": "Hallo"}], subject="x")
    )
    own, translations = errors(response)
    assert "name" in own
    assert translations == [{}]


def test_a_renamed_template_takes_its_translations_with_it(admin):
    template = make()
    german = template.translated_templates.create(language="de", subject="Hallo {{ name }}")
    assert admin.post(page(template), form(template, [posted(german)], name="greeting")).status_code == 302
    email = make_email(template="greeting", language="de", context={"name": "Ada"}, subject="", message="")
    render_emails([email.pk])
    assert stored(email).rendered.subject == "Hallo Ada"


def test_a_translation_is_deleted_in_the_form(admin):
    template = make()
    german = template.translated_templates.create(language="de", subject="Hallo")
    admin.post(page(template), form(template, [posted(german, DELETE="on")]))
    assert list(EmailTemplate.objects.all()) == [template]


def test_a_translation_has_no_page_of_its_own(admin):
    german = make().translated_templates.create(language="de", subject="Hallo")
    assert admin.get(page(german)).status_code == 302


def test_who_may_only_look_sees_no_preview_and_no_test(login):
    response = login("view_emailtemplate").get(page(make()))
    assert response.status_code == 200
    assert 'id="mailer-preview"' not in response.content.decode()


def test_the_page_has_no_inline_scripts_and_styles(admin):
    own = (
        admin.get(page(make())).content.decode().partition('id="mailer-template"')[2].partition("</main>")[0]
    )
    assert own
    for sign in ("<script", "<style", " style=", " onclick="):
        assert sign not in own


# Preview.


def words(**fields):
    return {
        "subject": "Hello {{ name }}",
        "html_content": "<p>{{ name }}</p>",
        "variables": '{"name": "A & B"}',
        **fields,
    }


def test_the_preview_shows_unsaved_words_with_the_samples(admin):
    result = admin.post(PREVIEW, words(content="Dear {{ name }}")).json()
    assert result["faults"] == {}
    assert (result["subject"], result["text"]) == ("Hello A & B", "Dear A & B")
    assert "<p>A &amp; B</p>" in result["html"]
    assert not TemplateVersion.objects.exists()


def test_the_preview_is_in_the_language_of_the_words(admin):
    data = words(subject="{% load i18n %}{% translate 'Yes' %}", language="de")
    assert admin.post(PREVIEW, data).json()["subject"] == "Ja"


def test_the_preview_forbids_its_html_to_load_anything_and_says_so(admin):
    result = admin.post(PREVIEW, words(html_content='<img src="https://elsewhere.example/a.png">')).json()
    assert result["html"].startswith(
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\';'
    )
    assert result["note"] == "1 image from elsewhere is not loaded."
    assert admin.post(PREVIEW, words()).json()["note"] == ""


def test_the_preview_shows_inline_images(admin, media):
    media.mkdir()
    (media / "logo.png").write_bytes(PNG)
    html = "{% load celery_mailer %}<img src=\"{% inline_image '" + str(media / "logo.png") + "' %}\">"
    assert "data:image/png;base64," in admin.post(PREVIEW, words(html_content=html)).json()["html"]


@pytest.mark.parametrize(
    ("fields", "field", "fault"),
    [
        ({"subject": "{% if %}"}, "subject", "Bad syntax"),
        ({"html_content": "{{ other }}"}, "html_content", "other"),
        ({"variables": "{"}, "variables", "Expecting"),
        ({"variables": "[]"}, "variables", "object"),
        ({"variables": "[1]"}, "variables", "object"),
        ({"variables": "3"}, "variables", "object"),
        ({"variables": '"x"'}, "variables", "object"),
        ({"subject": "{% include 'missing.html' %}", "variables": ""}, "", "missing.html"),
    ],
)
def test_the_preview_names_the_faults_by_field(admin, fields, field, fault):
    response = admin.post(PREVIEW, words(**fields))
    assert response.status_code == 200
    assert fault in response.json()["faults"][field][0]


def test_the_preview_takes_the_context_of_a_real_email(admin):
    template = make()
    email = make_email(template="hello", context={"name": "Grace"}, subject="", message="")
    assert str(email.pk) in admin.get(page(template)).content.decode()
    assert admin.post(PREVIEW, words(email=str(email.pk))).json()["subject"] == "Hello Grace"


def test_the_context_of_a_sensitive_email_is_not_shown(admin):
    template = make()
    email = make_email(template="hello", context={"name": "Grace"}, subject="", message="", sensitive=True)
    assert str(email.pk) not in admin.get(page(template)).content.decode()
    result = admin.post(PREVIEW, words(email=str(email.pk))).json()
    assert "Grace" not in str(result)
    assert "sensitive" in result["faults"][""][0]


@pytest.mark.parametrize("pk", ["nonsense", "01a1f3a0-7c1e-7a52-9d3b-5f0b8c6d2e42"])
def test_the_context_of_no_email_is_a_fault(admin, pk):
    assert "no such email" in admin.post(PREVIEW, words(email=pk)).json()["faults"][""][0]


def test_a_real_context_needs_the_permission_to_read_emails(login):
    template = make()
    email = make_email(template="hello", context={"name": "Grace"}, subject="", message="")
    client = login("change_emailtemplate")
    assert str(email.pk) not in client.get(page(template)).content.decode()
    assert client.post(PREVIEW, words(email=str(email.pk))).status_code == 403
    assert client.post(PREVIEW, words()).status_code == 200


def test_the_preview_needs_a_post_the_permission_and_the_token(login):
    client = login("view_emailtemplate")
    assert client.post(PREVIEW, words()).status_code == 403
    assert client.get(PREVIEW).status_code == 405
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(User.objects.create_superuser("ada"))
    assert strict.post(PREVIEW, words()).status_code == 403


# Test send.


@pytest.fixture
def started(monkeypatch):
    ids = []
    monkeypatch.setattr(chain, "start", lambda pks, priority: ids.extend(pks) or True)
    return ids


def test_a_test_goes_to_who_asks_for_it_by_the_normal_door(
    admin, started, django_capture_on_commit_callbacks
):
    template = make()
    with django_capture_on_commit_callbacks(execute=True):
        response = admin.post(page(template, "test"), follow=True)
    email = Email.objects.get()
    assert started == [email.pk]
    assert (email.to, email.priority, email.content.context) == (["ada@example.com"], 2, {"name": "Ada"})
    assert reverse("admin:celery_mailer_email_change", args=[email.pk]) in response.content.decode()


@pytest.mark.parametrize("active", ["en", "de"])
def test_a_test_is_in_the_language_that_was_chosen(admin, active):
    template = make()
    german = template.translated_templates.create(language="de", subject="Hallo {{ name }}")
    subjects = []
    for row in (template, german):
        with translation.override(active):
            admin.post(page(template, "test"), {"row": row.pk}, headers={"accept-language": active})
        email = Email.objects.latest("pk")
        render_emails([email.pk])
        subjects.append(stored(email).rendered.subject)
    assert subjects == ["Hello Ada", "Hallo Ada"]


def test_a_test_to_nobody_is_refused(admin):
    User.objects.update(email="")
    assert "To: is empty" in text_of(admin.post(page(make(), "test"), follow=True))
    assert not Email.objects.exists()


def test_a_test_needs_a_post_and_the_permission_to_change(login):
    template = make()
    client = login("view_emailtemplate")
    assert client.post(page(template, "test")).status_code == 403
    assert client.get(page(template, "test")).status_code == 405
    assert not Email.objects.exists()


# Versions.


def versions(template):
    return list(template.versions.order_by("pk"))


def test_the_versions_of_all_languages_are_listed_newest_first(admin):
    template = make()
    template.translated_templates.create(language="de", subject="Hallo")
    template.subject = "Changed"
    template.save()
    shown = admin.get(page(template, "versions")).context["versions"]
    assert [v.subject for v in shown] == ["Changed", "Hallo", "Hello {{ name }}"]
    assert [v.is_current for v in shown] == [True, True, False]


def test_two_versions_are_compared_line_by_line(admin):
    template = make(content="one\ntwo\n<b>three</b>\n")
    template.content = "one\n2\n<b>three</b>\n"
    template.save()
    older, newer = versions(template)
    response = admin.get(page(template, "versions"), {"older": older.pk, "newer": newer.pk})
    content = response.content.decode()
    assert "<del>- two</del>" in content
    assert "<ins>+ 2</ins>" in content
    assert "&lt;b&gt;three" in content
    assert [difference.label for difference in response.context["differences"]] == ["text"]


def test_the_latest_change_is_compared_unless_others_are_asked_for(admin):
    template = make()
    template.translated_templates.create(language="de", subject="Hallo")
    response = admin.get(page(template, "versions"))
    assert response.context["differences"] is None  # each language has but one
    template.subject = "Changed"
    template.save()
    german = template.translated_templates.get()
    german.content = "Neu"
    german.save()
    pair = admin.get(page(template, "versions")).context["pair"]
    assert [(v.language, v.content) for v in pair] == [("de", ""), ("de", "Neu")]


def test_equal_versions_are_said_to_be_equal(admin):
    template = make()
    (only,) = versions(template)
    text = text_of(admin.get(page(template, "versions"), {"older": only.pk, "newer": only.pk}))
    assert "They say the same" in text


def test_versions_that_do_not_exist_are_compared_with_nothing(admin):
    template = make()
    response = admin.get(page(template, "versions"), {"older": "x", "newer": "999"})
    assert response.status_code == 200
    assert response.context["differences"] is None


def test_a_version_is_restored(admin):
    template = make()
    template.subject = "Changed"
    template.save()
    response = admin.post(page(template, "restore", versions(template)[0].pk))
    assert response["Location"] == page(template, "versions")
    template.refresh_from_db()
    assert template.subject == "Hello {{ name }}"
    assert template.versions.count() == 2


def test_a_version_of_a_translation_is_restored_to_it(admin):
    template = make()
    german = template.translated_templates.create(language="de", subject="Hallo")
    german.subject = "Guten Tag"
    german.save()
    admin.post(page(template, "restore", versions(german)[0].pk))
    german.refresh_from_db()
    assert (german.subject, german.language) == ("Hallo", "de")


def test_a_version_that_does_not_fit_any_more_is_not_restored(admin):
    template = make()
    template.subject, template.variables = "Hello {{ first }}", {"first": "Ada"}
    template.save()
    response = admin.post(page(template, "restore", versions(template)[0].pk), follow=True)
    assert "Uses what variables do not declare" in text_of(response)
    template.refresh_from_db()
    assert template.subject == "Hello {{ first }}"


def test_restoring_needs_a_post_and_the_permission_to_change(login):
    template = make()
    version = versions(template)[0]
    client = login("view_emailtemplate")
    response = client.get(page(template, "versions"))
    assert response.status_code == 200
    assert "Restore" not in text_of(response)
    assert client.get(page(template, "restore", version.pk)).status_code == 405
    assert client.post(page(template, "restore", version.pk)).status_code == 403


def test_a_version_of_another_template_is_not_restored(admin):
    template, other = make(), make(name="other")
    assert admin.post(page(template, "restore", versions(other)[0].pk)).status_code == 404
