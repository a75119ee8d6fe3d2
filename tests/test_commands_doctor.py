"""``mailer_doctor``: it names each fault that is planted here, and how to mend it."""

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from io import StringIO
from pathlib import Path

import dns.message
import dns.rcode
import dns.resolver
import dns.rrset
import pytest
from celery import Celery
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from django.db.migrations.recorder import MigrationRecorder
from django.utils import timezone
from django_celery_beat.models import PeriodicTask

from celery_mailer import broker
from celery_mailer.management import doctor
from celery_mailer.management.doctor import celery as celery_looks
from celery_mailer.management.doctor import names
from celery_mailer.management.doctor.finding import Examination
from celery_mailer.models import Email, EmailTemplate, ProviderState
from celery_mailer.models.pause import pause
from tests.celeryapp import app as project_app
from tests.conftest import smtp_provider
from tests.factories import make_email
from tests.servers import databases
from tests.servers.broker import Broker, private_broker
from tests.servers.smtp import SmtpServer, free_port
from tests.site import Site

pytestmark = pytest.mark.django_db

WORKERS = {"w1@host": ["celery", "mail.high", "mail.medium", "mail.low"]}
TIMEOUTS = {"socket_timeout": 5, "socket_connect_timeout": 1}
ZONE = {
    "example.com": ["v=spf1 include:_spf.example.net ~all", "something else"],
    "_domainkey.example.com": [],
    "s1._domainkey.example.com": ["v=DKIM1; k=rsa; p=MIGf"],
    "_dmarc.example.com": ["v=DMARC1; p=none"],
}


def consult(*arguments):
    """The findings, by what they say: level, area and cure."""
    out = StringIO()
    try:
        call_command("mailer_doctor", "--json", *arguments, stdout=out)
        ended = 0
    except CommandError as error:
        ended = error.returncode
    findings = json.loads(out.getvalue())
    assert ended == any(f["level"] == "fault" for f in findings)
    return [(f["level"], f["area"], f["words"], f["mend"]) for f in findings if f["level"] != "ok"]


def only(findings, level="fault"):
    """The words and the cure of the one finding beside what was skipped because of it."""
    ((found, _area, words, mend),) = [f for f in findings if f[0] != "skipped"]
    assert found == level
    return words, mend


@pytest.fixture
def zone(monkeypatch):
    """What the DNS holds."""
    records = dict(ZONE)

    def texts(name):
        if name not in records:
            raise names.NoSuchName(name)
        return records[name]

    monkeypatch.setattr(names, "texts", texts)
    return records


@pytest.fixture
def serving(monkeypatch):
    """The queues by worker."""
    workers = dict(WORKERS)
    monkeypatch.setattr(broker, "queues_by_worker", lambda: workers)
    return workers


@pytest.fixture(autouse=True)
def healthy(real_smtp, serving, zone):
    """An installation in which nothing is wrong."""
    PeriodicTask.objects.update(last_run_at=timezone.now(), enabled=True)


@pytest.fixture
def celery_app():
    """A project's Celery app in the place of the tests' own."""
    made = []

    def _make(**config):
        app = Celery("proj", set_as_current=False)
        app.conf.update({"broker_url": "memory://", "CELERY_DB_REUSE_MAX": 500, **config})
        app.set_current()
        made.append(app)

    yield _make
    project_app.set_current()
    for app in made:
        app.close()


@pytest.fixture(scope="module")
def redis() -> Iterator[Broker]:
    with private_broker() as server:
        yield server


def test_a_healthy_installation_has_no_fault():
    assert consult() == []


def test_it_says_of_everything_that_it_is_in_order():
    out = StringIO()
    call_command("mailer_doctor", stdout=out)
    areas = [*(e.name for e in doctor.EXAMINATIONS), "sender"]
    assert out.getvalue().splitlines() == [f"ok       {area}" for area in areas]


def test_a_fault_is_told_with_its_cure_and_ends_it_with_status_1(serving):
    serving.clear()
    out = StringIO()
    with pytest.raises(CommandError, match="1 fault") as raised:
        call_command("mailer_doctor", stdout=out)
    assert raised.value.returncode == 1
    assert "fault    workers: No worker answers: nothing is sent.\n         -> Start one: " in out.getvalue()


def test_sends_nothing(real_smtp):
    consult()
    assert real_smtp.received == []


# The project.


