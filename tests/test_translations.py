"""What people read can be translated, and is: all of it is marked, and the catalogues have all that is."""

import re
from gettext import GNUTranslations
from html.parser import HTMLParser

import polib
import pytest
from django.contrib import admin
from django.template.base import Lexer, TokenType
from django.urls import reverse
from django.utils.functional import Promise

from celery_mailer.acts import ACTS
from celery_mailer.admin import words
from celery_mailer.admin.suppressions import SuppressionForm
from celery_mailer.admin.switches import PauseForm
from celery_mailer.admin.template_forms import DefaultForm, TranslationForm
from tests.messages import PACKAGE, TEMPLATES, catalogues, marked

SAID = {"alt", "aria-label", "placeholder", "title"}  # attributes that people read or hear
ENDS = {"blocktranslate": "endblocktranslate", "block bodyclass": "endblock"}  # of what is none, or marked
CODE = {"code", "pre", "script", "style"}
REGISTERED = {m: a for m, a in admin.site._registry.items() if m._meta.app_label == "celery_mailer"}


class Bare(HTMLParser):
    """Gathers what is said outside of tags for translation."""

    def __init__(self):
        super().__init__()
        self.found, self.inside = [], []

    def handle_starttag(self, tag, attributes):
        if tag in CODE:
            self.inside.append(tag)
        told = [value for name, value in attributes if name in SAID or name.startswith("data-mailer-tab")]
        if tag == "input":
            told += [v for n, v in attributes if n == "value" and ("type", "submit") in attributes]
        self.note(*told)

    def handle_endtag(self, tag):
        if tag in self.inside:
            self.inside.remove(tag)

    def handle_data(self, data):
        if not self.inside:
            self.note(data)

    def note(self, *texts):
        self.found += [text.strip() for text in texts if re.search(r"[^\W\d_]", text or "")]


def bare(source):
    """What of a template is said in one language only."""
    parser, kept, end = Bare(), [], None
    for token in Lexer(source).tokenize():
        if token.token_type == TokenType.BLOCK:
            end = ENDS.get(token.contents.split(" with ")[0].split(" count ")[0], end)
            end = None if token.contents == end else end
        elif token.token_type == TokenType.TEXT and end is None:
            kept.append(token.contents)
    parser.feed("".join(kept))
    parser.close()
    return parser.found


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: str(path.relative_to(PACKAGE / "templates")))
def test_a_template_says_nothing_that_cannot_be_translated(path):
    assert bare(path.read_text()) == []


def test_what_is_not_marked_in_a_template_would_be_noticed():
    source = """<p title="One">{{ x }} Two</p>{% blocktranslate with y=x %}Three{% endblocktranslate %}
        <code>Four</code><input type="submit" value="Five"><input value="six">
        {% translate "Seven" %}<b>Eight</b>"""
    assert bare(source) == ["One", "Two", "Five", "Eight"]


@pytest.mark.parametrize("model", REGISTERED, ids=lambda model: model.__name__)
def test_the_admin_names_models_columns_filters_and_actions_in_any_language(model):
    model_admin, meta = REGISTERED[model], model._meta
    assert isinstance(meta.verbose_name, Promise)
    assert isinstance(meta.verbose_name_plural, Promise)
    assert all(isinstance(label, Promise) for _codename, label in meta.permissions)
    for column in model_admin.list_display if model_admin.list_display != ("__str__",) else ():
        shown = column if callable(column) else getattr(model_admin, column, None)
        label = shown.short_description if shown else meta.get_field(column)._verbose_name
        assert isinstance(label, Promise), column
    for filter_ in model_admin.list_filter:
        assert isinstance(filter_.title, Promise), filter_
    for action in model_admin.actions or ():
        assert isinstance(action.short_description, Promise), action
    assert isinstance(model_admin.search_help_text or model._meta.verbose_name, Promise)


@pytest.mark.parametrize("form", [DefaultForm, TranslationForm, SuppressionForm, PauseForm])
def test_forms_name_their_fields_in_any_language(form):
    for name, field in form.base_fields.items():
        if name not in ("kind", "name") or form is not PauseForm:  # which nobody fills in
            assert isinstance(field.label, Promise), name
            assert not field.help_text or isinstance(field.help_text, Promise), name


def test_typed_words_and_acts_are_said_in_any_language():
    tables = [value for name, value in vars(words).items() if name.isupper()]
    assert len(tables) > 8
    assert all(isinstance(word, Promise) for table in tables for word in table.values())
    assert all(isinstance(text, Promise) for act in ACTS.values() for text in (act.label, act.question))


# The catalogues.


@pytest.fixture(params=catalogues(), ids=lambda path: path.parts[-3])
def catalogue(request):
    return request.param


def test_a_catalogue_has_a_translation_of_all_that_is_marked(catalogue):
    entries = polib.pofile(str(catalogue))
    translated = {(entry.msgid, entry.msgid_plural) for entry in entries.translated_entries()}
    strings = marked()
    missing = [f"  {file}: {strings_of(s)}" for s, file in sorted(strings.items()) if s not in translated]
    left_over = [f"  {strings_of(s)}" for s in sorted(translated - set(strings))]
    assert not missing, "\n".join([f"Run `make messages` and translate, in {catalogue}:", *missing])
    assert not left_over, "\n".join(["Run `make messages`: nobody says any more", *left_over])


def strings_of(string):
    return " | ".join(filter(None, string))


def test_a_translation_has_the_names_that_are_filled_in(catalogue):
    for entry in polib.pofile(str(catalogue)):
        wanted = names(entry.msgid_plural or entry.msgid)
        for text in [entry.msgstr] if not entry.msgid_plural else entry.msgstr_plural.values():
            assert names(text) == wanted, entry.msgid


def names(text):
    return sorted(re.findall(r"%(?:\(\w+\))?[.\d]*[sdf]", text))


def test_what_is_compiled_is_what_is_translated(catalogue):
    """Else: `make messages`."""
    with catalogue.with_suffix(".mo").open("rb") as file:
        compiled = GNUTranslations(file)._catalog
    for entry in polib.pofile(str(catalogue)):
        if entry.msgid_plural:
            assert [compiled[entry.msgid, n] for n in (0, 1)] == [entry.msgstr_plural[n] for n in (0, 1)]
        else:
            assert compiled[entry.msgid] == entry.msgstr


@pytest.mark.django_db
def test_the_admin_speaks_german(admin_client, settings):
    settings.LANGUAGE_CODE = "de"
    page = admin_client.get(reverse("admin:celery_mailer_email_dashboard")).content.decode()
    assert "Es gibt noch keine E-Mail" in page
