import json

import pytest
from django.core.management import CommandError, call_command

from celery_mailer.checks import check_database_templates, check_file_templates
from celery_mailer.contract import Fault, database_faults, file_faults
from celery_mailer.models import EmailTemplate

pytestmark = pytest.mark.django_db


@pytest.fixture
def broken(settings):
    settings.CELERY_MAILER = {"TEMPLATE_DIR": "broken"}
    settings.LANGUAGES = [("de", "German")]


def test_the_projects_own_templates_have_no_faults():
    assert list(file_faults()) == []
    assert list(database_faults()) == []


def test_every_fault_of_a_file_is_named(broken):
    faults = {fault.template: fault for fault in file_faults()}
    assert set(faults) == {
        "broken/syntax.html",
        "broken/fails.txt",
        "broken/lacks.html",
        "broken/badsamples.samples.json",
        "broken/alone.samples.json",
    }
    assert faults["broken/lacks.html"] == Fault(
        "broken/lacks.html", "de", "uses what its samples do not have: order.number, when, who"
    )
    assert "TemplateSyntaxError" in faults["broken/syntax.html"].fault
    assert faults["broken/fails.txt"].fault == "TemplateDoesNotExist: none.txt"
    assert "is not JSON" in faults["broken/badsamples.samples.json"].fault
    assert "does not exist" in faults["broken/alone.samples.json"].fault


def test_a_file_is_rendered_in_every_language_of_the_project(settings, broken):
    settings.LANGUAGES = [("de", "German"), ("id", "Indonesian")]
    assert [f.language for f in file_faults() if f.template == "broken/lacks.html"] == ["de", "id"]


def test_what_was_written_behind_the_models_back_is_found():
    EmailTemplate.objects.create(name="good", subject="{{ name }}", variables={"name": "Ada"})
    EmailTemplate.objects.bulk_create(
        [
            EmailTemplate(name="bad", language="de", subject="{% if %}"),
            EmailTemplate(name="lacks", content="{{ when }}", variables={"name": "Ada"}),
            EmailTemplate(name="fails", html_content="{% include 'none' %}{{ a }}", variables={"a": 1}),
        ]
    )
    assert {str(f) for f in database_faults()} == {
        "bad (de): Bad syntax: Unexpected end of expression in if tag.",
        "lacks: uses what its samples do not have: when",
        "fails: TemplateDoesNotExist: none",
    }


def test_looking_makes_no_versions():
    EmailTemplate.objects.bulk_create([EmailTemplate(name="good", subject="Hi")])
    list(database_faults())
    assert not EmailTemplate.objects.get().versions.exists()


# The system checks.


def test_a_bad_file_is_an_error(broken):
    errors = check_file_templates()
    assert {e.id for e in errors} == {"celery_mailer.E006"}
    assert any("broken/syntax.html" in e.msg for e in errors)


def test_a_template_engine_that_is_none_is_an_error(settings):
    settings.CELERY_MAILER = {"TEMPLATE_ENGINE": "jinja"}
    (error,) = check_file_templates()
    assert error.msg.startswith("CELERY_MAILER['TEMPLATE_ENGINE']: ")


def test_a_bad_row_is_a_warning_where_the_database_is_looked_at():
    EmailTemplate.objects.bulk_create([EmailTemplate(name="bad", subject="{% if %}")])
    assert [w.id for w in check_database_templates(databases=["default"])] == ["celery_mailer.W007"]
    assert check_database_templates(databases=["other"]) == []
    assert check_database_templates() == []


def test_before_the_first_migration_there_is_nothing_to_look_at(monkeypatch):
    monkeypatch.setattr(EmailTemplate._meta, "db_table", "not_there")
    assert check_database_templates(databases=["default"]) == []


# The command.


def test_the_command_says_that_all_is_well(capsys):
    call_command("mailer_check_templates")
    assert capsys.readouterr().out == "no faults\n"


def test_the_command_names_the_faults_and_fails(capsys, broken):
    with pytest.raises(CommandError, match="5 faults in templates"):
        call_command("mailer_check_templates")
    assert "broken/lacks.html (de): uses what" in capsys.readouterr().out


def test_the_command_speaks_json(capsys, broken):
    with pytest.raises(CommandError):
        call_command("mailer_check_templates", json=True)
    assert {"broken/lacks.html", "broken/syntax.html"} <= {
        f["template"] for f in json.loads(capsys.readouterr().out)
    }
