"""The README holds: its tables are what the code says, its samples run."""

import ast
import inspect
import re
import runpy
import textwrap
import unittest
from datetime import timedelta
from io import StringIO
from pathlib import Path
from types import ModuleType, SimpleNamespace

import django
import pytest
from django.apps import apps
from django.contrib.auth.models import User
from django.core.mail import send_mail
from django.core.management import load_command_class
from django.dispatch import Signal
from django.urls import reverse

import celery_mailer.management.commands
from celery_mailer import checks, conf, options, periodic, signals
from celery_mailer.backends import EmailBackend
from celery_mailer.deliver.slice import WINDOW
from celery_mailer.health import health
from celery_mailer.metrics import MailerCollector, metrics
from celery_mailer.models import Email
from celery_mailer.models.transitions import MOVES
from celery_mailer.schedule import SCHEDULE
from celery_mailer.tasks import send_email
from celery_mailer.testing import run_chains
from celery_mailer.values import Kind, OnUncertain, Priority, Status
from tests.conftest import smtp_provider

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()
WORDS = " ".join(TEXT.split())
SHOP = ROOT / "example_project" / "shop"


def table(*header: str) -> list[list[str]]:
    """The rows of the table whose header begins so; cells without their backquotes."""
    lines = iter(TEXT.splitlines())
    start = "| " + " | ".join(header)
    assert any(line.startswith(start) for line in lines), f"no table {start}"
    next(lines)
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().strip("`") for cell in line.strip("|").split("|")])
    return rows


def in_words(value: object) -> str:
    if not isinstance(value, timedelta):
        return repr(value)
    for unit, seconds in {"day": 86400, "hour": 3600, "minute": 60, "second": 1}.items():
        number, rest = divmod(value.total_seconds(), seconds)
        if number and not rest:
            return f"{number:g} {unit}" + "s" * (number != 1)
    raise AssertionError(value)


def samples() -> list[tuple[str, str]]:
    """Each Python sample with its first line's comment, which says where it belongs."""
    found = re.findall(r"^( *)```python\n(.*?)^\1```$", TEXT, re.DOTALL | re.MULTILINE)
    codes = [textwrap.dedent(code) for _, code in found]
    return [(code.partition("\n")[0] if code.startswith("# ") else "", code) for code in codes]


def samples_of(place: str) -> list[str]:
    return [code for where, code in samples() if where == place]


def run(code: str, **names: object) -> dict:
    exec(compile(code, "README.md", "exec"), names)
    return names


def test_checks():
    ids = set(re.findall(r'id="(celery_mailer\.[EW]\d+)"', inspect.getsource(checks)))
    assert {row[0] for row in table("id", "what it found")} == ids


def test_settings():
    documented = [tuple(row[:3]) for row in table("key", "type", "default")]
    assert documented == [(key, kind, in_words(default)) for key, kind, default in conf.schema()]


def test_states():
    rows = table("status", "means")
    assert [row[0] for row in rows] == Status.values
    final = {row[0] for row in rows if row[1].startswith("final")}
    assert final == {s for s in Status.values if not any(s in m.sources for m in MOVES)}


def test_moves():
    rows = [tuple(row[:5]) for row in table("move", "from", "to")]
    assert rows == [
        (m.name, ", ".join(sorted(m.sources)), m.target, m.by, "plain" if m.plain else "") for m in MOVES
    ]


def test_signals():
    defined = [name for name, value in vars(signals).items() if isinstance(value, Signal)]
    assert [row[0] for row in table("signal", "sent when")] == defined


def test_commands_and_beat():
    rows = {row[0]: row[1] for row in table("command", "beat runs it every")}
    folder = Path(celery_mailer.management.commands.__file__).parent
    assert set(rows) == {path.stem for path in folder.glob("mailer_*.py")}
    schedule = {f"mailer_{name.rpartition('.')[2]}": in_words(t) for name, t in SCHEDULE.items()}
    assert {name: every for name, every in rows.items() if every} == schedule


def test_every_command_takes_json_but_the_one_that_is_named():
    names = {row[0] for row in table("command", "beat runs it every")}
    parsers = {n: load_command_class("celery_mailer", n).create_parser("manage.py", n) for n in names}
    without = {name for name, parser in parsers.items() if "--json" not in parser.format_help()}
    assert without == {"mailer_export_recipient"}
    assert "with `--json` each prints its result as JSON (`mailer_export_recipient` always does)" in WORDS


