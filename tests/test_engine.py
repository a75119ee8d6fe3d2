import pytest
from django.core.exceptions import ImproperlyConfigured
from django.template import TemplateSyntaxError

from celery_mailer.engine import blocks, compiled, engine, first_file, lacking, rendered


def test_a_source_is_compiled_once():
    assert compiled("Hi {{ name }}") is compiled("Hi {{ name }}")


def test_other_settings_compile_it_anew(settings):
    before = compiled("Hi {{ name }}")
    settings.TEMPLATES = [dict(t) for t in settings.TEMPLATES]
    assert compiled("Hi {{ name }}") is not before


def test_bad_syntax_is_an_error():
    with pytest.raises(TemplateSyntaxError):
        compiled("{% if %}")


def test_only_html_is_escaped():
    template = compiled("{{ name }}")
    assert rendered(template, {"name": "<&>"}, escape=True) == "&lt;&amp;&gt;"
    assert rendered(template, {"name": "<&>"}, escape=False) == "<&>"


def test_one_block_is_rendered_with_what_extends_it():
    child = first_file(["emails/onepiece.html"])
    assert blocks(child) == {"subject", "text", "html", "body"}
    assert rendered(child, {"name": "A&B"}, escape=False, block="subject") == "One A&B"
    assert rendered(child, {"name": "A&B"}, escape=True, block="html") == "<body><b>A&amp;B</b></body>"


def test_a_block_that_is_not_there_is_empty():
    assert rendered(compiled("x"), {}, escape=True, block="html") == ""


def test_the_first_file_that_exists_is_taken():
    assert (
        first_file(["emails/none.html", "emails/bill.html", "letters/outside.html"]).name
        == "emails/bill.html"
    )
    assert first_file(["emails/none.html"]) is None


@pytest.mark.parametrize(
    ("source", "missing"),
    [
        ("{{ name }}", []),
        ("{{ nmae }}", ["nmae"]),
        ("{{ order.number }}", []),
        ("{{ order.numbre }}", ["order.numbre"]),
        ("{% for item in items %}{{ item }}{% endfor %}", ["items"]),
        ("{% if gone %}x{% endif %}", ["gone"]),
        ("{{ gone|default:'x' }}", ["gone"]),
        ("{{ gone.far.away }}", ["gone.far.away"]),
        ("{% with other=name %}{{ other }}{% endwith %}", []),
        ("{% for x in 'ab' %}{{ forloop.counter }}{{ x }}{% endfor %}", []),
        ("{{ optional }}{{ optional|default:'x' }}", []),
        ("{% include 'letters/outside.html' %}{{ b }}{{ a }}", ["a", "b"]),
    ],
)
def test_what_samples_lack_is_named(source, missing):
    samples = {"name": "Ada", "order": {"number": 17}, "optional": None}
    assert lacking(compiled(source), samples) == missing


def test_what_an_included_file_lacks_is_named_too():
    assert lacking(compiled("{% include 'letters/outside.html' %}"), {"a": 1}) == ["name"]


def test_looking_for_what_is_missing_leaves_the_engine_as_it_was():
    template = compiled("[{{ nmae }}]")
    lacking(template, {"a": 1})
    assert rendered(template, {}, escape=False) == "[]"


def test_an_engine_of_another_language_is_refused(settings):
    settings.TEMPLATES = [
        *settings.TEMPLATES,
        {"BACKEND": "django.template.backends.dummy.TemplateStrings", "NAME": "other"},
    ]
    settings.CELERY_MAILER = {"TEMPLATE_ENGINE": "other"}
    with pytest.raises(ImproperlyConfigured, match="'other' is not an engine of Django's own language"):
        engine()
