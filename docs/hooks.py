"""What the pages take from elsewhere: sections of the README, and tables made from the code.

A line ``<!-- readme: Settings -->`` is the section of that heading, ``<!-- code: commands -->`` a table made
by the function of that name. The README's own tables are held against the code by ``tests/test_readme.py``,
so nothing that a page says of the code is written twice.
"""

import ast
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

README = Path(__file__).parent.parent / "README.md"
MARK = re.compile(r"^<!-- (readme|code): (.+) -->$", re.MULTILINE)
HEADING = re.compile(r"(#+) (.+)")


def on_page_markdown(markdown: str, **kwargs: Any) -> str:
    """Called by mkdocs for every page."""
    return indented(MARK.sub(lambda mark: {"readme": section, "code": from_code}[mark[1]](mark[2]), markdown))


def indented(markdown: str) -> str:
    """``markdown`` with what belongs to a numbered item four spaces in, as Python-Markdown wants it.

    CommonMark, which the README is written in, wants three, where the item's text begins.
    """
    lines, fenced = [], False
    for line in markdown.splitlines():
        fenced ^= line.startswith("```")
        lines.append(f" {line}" if line.startswith("   ") and not fenced else line)
    return "\n".join(lines)


def section(heading: str) -> str:
    """The text under ``heading`` in the README, with the headings below it one level under the page's title.

    Raises ``LookupError`` if there is none.
    """
    lines: list[str] = []
    depth = 0
    for line, level, title in headings(README.read_text()):
        if level and depth and level <= depth:
            break
        if depth:
            lines.append(f"{'#' * (level - depth + 1)} {title}" if level else line)
        elif title == heading:
            depth = level
    if not depth:
        raise LookupError(f"README.md has no heading {heading!r}")
    return "\n".join(lines).strip()


def headings(text: str) -> Iterator[tuple[str, int, str]]:
    """Each line with the level and the title of the heading that it is; in a sample, none is."""
    fenced = False
    for line in text.splitlines():
        fenced ^= line.lstrip().startswith("```")
        found = None if fenced else HEADING.fullmatch(line)
        yield (line, len(found[1]), found[2]) if found else (line, 0, "")


def from_code(what: str) -> str:
    """What a page asks of the code, in Markdown."""
    _set_up_django()
    return {"commands": commands, "provider urls": provider_urls, "doctor": doctor}[what]()


def _set_up_django() -> None:
    import django
    from django.conf import settings

    if not settings.configured:
        settings.configure(INSTALLED_APPS=["celery_mailer"], USE_TZ=True)
        django.setup()


def commands() -> str:
    """Every management command, with its options."""
    import celery_mailer.management.commands

    folder = Path(next(iter(celery_mailer.management.commands.__path__)))
    return "\n\n".join(_command(path.stem) for path in sorted(folder.glob("[a-z]*.py")))


def _command(name: str) -> str:
    from django.core.management import load_command_class
    from django.core.management.base import BaseCommand

    of_all = {action.dest for action in BaseCommand().create_parser("", "")._actions}
    command = load_command_class("celery_mailer", name)
    own = [a for a in command.create_parser("manage.py", name)._actions if a.dest not in of_all]
    rows = [f"| `{', '.join(action.option_strings) or action.dest}` | {action.help} |" for action in own]
    table = ["", "| option | |", "|---|---|", *rows] if rows else []
    return "\n".join([f"## `{name}`", "", command.help, *table])


def provider_urls() -> str:
    """The schemes of a provider that is written as a URL."""
    from celery_mailer.provider_url import SCHEMES

    rows = []
    for name, scheme in sorted(SCHEMES.items()):
        query = ", ".join(f"`{option}`" for option in sorted(scheme.query))
        rows.append(f"| `{name}` | `{scheme.backend}` | {query} |")
    return "\n".join(["| scheme | backend | in the query |", "|---|---|---|", *rows])


def doctor() -> str:
    """What ``mailer_doctor`` looks at, and each finding in its own words; "…" is what it fills in."""
    from celery_mailer.management.doctor import EXAMINATIONS
    from celery_mailer.management.doctor.names import sender_domain

    looks = [(examination.name, examination.look) for examination in EXAMINATIONS]
    parts = []
    for name, look in [*looks, ("sender", sender_domain)]:
        rows = [f"| {level} | {words} | {mend} |" for level, words, mend in _findings(look)]
        table = ["", "| | it says | to mend it |", "|---|---|---|", *rows] if rows else []
        parts.append("\n".join([f"## {name.capitalize()}", "", inspect.getdoc(look) or "", *table]))
    return "\n\n".join(parts)


def _findings(look: Any) -> Iterator[tuple[str, str, str]]:
    """The level, the words and the cure of each finding that ``look``, or a helper of its module, makes."""
    tree = ast.parse(inspect.getsource(sys.modules[look.__module__]))
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    todo = [look.__name__]
    for name in todo:
        calls = [
            n for n in ast.walk(functions[name]) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
        ]
        for call in sorted(calls, key=lambda node: node.lineno):
            called = call.func.id
            if called in ("fault", "warning", "skipped"):
                words, *mend = (_words(argument, functions[name]) for argument in call.args)
                yield called, words, "".join(mend)
            elif called in functions and called not in todo:
                todo.append(called)


def _words(node: ast.AST, function: ast.FunctionDef) -> str:
    """A string in the code of ``function``, as a reader sees it."""
    words = "…"
    if isinstance(node, ast.Constant):
        words = str(node.value)
    elif isinstance(node, ast.JoinedStr):
        words = "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return _words(node.func.value, function)  # of ``text.strip()``, the text
    elif isinstance(node, ast.Name):
        for found in ast.walk(function):
            if isinstance(found, ast.Assign) and ast.unparse(found.targets[0]) == node.id:
                return _words(found.value, function)
    return words.replace("|", "\\|").replace("<", "&lt;")