def test_metrics(db):
    families = list(MailerCollector().collect())
    names = {f"{family.name}_total" if family.type == "counter" else family.name for family in families}
    assert {row[0] for row in table("metric", "labels")} == names
    for row in table("metric", "labels"):
        (family,) = [f for f in families if row[0].removesuffix("_total") == f.name]
        assert row[1].split(", ") == list(family._labelnames)


def test_the_urls_sample():
    found = [p for sample in samples_of("# proj/urls.py") for p in run(sample)["urlpatterns"]]
    assert [p.callback for p in found if p.callback] == [health, metrics]
    included = [p.urlconf_name.__name__ for p in found if not p.callback]
    assert included == ["celery_mailer.urls", "celery_mailer.inbox.urls"]


def test_lanes():
    rows = {row[0]: row[1] for row in table("priority", "queue")}
    assert list(rows) == [p.label for p in reversed(Priority)]
    queues = options.Queues()
    assert rows["now"].startswith("none")
    assert rows["now"].endswith(f"`{queues.high}")
    assert [rows["high"], rows["medium"], rows["low"]] == [queues.high, queues.medium, queues.low]
    assert f"-Q celery,{queues.high},{queues.medium},{queues.low}" in TEXT


def test_arguments():
    section = TEXT.partition("### Arguments")[2].partition("\n\nThe template")[0]
    common = set(inspect.signature(send_email.run).parameters) - {"recipient_list"}
    assert set(re.findall(r"`(\w+)`", section)) == common


@pytest.mark.parametrize(
    "fact",
    [
        f"up to {WINDOW} emails",
        f"`LEASE` ({in_words(options.Settings.lease)})",
        f"after `LEASE` and at most {in_words(SCHEDULE['celery_mailer.rescue'])}",
        f"it looks every {in_words(SCHEDULE['celery_mailer.dispatch'])}",
        f"start within {in_words(SCHEDULE['celery_mailer.dispatch'])} after",
        f"holds {periodic.OUTSTANDING:,} messages",
        f"`CONTENT_RETENTION` ({in_words(options.Settings.content_retention)})",
        f"`RETENTION` ({in_words(options.Settings.retention)})",
        f"Version {celery_mailer.__version__}",
        f"(`provider`) is tried every {in_words(options.KIND_RULES[Kind.PROVIDER].min)} and costs no attempt",
    ],
)
def test_facts(fact):
    assert fact in WORDS


def test_kinds_and_streams():
    sentence = re.search(r"Kinds are (.*?)\. ", WORDS)[1]
    assert re.findall(r"`(\w+)`", sentence) == [str(kind) for kind in Kind if kind]
    assert set(conf.BUILT_IN_STREAMS) == {"transactional", "marketing"}
    settings = conf.get()
    assert settings.uncertain_policy("marketing") == OnUncertain.HOLD
    assert settings.uncertain_policy("transactional") == OnUncertain(options.Settings.on_uncertain)


def test_the_quick_start_is_what_the_shop_does():
    shop = runpy.run_path(str(SHOP / "settings.py"))
    quick = run(samples_of("# settings.py")[0])
    broker = {"CELERY_BROKER_URL"}
    names = {name for name in quick if name.startswith("CELERY_")} - broker
    assert {name: quick[name] for name in names} == {name: shop[name] for name in names}
    assert set(quick["INSTALLED_APPS"]) - {...} <= set(shop["INSTALLED_APPS"])
    for name in ("celery", "__init__"):
        (sample,) = samples_of(f"# proj/{name}.py")
        body = sample.partition("\n")[2].replace("proj", "shop")
        assert body.strip() == (SHOP / f"{name}.py").read_text().strip()


def test_the_settings_sample_has_no_faults(settings):
    code = samples_of("# settings.py")[-1]
    settings.CELERY_MAILER = run(code)["CELERY_MAILER"]
    assert conf.problems() == ()


def test_the_mailers_sample_queues(settings, db):
    code = samples_of("# settings.py")[1]
    mailers = run(code)["MAILERS"]
    if not conf.mailers_configured():
        inspect.signature(EmailBackend).bind(**mailers["default"]["OPTIONS"])
        return
    settings.MAILERS = mailers
    send_mail("Hello", "Text", None, ["ada@example.com"])
    assert Email.objects.get().provider == "smtp"


