"""The documentation holds: its samples run, its commands are commands, what it includes exists."""

import configparser
import importlib.util
import re
import shlex
import subprocess
import sys
import textwrap
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from celery.app.defaults import NAMESPACES, flatten
from celery.bin.beat import beat
from celery.bin.celery import celery
from celery.bin.control import inspect
from celery.bin.worker import worker
from django.core.management import load_command_class

from celery_mailer import conf, periodic, return_path
from celery_mailer.management.commands import mailer_bounce
from celery_mailer.models import Email
from celery_mailer.models.transitions import MOVES
from celery_mailer.provider_url import SCHEMES
from celery_mailer.schedule import SCHEDULE
from celery_mailer.testing import run_chains
from celery_mailer.tracking import imap
from tests.servers import databases
from tests.site import Site

DOCS = Path(__file__).parent.parent / "docs"
PACKAGE = Path(conf.__file__).parent
PAGES = sorted((DOCS / "pages").rglob("*.md"))
FENCE = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)

# The programs of the samples, each with what knows its options.
CELERY = {"worker": worker, "beat": beat, "inspect": inspect}


def load_hooks():
    spec = importlib.util.spec_from_file_location("docs_hooks", DOCS / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


hooks = load_hooks()


def samples(language):
    """Every sample in that language, as a pytest parameter; those of the README are its own tests'."""
    found = []
    for page in PAGES:
        for i, (_, kind, code) in enumerate(FENCE.findall(page.read_text())):
            if kind == language:
                found.append(pytest.param(textwrap.dedent(code), id=f"{page.stem}-{i}"))
    return found


def first_line(code):
    return code.partition("\n")[0] if code.startswith("# ") else ""


def python_samples(place):
    return [sample for sample in samples("python") if first_line(sample.values[0]) == place]


def run(code):
    names = {}
    exec(compile(code, "docs", "exec"), names)
    return names


def test_there_is_no_other_kind_of_sample():
    kinds = {kind for page in PAGES for _, kind, _ in FENCE.findall(page.read_text())}
    assert kinds == {"aliases", "ini", "python", "shell", "sql", "yaml"}
    places = {"# settings.py", "# before", "# proj/celery.py, with OpenTelemetry", ""}
    assert {first_line(sample.values[0]) for sample in samples("python")} == places


@pytest.mark.parametrize("code", python_samples("# settings.py"))
def test_settings_are_known_and_without_faults(code, settings):
    names = {name: value for name, value in run(code).items() if name.isupper()}
    celery_knows = {f"CELERY_{name.upper()}" for name, _ in flatten(NAMESPACES)}
    assert {name for name in names if name.startswith("CELERY_")} - {"CELERY_MAILER"} <= celery_knows
    settings.CELERY_MAILER = names.get("CELERY_MAILER", {})
    assert conf.problems() == ()


def settings_beside(code):
    """``CELERY_MAILER`` as the page of the sample ``code`` says it first, if it does."""
    for page in PAGES:
        found = [textwrap.dedent(sample) for _, _, sample in FENCE.findall(page.read_text())]
        if code in found:
            settings = (run(sample) for sample in found if first_line(sample) == "# settings.py")
            return next(settings, {}).get("CELERY_MAILER", {})
    raise AssertionError(code)


@pytest.mark.parametrize("code", python_samples(""))
def test_what_sends_sends(code, db, mailoutbox, settings):
    settings.CELERY_MAILER = settings_beside(code)
    with run_chains():
        run(code)
    assert len(mailoutbox) == Email.objects.filter(status="sent").count() > 0


@pytest.mark.parametrize("code", python_samples("# before"))
def test_what_was_before_is_python(code):
    assert "send_mail_task" in run(code)


@pytest.mark.parametrize("code", python_samples("# proj/celery.py, with OpenTelemetry"))
def test_the_tracer_of_the_sample_starts(code):
    """In a process of its own: a tracer is there for all of the process, and for good."""
    subprocess.run([sys.executable, "-c", f"{code}\ntrace()"], check=True)


PARTITIONED = """
    from django.db import connection
    from django.utils import timezone
    from celery_mailer import chain, periodic
    from celery_mailer.enqueue import enqueue
    from celery_mailer.models import Attempt, Email
    from celery_mailer.models.transitions import WAKE, move
    from celery_mailer.values import EmailRequest

    def send(*to):
        ids = [e.pk for e in enqueue([EmailRequest(to=a, subject="s") for a in to], start=False)]
        chain.run(ids)
        return ids

    send("before@example.com", "twice@example.com")
    with connection.cursor() as cursor:
        for statement in {statements!r}:
            cursor.execute(statement)
    send("after@example.com")
    (waiting,) = send("defer@simulator.test")
    move([waiting], WAKE, due_at=timezone.now())
    chain.run([waiting])
    found = [Email.objects.filter(status="sent").count(), Email.objects.get(pk=waiting).attempts.count()]
    Email.objects.update(finished_at=timezone.now() - timedelta(days=365))
    Email.objects.filter(pk=waiting).update(finished_at=None)
    periodic.cleanup()
    result = [*found, Email.objects.count(), Attempt.objects.count()]
"""


@pytest.mark.postgres
def test_partitioned_attempts_are_written_found_retried_and_cleaned_up():
    code = "\n".join(sample.values[0] for sample in samples("sql"))
    statements = [statement for statement in code.split(";") if statement.strip()]
    with databases.postgres() as url:
        site = Site(url, "memory://", 25, "{'PROVIDERS': {'default': {'URL': 'simulator://'}}}")
        site.migrate()
        assert site.run(PARTITIONED.format(statements=statements)) == [3, 2, 1, 2]
        site.manage("migrate", "--check")
        site.close()


def check_celery(words):
    """Raise ``AssertionError`` for an option that celery's command does not have."""
    program, *words = words
    assert program.rpartition("/")[2] == "celery"
    at = words.index(next(word for word in words if word in {*CELERY, "flower"}))
    known = {option for parameter in celery.params for option in parameter.opts}
    assert_known(words[:at], known)
    if words[at] == "flower":
        assert_flower(words[at + 1 :])
        return
    command = CELERY[words[at]]
    assert_known(words[at + 1 :], {option for parameter in command.params for option in parameter.opts})


def assert_known(words, known):
    given = {word.partition("=")[0] for word in words if word.startswith("-")}
    assert given <= known, given - known


def assert_flower(words):
    import flower.options  # noqa: F401
    from tornado.options import options

    known = {f"--{name.replace('-', '_')}" for name in options}
    assert_known(words, known)


def check_manage(words):
    name, *arguments = words[2:]
    load_command_class("celery_mailer", name).create_parser("manage.py", name).parse_args(arguments)


def check_command(words):
    check_manage(words) if words[:2] == ["python", "manage.py"] else check_celery(words)


@pytest.mark.parametrize("code", samples("shell"))
def test_a_command_has_these_options(code):
    for line in code.splitlines():
        check_command(shlex.split(line))


@pytest.mark.parametrize("code", samples("aliases"))
def test_what_a_mail_server_pipes_into_is_a_command(code):
    for command in re.findall(r'^\S+: "\|(.+)"$', code, re.MULTILINE):
        python, manage, *words = shlex.split(command)
        assert (Path(python).name, Path(manage).name) == ("python", "manage.py")
        check_manage([python, manage, *words])


@pytest.mark.parametrize("code", samples("ini"))
def test_a_unit_of_systemd_starts_a_command_that_exists(code):
    unit = configparser.ConfigParser(strict=True, interpolation=None)
    unit.optionxform = str
    unit.read_string(code)
    check_command(shlex.split(unit["Service"]["ExecStart"]))
    assert set(unit) == {"DEFAULT", "Unit", "Service", "Install"}


@pytest.mark.parametrize("code", samples("yaml"))
def test_a_deployment_on_kubernetes_starts_commands_that_exist(code):
    for deployment in yaml.safe_load_all(code):
        spec = deployment["spec"]
        assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]
        (container,) = spec["template"]["spec"]["containers"]
        check_command(container["command"])
        if "livenessProbe" in container:
            check_command(shlex.split(container["livenessProbe"]["exec"]["command"][-1]))


