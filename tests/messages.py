"""The strings that are marked for translation, and the catalogues that hold them.

``python -m tests.messages`` brings the catalogues up to date: new strings come in, to be translated by hand,
those that are gone go, and what is translated is compiled. Django's makemessages does as much, and wants GNU
gettext; the tests must know as well what is missing, and must run without.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import django
import polib
from django.template import Engine
from django.templatetags.i18n import BlockTranslateNode, TranslateNode

import celery_mailer

PACKAGE = Path(celery_mailer.__file__).parent
TEMPLATES = sorted(PACKAGE.glob("templates/**/*.html"))
MODULES = sorted(path for path in PACKAGE.glob("**/*.py") if "migrations" not in path.parts)

Marked = tuple[str, str]  # a string and its plural, which is empty if it has none


def marked() -> dict[Marked, str]:
    """All that is marked, with a file that it is in."""
    found: dict[Marked, str] = {}
    for path in [*TEMPLATES, *MODULES]:
        for string in in_template(path) if path.suffix == ".html" else in_module(path):
            found.setdefault(string, str(path.relative_to(PACKAGE)))
    return found


def in_template(path: Path) -> Iterator[Marked]:
    nodes = Engine.get_default().from_string(path.read_text()).nodelist
    for node in nodes.get_nodes_by_type(TranslateNode):
        yield str(node.filter_expression.var.literal), ""
    for node in nodes.get_nodes_by_type(BlockTranslateNode):
        plural = node.render_token_list(node.plural)[0] if node.plural else ""
        yield node.render_token_list(node.singular)[0], plural


def in_module(path: Path) -> Iterator[Marked]:
    """What is given to Django's functions, whatever they are called here."""
    tree = ast.parse(path.read_text())
    functions = {
        name.asname or name.name: name.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "django.utils.translation"
        for name in node.names
    }
    for node in ast.walk(tree):
        function = functions.get(getattr(getattr(node, "func", None), "id", ""), "")
        if function in ("gettext", "gettext_lazy", "ngettext", "ngettext_lazy"):
            strings = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
            yield from zip(strings[:1], strings[1:] or [""], strict=False)


def catalogues() -> list[Path]:
    return sorted(PACKAGE.glob("locale/*/LC_MESSAGES/django.po"))


def update(path: Path) -> None:
    """Bring the catalogue up to date, and compile it."""
    catalogue = polib.pofile(str(path), wrapwidth=0)
    known = {(entry.msgid, entry.msgid_plural): entry for entry in catalogue}
    strings = marked()
    catalogue.clear()
    for string in sorted(strings):
        msgid, plural = string
        forms = {"msgid_plural": plural, "msgstr_plural": {0: "", 1: ""}} if plural else {}
        catalogue.append(known.get(string) or polib.POEntry(msgid=msgid, **forms))
    catalogue.save()
    catalogue.save_as_mofile(str(path.with_suffix(".mo")))
    left = [entry.msgid for entry in catalogue.untranslated_entries()]
    print(f"{path}: {len(catalogue)} strings, {len(left)} to be translated")
    print("".join(f"  {msgid}\n" for msgid in left), end="")


if __name__ == "__main__":
    django.setup()
    for path in catalogues():
        update(path)