def test_fault_an_unknown_setting(settings):
    settings.CELERY_MAILER = {"PROVIDER": {}}
    findings = consult()
    assert only(findings) == (
        "CELERY_MAILER['PROVIDER'] is not a known key. (celery_mailer.E001)",
        "Did you mean 'PROVIDERS'?",
    )
    assert ("skipped", "providers", "not looked at, for there is a fault in: settings", "") in findings


def test_fault_database_connections_that_do_not_live(celery_app):
    celery_app(CELERY_DB_REUSE_MAX=None)
    words, mend = only(consult(), "warning")
    assert words.startswith("Celery closes the database connection around every task")
    assert mend.startswith("Set CELERY_DB_REUSE_MAX = 500")


def test_fault_a_template_that_cannot_be_rendered():
    EmailTemplate.objects.create(name="receipt", subject="{{ number }}", variables={"number": 1})
    EmailTemplate.objects.update(subject="{% include 'nowhere.html' %}")
    words, _mend = only(consult(), "warning")
    assert "receipt" in words
    assert "nowhere.html" in words


def test_fault_a_database_that_cannot_be_reached(monkeypatch):
    def refused():
        raise OperationalError("connection refused")

    monkeypatch.setattr(connection, "ensure_connection", refused)
    findings = consult()
    assert only(findings) == (
        "The database 'default' cannot be reached: connection refused",
        "Start it, or mend DATABASES['default'].",
    )
    skipped = {area for level, area, _, _ in findings if level == "skipped"}
    assert skipped == {"migrations", "clocks", "beat", "stopped", "backlog"}


def test_fault_missing_migrations():
    MigrationRecorder(connection).record_unapplied("celery_mailer", "0001_initial")
    assert only(consult()) == (
        "Migrations are missing: celery_mailer.0001_initial.",
        "Run manage.py migrate.",
    )


def test_fault_a_storage_that_cannot_be_written_to(settings, tmp_path):
    (tmp_path / "file").touch()
    settings.MEDIA_ROOT = tmp_path / "file"
    words, mend = only(consult())
    assert words.startswith("Attachments cannot be stored: ")
    assert mend == "Let this user write to STORAGES['default'], which keeps the attachments."


def test_the_trial_file_is_taken_away(media):
    consult()
    assert [path for path in Path(media).rglob("*") if path.is_file()] == []


# Celery.


def test_fault_a_broker_that_is_down(celery_app):
    celery_app(broker_url=f"redis://127.0.0.1:{free_port()}/0", broker_transport_options=TIMEOUTS)
    words, mend = only(consult())
    assert words.startswith("The broker cannot be reached: OperationalError: ")
    assert mend.startswith("Start it, or mend the URL and the password in broker_url")


def test_fault_a_broker_that_hangs_would_block(celery_app, redis):
    celery_app(broker_url=redis.url)
    words, mend = only(consult(), "warning")
    assert "no socket timeouts are set" in words
    assert mend.startswith("Set broker_transport_options = {'socket_timeout'")


def test_fault_a_visibility_timeout_below_the_lease(celery_app, redis):
    celery_app(broker_url=redis.url, broker_transport_options={**TIMEOUTS, "visibility_timeout": 60})
    words, mend = only(consult(), "warning")
    assert words.startswith("Redis hands a message out again after 60 s (visibility_timeout)")
    assert mend == "Set broker_transport_options['visibility_timeout'] above CELERY_MAILER['LEASE']."


def test_fault_a_visibility_timeout_below_the_tasks_time_limit(celery_app, redis):
    celery_app(broker_url=redis.url, broker_transport_options=TIMEOUTS, task_time_limit=7200)
    words, mend = only(consult(), "warning")
    assert "after 3600 s (visibility_timeout), and tasks may run for 7200 s" in words
    assert mend == "Set broker_transport_options['visibility_timeout'] above 7200."


@pytest.mark.parametrize("name", ["task_time_limit", "task_soft_time_limit"])
def test_fault_a_time_limit_that_cuts_hand_overs_off(celery_app, name):
    celery_app(**{name: 30})
    words, mend = only(consult(), "warning")
    assert words.startswith(f"{name} is 30 s, and a single hand-over may take 60 s")
    assert mend == f"Set {name} above 60, or shorten CELERY_MAILER['LEASE']."