@pytest.mark.parametrize("page", [pytest.param(page, id=page.stem) for page in PAGES])
def test_what_a_page_includes_is_there(page):
    made = hooks.on_page_markdown(page.read_text())
    assert not hooks.MARK.search(made)
    assert made.startswith("# ")


def test_every_page_is_in_the_navigation():
    config = (DOCS / "mkdocs.yml").read_text()
    assert sorted(re.findall(r"- ([\w/-]+\.md)$", config, re.MULTILINE)) == sorted(
        page.relative_to(DOCS / "pages").as_posix() for page in PAGES
    )


@pytest.mark.parametrize(
    "fact",
    [
        f"has up to {return_path.LONGEST_LOCAL_PART} characters",
        f"up to {imap.MOST} unseen messages, and of each up to {imap.LARGEST // 2**20} MiB",
        f"ends with {mailer_bounce.TRY_AGAIN}",
    ],
)
def test_the_numbers_on_the_page_about_bounces_are_the_codes(fact):
    assert fact in (DOCS / "pages" / "howto" / "bounces.md").read_text()


def test_every_command_is_in_the_reference_with_its_options():
    made = hooks.commands()
    assert "## `mailer_import_post_office`" in made
    assert "| `--dry-run` |" in made


def test_all_that_the_doctor_says_is_in_the_reference():
    source = "".join(path.read_text() for path in (PACKAGE / "management/doctor").glob("*.py"))
    made = hooks.doctor()
    assert made.count("| fault |") == len(re.findall(r"(?<!def )\bfault\(", source))
    assert made.count("| warning |") == len(re.findall(r"(?<!def )\bwarning\(", source))
    assert "No worker answers: nothing is sent. | Start one: celery -A" in made
    assert "Let this user write to STORAGES[…]" in made