def test_the_plain_scheduler_sample():
    app = SimpleNamespace(conf=SimpleNamespace())
    run(samples_of("# proj/celery.py, with the plain scheduler")[0], app=app)
    assert set(app.conf.beat_schedule) == set(SCHEDULE)


def test_the_sample_without_django(monkeypatch):
    sent = []

    class App:
        def __init__(self, name, broker):
            pass

        def send_task(self, name, kwargs, queue):
            sent.append((name, kwargs, queue))

    monkeypatch.setattr("celery.Celery", App)
    run(samples_of("# a service without Django")[0])
    ((name, kwargs, queue),) = sent
    assert name == send_email.name
    inspect.signature(send_email.run).bind(**kwargs)
    assert queue == options.Queues().high


@pytest.mark.django_db(transaction=True)
def test_the_samples_run(real_smtp, settings, capsys):
    """All that names no file, one after the other, as somebody reads and tries them."""
    settings.TEMPLATES = [{**settings.TEMPLATES[0], "DIRS": [str(SHOP / "templates")]}]
    settings.CELERY_MAILER = {
        "PROVIDERS": {"smtp": smtp_provider(real_smtp.port)},
        "TRACKING": {"BASE_URL": "https://mail.example.com"},
    }
    if django.VERSION >= (6, 1):
        settings.MAILERS = {"default": {"BACKEND": conf.QUEUE_BACKEND, "OPTIONS": {"using": "smtp"}}}
    else:
        settings.EMAIL_BACKEND = conf.QUEUE_BACKEND
    User.objects.create(username="ada", email="ada@example.com")
    names = {"order": SimpleNamespace(pk=17, save=lambda: None)}
    with run_chains():
        for code in samples_of(""):
            # The receiver of a signal, in the last sample, must not stay connected to hear of other tests.
            names = run(code, **names)
    signals.email_failed.disconnect(names["remember"])
    assert not Email.objects.exclude(status="sent").exclude(scheduled_at__isnull=False).exists()
    scheduled = Email.objects.filter(scheduled_at__isnull=False)
    assert [e.status for e in scheduled] == ["queued", "queued"]
    assert len(real_smtp.received) == Email.objects.count() - len(scheduled) == 14
    subjects = [r.message["Subject"] for r in real_smtp.received]
    assert {"Hi Ada", "50 % off {{"} <= set(subjects)
    assert "accepted 250" in capsys.readouterr().out


def test_the_tests_of_a_project_pass(django_db_setup, django_db_blocker, settings):
    settings.TEMPLATES = [{**settings.TEMPLATES[0], "DIRS": [str(SHOP / "templates")]}]
    (code,) = samples_of("# tests.py")
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(run(code)["WelcomeTest"])
    with django_db_blocker.unblock():
        result = unittest.TextTestRunner(stream=StringIO()).run(suite)
    assert (result.testsRun, result.failures, result.errors) == (2, [], [])


def test_the_sample_of_urls_leads_to_the_inbox():
    (sample,) = [sample for sample in samples_of("# proj/urls.py") if "inbox" in sample]
    found = ModuleType("urls")
    found.urlpatterns = run(sample)["urlpatterns"]
    assert reverse("celery_mailer_inbox:index", urlconf=found) == "/inbox/"


def test_the_permissions_are_those_of_the_models():
    models = apps.get_app_config("celery_mailer").get_models()
    own = {codename for model in models for codename, _ in model._meta.permissions}
    table = TEXT.partition("| permission |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) == own


def test_every_sample_is_looked_at():
    places = {where for where, _ in samples()}
    assert places == {
        "",
        "# settings.py",
        "# tests.py",
        "# proj/celery.py",
        "# proj/urls.py",
        "# proj/__init__.py",
        "# proj/celery.py, with the plain scheduler",
        "# a service without Django",
    }
    for _, code in samples():
        ast.parse(code)


def test_the_two_commands_exist():
    makefile = (ROOT / "Makefile").read_text()
    assert re.findall(r"^make (\w+)", TEXT, re.MULTILINE) == ["demo", "test"]
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in ("demo", "test"))
    for path in re.findall(r"`(example_project/[\w./]+)`", TEXT):
        assert (ROOT / path).exists()