def test_fault_a_redis_that_throws_queues_away(celery_app, redis):
    celery_app(broker_url=redis.url, broker_transport_options=TIMEOUTS)
    with broker.connected() as line:
        client = line.default_channel.client
        client.config_set("maxmemory", "100mb")
        client.config_set("maxmemory-policy", "allkeys-lru")
        words, mend = only(consult(), "warning")
        client.config_set("maxmemory-policy", "noeviction")
        assert consult() == []
    assert "maxmemory-policy allkeys-lru" in words
    assert mend.startswith("Set maxmemory-policy noeviction")


def test_fault_a_clock_that_is_off_from_redis(celery_app, redis, monkeypatch):
    celery_app(broker_url=redis.url, broker_transport_options=TIMEOUTS)
    there = celery_looks._redis_time()
    monkeypatch.setattr(celery_looks, "_database_time", lambda: None)
    monkeypatch.setattr(celery_looks.clocks, "__defaults__", (lambda: there + 600,))
    words, mend = only(consult())
    assert words.startswith("The clock of the Redis server is -")
    assert mend == "Run an NTP client (chrony, systemd-timesyncd) on every host."


def test_fault_a_clock_that_is_off_from_the_database(monkeypatch):
    monkeypatch.setattr(celery_looks, "_database_time", lambda: 1000.0)
    monkeypatch.setattr(celery_looks.clocks, "__defaults__", (lambda: 997.0,))
    words, _mend = only(consult())
    assert words.startswith("The clock of the database server is +3.0 s from this host's")


def test_clocks_may_differ_a_little(monkeypatch):
    monkeypatch.setattr(celery_looks, "_database_time", lambda: 1000.0)
    monkeypatch.setattr(celery_looks.clocks, "__defaults__", (lambda: 998.5,))
    assert consult() == []


@pytest.mark.parametrize(
    "database",
    [
        pytest.param(databases.postgres, marks=pytest.mark.postgres),
        pytest.param(databases.mariadb, marks=pytest.mark.mariadb),
    ],
)
def test_the_clock_of_a_database_server_is_read_to_the_second(database):
    with database() as url:
        site = Site(url, "memory://", 25)
        offset = site.run("""
            import time
            from celery_mailer.management.doctor.celery import _database_time
            result = _database_time() - time.time()
        """)
        site.close()
    assert abs(offset) < 1


def test_fault_no_worker(serving):
    serving.clear()
    assert only(consult()) == (
        "No worker answers: nothing is sent.",
        "Start one: celery -A <project> worker.",
    )


def test_a_broker_that_carries_no_questions_to_workers_is_no_fault(serving, monkeypatch):
    serving.clear()
    monkeypatch.setattr(broker, "can_ask_workers", lambda: False)
    ((level, area, words, _),) = consult()
    assert (level, area) == ("skipped", "workers")
    assert "cannot be seen" in words


def test_amazon_sqs_carries_none(celery_app):
    celery_app(broker_url="sqs://")
    assert not broker.can_ask_workers()


def test_fault_a_worker_without_a_lane(serving):
    serving["w1@host"] = ["celery", "mail.high", "mail.medium"]
    assert only(consult()) == (
        "No worker serves the queue mail.low: mail of the lane low is not sent.",
        "Start one with -Q mail.low, or one without -Q, which serves all.",
    )


def test_lanes_may_have_workers_of_their_own(serving):
    serving.clear()
    serving.update({"w1@host": ["mail.high"], "w2@host": ["mail.medium", "mail.low"]})
    assert consult() == []


def test_fault_beat_has_never_run():
    PeriodicTask.objects.update(last_run_at=None)
    words, mend = only(consult())
    assert words == "Beat has not been seen so far: no retries, no scheduled mail, no repair."
    assert mend.startswith("Start celery -A <project> beat")


def test_fault_beat_runs_no_longer():
    PeriodicTask.objects.update(last_run_at=timezone.now() - timedelta(minutes=6))
    words, _mend = only(consult())
    assert words.startswith("Beat has not been seen since 20")


def test_beat_writes_down_only_now_and_then_that_it_runs():
    PeriodicTask.objects.update(last_run_at=timezone.now() - timedelta(minutes=4))
    assert consult() == []


def test_beat_writes_down_its_first_run_whichever_job_that_was_of():
    PeriodicTask.objects.update(last_run_at=None)
    PeriodicTask.objects.filter(task="celery_mailer.settle").update(last_run_at=timezone.now())
    assert consult() == []