def test_every_arrow_of_an_emails_life_is_explained():
    page = (DOCS / "pages/explanation/life-of-an-email.md").read_text()
    explained = re.findall(r"`(\w+)`", page.partition("## Each arrow")[2])
    assert set(explained) - {"expires_at"} == {move.name for move in MOVES}


@pytest.mark.parametrize(
    "fact",
    [
        f"One run wakes {periodic.DISPATCH_LIMIT:,} emails of each priority",
        f"while its queue has less than {periodic.SHORT} messages",
        f"deletes up to {periodic.STEP * periodic.STEPS:,} emails of each stream",
        "every 5 seconds, that is up to 2,000 a second",
        "every hour, that is 1.2 million a day",
    ],
)
def test_what_beat_can_do_is_what_the_page_on_scale_says(fact):
    assert fact in " ".join((DOCS / "pages/howto/scale.md").read_text().split())
    assert SCHEDULE["celery_mailer.dispatch"] == timedelta(seconds=5)
    assert SCHEDULE["celery_mailer.cleanup"] == timedelta(hours=1)


def test_every_scheme_is_in_the_reference():
    assert set(re.findall(r"^\| `([\w+-]+)` \|", hooks.provider_urls(), re.MULTILINE)) == set(SCHEMES)


def test_a_section_that_the_readme_does_not_have_is_an_error():
    with pytest.raises(LookupError, match="no heading 'Nowhere'"):
        hooks.section("Nowhere")


def test_a_comment_in_a_sample_is_no_heading():
    text = "## A\n\n```python\n# not one\n```\n\n### B\n"
    assert [title for _, level, title in hooks.headings(text) if level] == ["A", "B"]


def test_the_site_builds(tmp_path):
    build = pytest.importorskip("mkdocs.commands.build", reason="needs the extra docs: `make docs` builds it")
    from mkdocs.config import load_config

    config = load_config(str(DOCS / "mkdocs.yml"), site_dir=str(tmp_path / "site"), strict=True)
    build.build(config)
    tutorial = (tmp_path / "site" / "tutorial.html").read_text()
    assert "celery -A proj worker" in re.sub(r"<[^>]+>", "", tutorial)
    assert "```" not in tutorial