def test_fault_a_job_that_is_disabled():
    PeriodicTask.objects.filter(task="celery_mailer.cleanup").update(enabled=False)
    assert only(consult()) == (
        "Beat's row for celery_mailer.cleanup is disabled.",
        "Enable it in the admin (Periodic tasks).",
    )


def test_fault_a_job_without_a_row():
    PeriodicTask.objects.filter(task="celery_mailer.rescue").delete()
    assert only(consult()) == ("Beat has no row for celery_mailer.rescue.", "Run manage.py mailer_schedule.")


def test_the_plain_scheduler_leaves_no_trace(monkeypatch):
    monkeypatch.setattr(celery_looks.apps, "is_installed", lambda name: False)
    ((level, area, _words, _mend),) = [f for f in consult() if f[1] == "beat"]
    assert (level, area) == ("skipped", "beat")


# The way out.


def test_fault_a_wrong_password(settings):
    with SmtpServer(password="right") as server:
        provider = smtp_provider(server.port)
        provider["OPTIONS"] |= {"username": "ann", "password": "wrong"}
        settings.CELERY_MAILER = {"PROVIDERS": {"default": provider}}
        words, mend = only(consult())
    assert words.startswith("The provider default refuses the login: 535 ")
    assert mend == "Mend the user and the password in CELERY_MAILER['PROVIDERS']['default']."
    assert "wrong" not in words + mend


def test_fault_a_provider_that_nobody_answers_at(settings):
    settings.CELERY_MAILER = {"PROVIDERS": {"default": smtp_provider(free_port())}}
    words, mend = only(consult())
    assert words.startswith("The provider default cannot be reached: ")
    assert mend.startswith("Let this host reach it (firewall, DNS, TLS), or mend the host and the port in ")


def test_fault_options_that_a_backend_refuses(settings, smtp_server):
    provider = smtp_provider(smtp_server.port)
    provider["OPTIONS"] |= {"use_tls": True, "use_ssl": True}
    settings.CELERY_MAILER = {"PROVIDERS": {"default": provider}}
    words, mend = only(consult())
    assert words.startswith("The provider default cannot be used: ")
    assert mend == "Mend CELERY_MAILER['PROVIDERS']['default']."


def test_every_provider_is_looked_at(settings, smtp_server):
    settings.CELERY_MAILER = {
        "PROVIDERS": {"good": smtp_provider(smtp_server.port), "bad": smtp_provider(free_port())}
    }
    words, _mend = only(consult())
    assert words.startswith("The provider bad cannot be reached")


def test_fault_a_pause_that_was_forgotten():
    pause("lane", "low", "moving house")
    words, mend = only(consult(), "warning")
    assert words.startswith("The lane low: moving house is paused since 20")
    assert mend == "manage.py mailer_resume lane low"


def test_fault_a_provider_that_is_left_alone():
    again = timezone.now() + timedelta(minutes=5)
    ProviderState.objects.create(
        alias="default", state="open", retry_at=again, kind="provider", text="535 no"
    )
    assert only(consult(), "warning") == (
        "The provider default is left alone (provider): 535 no",
        "Mend it, then manage.py mailer_resume provider default",
    )


def test_fault_mail_that_waits_for_too_long():
    make_email(priority="low")
    Email.objects.update(created_at=timezone.now() - timedelta(hours=1))
    words, mend = only(consult(), "warning")
    assert words == "Mail of the lane low has waited for 60 minutes."
    assert "more workers" in mend


def test_an_examination_that_fails_is_a_fault_and_stops_no_other(monkeypatch):
    def faint():
        raise RuntimeError("too much blood")

    monkeypatch.setattr(doctor, "EXAMINATIONS", (Examination("heart", faint), doctor.EXAMINATIONS[0]))
    words, _mend = only(consult())
    assert words == "the examination itself failed: RuntimeError: too much blood"


# The sender's domain.


def test_fault_a_sender_that_nobody_has_set(settings):
    settings.DEFAULT_FROM_EMAIL = "webmaster@localhost"
    words, mend = only(consult())
    assert words.startswith("DEFAULT_FROM_EMAIL is webmaster@localhost")
    assert mend == "Set it to an address at a domain of yours."


@pytest.mark.parametrize(
    ("name", "records", "words"),
    [
        ("example.com", ["something else"], "example.com has no SPF record."),
        ("example.com", ["v=spf10 -all"], "example.com has no SPF record."),
        (
            "example.com",
            ["v=spf1 -all", "v=spf1 ~all"],
            "example.com has 2 SPF records, which counts as an error.",
        ),
        ("example.com", ["v=spf1 +all"], "The SPF record of example.com lets everybody send."),
        ("_domainkey.example.com", None, "example.com has no DKIM keys."),
        ("_dmarc.example.com", None, "example.com has no DMARC record."),
        ("_dmarc.example.com", ["v=spf1"], "example.com has no DMARC record."),
    ],
)
def test_fault_names_that_say_too_little(zone, name, records, words):
    if records is None:
        del zone[name]
    else:
        zone[name] = records
    found, mend = only(consult(), "warning")
    assert found == words
    assert mend


def test_fault_a_domain_that_does_not_exist(zone):
    zone.clear()
    words, mend = only(consult(), "warning")
    assert words.startswith("The DNS that this host asks knows no example.com")
    assert mend.startswith("Mend DEFAULT_FROM_EMAIL")


def test_dmarc_of_the_domain_above_counts(settings, zone):
    settings.DEFAULT_FROM_EMAIL = "shop@mail.example.com"
    zone |= {"mail.example.com": ["v=spf1 -all"], "_domainkey.mail.example.com": []}
    assert consult() == []


def test_a_dkim_key_is_looked_up_by_its_selector(zone):
    assert consult("--dkim-selector", "s1") == []


@pytest.mark.parametrize("records", [None, [], ["v=DKIM1; p="]])
def test_fault_a_dkim_key_that_is_not_there_or_revoked(zone, records):
    zone.pop("s1._domainkey.example.com") if records is None else zone.update(
        {"s1._domainkey.example.com": records}
    )
    words, _mend = only(consult("--dkim-selector", "s1"), "warning")
    assert words == "There is no DKIM key at s1._domainkey.example.com."


@pytest.fixture
def resolve(monkeypatch):
    """``texts`` of a name server that answers ``reply``, which a test may set."""
    monkeypatch.undo()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            data, sock = self.request
            query = dns.message.from_wire(data)
            response = dns.message.make_response(query)
            answer(query.question[0].name.to_text(omit_final_dot=True), response)
            sock.sendto(response.to_wire(), self.client_address)

    def answer(name, response):
        if name == "nowhere.example.com":
            response.set_rcode(dns.rcode.NXDOMAIN)
        if name == "broken.example.com":
            response.set_rcode(dns.rcode.SERVFAIL)
        if name == "example.com":
            record = dns.rrset.from_text("example.com.", 60, "IN", "TXT", '"v=spf1 include:a" " ~all"')
            response.answer.append(record)

    @contextmanager
    def resolve():
        with socketserver.UDPServer(("127.0.0.1", 0), Handler) as server:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
            resolver = dns.resolver.Resolver(configure=False)
            resolver.nameservers, resolver.port = ["127.0.0.1"], server.server_address[1]
            monkeypatch.setattr(dns.resolver, "get_default_resolver", lambda: resolver)
            yield names.texts
            server.shutdown()

    with resolve() as texts:
        yield texts


def test_the_strings_of_a_record_are_joined(resolve):
    assert resolve("example.com") == ["v=spf1 include:a ~all"]


def test_a_name_without_texts_has_none(resolve):
    assert resolve("empty.example.com") == []


def test_a_name_that_does_not_exist_is_told_from_one_without_texts(resolve):
    with pytest.raises(names.NoSuchName):
        resolve("nowhere.example.com")


def test_a_server_that_fails_is_no_answer(resolve):
    with pytest.raises(names.NoAnswer, match="NoNameservers"):
        resolve("broken.example.com")


def test_without_an_answer_nothing_is_said_about_names(monkeypatch):
    def texts(name):
        raise names.NoAnswer("LifetimeTimeout: nobody answered")

    monkeypatch.setattr(names, "texts", texts)
    ((level, area, words, _mend),) = consult()
    assert (level, area) == ("skipped", "sender")
    assert words.endswith("were not looked up: LifetimeTimeout: nobody answered")


def test_without_dnspython_it_says_what_to_install(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setitem(__import__("sys").modules, "dns.resolver", None)
    with pytest.raises(names.NoAnswer, match=r"dnspython is not installed \(the extra dns\)"):
        names.texts("example.com")
