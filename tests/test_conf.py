from dataclasses import FrozenInstanceError
from datetime import timedelta

import django
import pytest
from django.test import override_settings
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from celery_mailer import conf, options
from celery_mailer.exceptions import InvalidSettings
from celery_mailer.values import Kind, OnUncertain

# Django 6.1 deprecates them, and works with them.
pytestmark = pytest.mark.filterwarnings("ignore:The EMAIL_.* setting is deprecated")

MAILERS = django.VERSION >= (6, 1)
needs_mailers = pytest.mark.skipif(not MAILERS, reason="MAILERS came with Django 6.1")
HOUR = timedelta(hours=1)
SMTP = {"BACKEND": conf.SMTP_BACKEND}
SECRET = "hunter2-tops3cret"


@pytest.fixture
def configure(settings):
    def _configure(**sections):
        settings.CELERY_MAILER = sections

    return _configure


@pytest.fixture
def mailers(settings):
    """Set ``MAILERS`` to aliases over these backends."""

    def _mailers(**backends):
        settings.MAILERS = {alias: {"BACKEND": path} for alias, path in backends.items()}

    return _mailers


@pytest.fixture
def email_backend(settings):
    """Set ``EMAIL_BACKEND``, without ``MAILERS``."""

    def _email_backend(path):
        if hasattr(settings, "MAILERS"):
            del settings.MAILERS
        settings.EMAIL_BACKEND = path

    return _email_backend


def problem():
    (found,) = conf.problems()
    return found


# Defaults.


def test_no_settings_at_all_are_valid(settings):
    if hasattr(settings, "CELERY_MAILER"):
        del settings.CELERY_MAILER
    assert conf.problems() == ()
    assert conf.get().batch_size == 100


def test_defaults_are_those_of_the_design(configure):
    configure()
    settings = conf.get()
    assert settings.default_priority == "medium"
    assert settings.queues == options.Queues("mail.high", "mail.medium", "mail.low")
    assert settings.on_uncertain == "resend"
    assert settings.lease == timedelta(minutes=2)
    assert settings.retention == timedelta(days=90)
    assert settings.content_retention == timedelta(days=30)
    assert settings.message_id_fqdn is None
    assert (settings.retry.max_attempts, settings.retry.wait) == (8, "exponential-jitter")
    assert (settings.retry.min, settings.retry.max) == (timedelta(seconds=30), 6 * HOUR)
    assert settings.retry.give_up_after == timedelta(days=2)


def test_a_key_changes_its_value_and_no_other(configure):
    configure(BATCH_SIZE=7)
    assert conf.get() == options.Settings(
        providers=conf.get().providers, streams=conf.get().streams, batch_size=7
    )


def test_the_settings_cannot_be_changed_in_place(configure):
    configure()
    with pytest.raises(FrozenInstanceError):
        conf.get().batch_size = 5


def test_the_schema_lists_every_key_with_its_type_and_default():
    schema = {key: (kind, default) for key, kind, default in conf.schema()}
    assert schema["BATCH_SIZE"] == ("an integer", 100)
    assert schema["LEASE"] == ("a datetime.timedelta", timedelta(minutes=2))
    assert schema["QUEUES.high"] == ("a string", "mail.high")
    assert schema["RETRY.KINDS.<name>.MAX_ATTEMPTS"] == ("an integer or None", None)
    assert schema["STREAMS.<name>.ON_UNCERTAIN"] == ("one of 'resend', 'hold' or None", None)


# Unknown keys.


@pytest.mark.parametrize(
    ("sections", "path", "meant"),
    [
        ({"BATCHSIZE": 5}, "CELERY_MAILER['BATCHSIZE']", "BATCH_SIZE"),
        ({"batch_size": 5}, "CELERY_MAILER['batch_size']", "BATCH_SIZE"),
        ({"QUEUES": {"HIHG": "q"}}, "CELERY_MAILER['QUEUES']['HIHG']", "high"),
        ({"RETRY": {"MAX_ATEMPTS": 5}}, "CELERY_MAILER['RETRY']['MAX_ATEMPTS']", "MAX_ATTEMPTS"),
        (
            {"RETRY": {"KINDS": {"connection": {"WIAT": "fixed"}}}},
            "CELERY_MAILER['RETRY']['KINDS']['connection']['WIAT']",
            "WAIT",
        ),
        (
            {"PROVIDERS": {"default": {"BACKENDS": "x"}}},
            "CELERY_MAILER['PROVIDERS']['default']['BACKENDS']",
            "BACKEND",
        ),
        (
            {"STREAMS": {"marketing": {"RETENTON": HOUR}}},
            "CELERY_MAILER['STREAMS']['marketing']['RETENTON']",
            "RETENTION",
        ),
    ],
)
def test_an_unknown_key_is_named_with_what_was_probably_meant(configure, sections, path, meant):
    configure(**sections)
    assert (problem().path, problem().fault) == (path, "is not a known key.")
    assert problem().hint == f"Did you mean {meant!r}?"


def test_a_key_that_resembles_none_is_told_all_of_them(configure):
    configure(COLOUR="red")
    assert problem().hint.startswith("Known keys: PROVIDERS, STREAMS,")


def test_a_key_that_is_no_string_is_unknown_too(configure, settings):
    settings.CELERY_MAILER = {5: 1}
    assert problem().path == "CELERY_MAILER[5]"


# Types.


@pytest.mark.parametrize(
    ("sections", "path", "wanted"),
    [
        ({"BATCH_SIZE": "5"}, "['BATCH_SIZE']", "an integer"),
        ({"BATCH_SIZE": True}, "['BATCH_SIZE']", "an integer"),
        ({"BATCH_SIZE": 5.0}, "['BATCH_SIZE']", "an integer"),
        ({"BATCH_SIZE": None}, "['BATCH_SIZE']", "an integer"),
        ({"LEASE": 120}, "['LEASE']", "a datetime.timedelta"),
        ({"RETENTION": "30 days"}, "['RETENTION']", "a datetime.timedelta"),
        ({"DEFAULT_PRIORITY": "urgent"}, "['DEFAULT_PRIORITY']", "one of 'now', 'high', 'medium', 'low'"),
        ({"DEFAULT_PRIORITY": 2}, "['DEFAULT_PRIORITY']", "one of 'now', 'high', 'medium', 'low'"),
        ({"ON_UNCERTAIN": []}, "['ON_UNCERTAIN']", "one of 'resend', 'hold'"),
        ({"MESSAGE_ID_FQDN": 5}, "['MESSAGE_ID_FQDN']", "a string"),
        ({"QUEUES": "mail"}, "['QUEUES']", "a dict"),
        ({"QUEUES": {"high": None}}, "['QUEUES']['high']", "a string"),
        ({"RETRY": [1]}, "['RETRY']", "a dict"),
        ({"RETRY": {"WAIT": "linear"}}, "['RETRY']['WAIT']", "one of 'exponential-jitter'"),
        ({"RETRY": {"KINDS": []}}, "['RETRY']['KINDS']", "a dict"),
        ({"RETRY": {"KINDS": {"connection": 5}}}, "['RETRY']['KINDS']['connection']", "a dict"),
        (
            {"RETRY": {"KINDS": {"connection": {"MAX_ATTEMPTS": False}}}},
            "['RETRY']['KINDS']['connection']['MAX_ATTEMPTS']",
            "an integer",
        ),
        ({"PROVIDERS": [SMTP]}, "['PROVIDERS']", "a dict"),
        ({"PROVIDERS": {"default": conf.SMTP_BACKEND}}, "['PROVIDERS']['default']", "a dict"),
        ({"PROVIDERS": {"default": {"BACKEND": 5}}}, "['PROVIDERS']['default']['BACKEND']", "a string"),
        (
            {"PROVIDERS": {"default": {**SMTP, "OPTIONS": [("host", "h")]}}},
            "['PROVIDERS']['default']['OPTIONS']",
            "a dict",
        ),
        ({"STREAMS": "marketing"}, "['STREAMS']", "a dict"),
        ({"STREAMS": {"news": []}}, "['STREAMS']['news']", "a dict"),
        ({"STREAMS": {"news": {"RETRY": 5}}}, "['STREAMS']['news']['RETRY']", "a dict"),
    ],
)
def test_a_wrong_type_is_named_with_the_right_one(configure, sections, path, wanted):
    configure(**sections)
    assert problem().path == "CELERY_MAILER" + path
    assert problem().hint.startswith(f"Give {wanted}")


def test_settings_that_are_no_dict_are_a_problem(settings):
    settings.CELERY_MAILER = ["PROVIDERS"]
    assert (problem().path, problem().hint) == ("CELERY_MAILER", "Give a dict.")


@pytest.mark.parametrize("key", ["BATCH_SIZE", "LEASE", "RETENTION", "CONTENT_RETENTION"])
@pytest.mark.parametrize("amount", [0, -1])
def test_amounts_are_above_zero(configure, key, amount):
    value = amount if key == "BATCH_SIZE" else timedelta(seconds=amount)
    configure(**{key: value})
    assert problem().hint == "Give a value above zero."


@pytest.mark.parametrize(
    ("sections", "path"),
    [
        ({"QUEUES": {"high": ""}}, "['QUEUES']['high']"),
        ({"PROVIDERS": {"default": {"BACKEND": ""}}}, "['PROVIDERS']['default']['BACKEND']"),
        ({"MESSAGE_ID_FQDN": ""}, "['MESSAGE_ID_FQDN']"),
    ],
)
def test_an_empty_string_is_no_value(configure, sections, path):
    configure(**sections)
    assert (problem().path, problem().fault) == ("CELERY_MAILER" + path, "is empty.")


@pytest.mark.parametrize("section", ["PROVIDERS", "STREAMS"])
@pytest.mark.parametrize("name", [5, "", None])
def test_names_are_strings(configure, section, name):
    configure(**{section: {name: SMTP if section == "PROVIDERS" else {}}})
    assert (problem().path, problem().fault) == (f"CELERY_MAILER[{section!r}][{name!r}]", "is not a name.")


def test_every_problem_is_told_at_once(configure):
    configure(BATCH_SIZE=0, LEASE=5, COLOUR="red")
    assert len(conf.problems()) == 3
    with pytest.raises(InvalidSettings) as error:
        conf.get()
    assert str(error.value).count("CELERY_MAILER[") == 3


@hypothesis_settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(
        st.sampled_from(["PROVIDERS", "STREAMS", "RETRY", "QUEUES", "BATCH_SIZE", "LEASE", "X"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.timedeltas(),
            lambda children: (
                st.lists(children, max_size=2)
                | st.dictionaries(
                    st.sampled_from(
                        ["default", "BACKEND", "USING", "OPTIONS", "high", "KINDS", "MIN", "", 5]
                    ),
                    children,
                    max_size=3,
                )
            ),
            max_leaves=6,
        ),
        max_size=4,
    )
)
def test_whatever_the_settings_are_their_faults_are_problems_and_no_exceptions(raw):
    with override_settings(CELERY_MAILER=raw):
        if conf.problems():
            with pytest.raises(InvalidSettings):
                conf.get()
        else:
            assert isinstance(conf.get(), options.Settings)


# Secrets.


@pytest.mark.parametrize(
    "sections",
    [
        {"PROVIDERS": SECRET},
        {"PROVIDERS": {"default": SECRET}},
        {"PROVIDERS": {"default": {"BACKEND": [SECRET]}}},
        {"PROVIDERS": {"default": {**SMTP, "OPTIONS": SECRET}}},
        {"PROVIDERS": {"default": {**SMTP, "PASSWORD": SECRET}}},
        {"PROVIDERS": {"default": {**SMTP, "MAX_CONNECTION_AGE": SECRET}}},
        {"RETRY": {"WAIT": SECRET}},
        {"QUEUES": {"high": [SECRET]}},
        {"ON_UNCERTAIN": SECRET},
        {"API_KEY": SECRET},
    ],
)
def test_a_problem_never_shows_the_value(configure, sections):
    configure(**sections)
    assert conf.problems()
    assert SECRET not in repr(conf.problems())
    assert SECRET not in "".join(map(str, conf.problems()))


def test_options_do_not_appear_in_the_repr_of_the_settings(configure):
    configure(PROVIDERS={"default": {**SMTP, "OPTIONS": {"password": SECRET}}})
    assert conf.get().providers["default"].options == {"password": SECRET}
    assert SECRET not in repr(conf.get())


# Providers.


def test_a_provider_has_a_backend_with_options(configure):
    configure(PROVIDERS={"ses": {"BACKEND": "a.b.Backend", "OPTIONS": {"region": "x"}}})
    assert conf.get().providers == {"ses": options.Provider(backend="a.b.Backend", options={"region": "x"})}


def test_a_provider_needs_a_backend_or_an_alias(configure):
    configure(PROVIDERS={"default": {}})
    assert problem().fault == "needs 'BACKEND' or 'USING'."


def test_a_provider_cannot_have_both_a_backend_and_an_alias(configure):
    configure(PROVIDERS={"default": {**SMTP, "USING": "smtp"}})
    assert problem().hint == "Give one of the two, and not both."


def test_a_provider_that_leads_back_to_the_queue_is_refused(configure):
    configure(PROVIDERS={"default": {"BACKEND": conf.QUEUE_BACKEND}})
    assert (problem().path, problem().fault) == (
        "CELERY_MAILER['PROVIDERS']['default']",
        "leads back to the queue.",
    )


@needs_mailers
def test_a_provider_may_be_an_alias_of_mailers(configure, mailers):
    mailers(smtp=conf.SMTP_BACKEND)
    configure(PROVIDERS={"default": {"USING": "smtp"}})
    assert conf.get().providers == {"default": options.Provider(using="smtp")}


@needs_mailers
def test_a_provider_by_an_alias_that_leads_back_to_the_queue_is_refused(configure, mailers):
    mailers(default=conf.QUEUE_BACKEND, smtp=conf.SMTP_BACKEND)
    configure(PROVIDERS={"default": {"USING": "default"}})
    assert problem().fault == "uses 'default', which leads back to the queue."


@needs_mailers
def test_an_unknown_alias_is_named_with_the_one_that_was_probably_meant(configure, mailers):
    mailers(default=conf.SMTP_BACKEND, newsletter=conf.SMTP_BACKEND)
    configure(PROVIDERS={"default": {"USING": "newsleter"}})
    assert problem().fault == "uses the unknown MAILERS alias 'newsleter'."
    assert problem().hint == "Did you mean 'newsletter'?"


@needs_mailers
def test_an_alias_that_resembles_none_is_told_all_of_them(configure, mailers):
    mailers(default=conf.SMTP_BACKEND)
    configure(PROVIDERS={"default": {"USING": "xyz"}})
    assert problem().hint == "Known: default."


def test_an_alias_without_mailers_is_refused(configure, email_backend):
    email_backend(conf.SMTP_BACKEND)
    configure(PROVIDERS={"default": {"USING": "smtp"}})
    assert problem().fault == "has 'USING', but there are no MAILERS."


def test_names_that_do_not_fit_into_their_column_are_refused(configure):
    configure(PROVIDERS={"p" * 65: SMTP}, STREAMS={"s" * 41: {}})
    assert [p.hint for p in conf.problems()] == ["At most 64 characters.", "At most 40 characters."]


# What stands in for providers where none is given.


def test_without_providers_djangos_email_backend_is_the_default(configure, email_backend):
    email_backend("django.core.mail.backends.console.EmailBackend")
    configure()
    assert conf.get().providers == {
        "default": options.Provider(backend="django.core.mail.backends.console.EmailBackend")
    }


def test_without_providers_the_queue_backend_stands_for_smtp(configure, email_backend):
    email_backend(conf.QUEUE_BACKEND)
    configure()
    assert conf.get().providers == {"default": options.Provider(backend=conf.SMTP_BACKEND)}


def test_djangos_email_settings_are_the_options_of_its_smtp_backend(email_backend, settings):
    email_backend(conf.QUEUE_BACKEND)
    settings.EMAIL_HOST, settings.EMAIL_PORT, settings.EMAIL_USE_TLS = "smtp.example.com", 587, True
    settings.EMAIL_HOST_USER, settings.EMAIL_HOST_PASSWORD = "me", SECRET
    options = conf.smtp_options()
    assert (options["host"], options["port"], options["use_tls"]) == ("smtp.example.com", 587, True)
    assert (options["username"], options["password"]) == ("me", SECRET)


@needs_mailers
def test_without_providers_each_alias_that_sends_is_one(configure, mailers):
    mailers(default=conf.QUEUE_BACKEND, smtp=conf.SMTP_BACKEND, ses="a.b.Backend")
    configure()
    assert conf.get().providers == {
        "smtp": options.Provider(using="smtp"),
        "ses": options.Provider(using="ses"),
    }


@needs_mailers
def test_an_alias_without_a_backend_is_smtp(configure, settings):
    settings.MAILERS = {"default": {}}
    configure()
    assert conf.backend_path(conf.get().providers["default"]) == conf.SMTP_BACKEND


@needs_mailers
def test_mailers_that_only_queue_are_no_way_out(configure, mailers):
    mailers(default=conf.QUEUE_BACKEND)
    configure()
    assert problem().path == "CELERY_MAILER['PROVIDERS']"


@needs_mailers
def test_with_mailers_djangos_email_settings_are_not_asked(mailers):
    mailers(default=conf.SMTP_BACKEND)
    assert conf.smtp_options() == {}


@pytest.mark.skipif(MAILERS, reason="older Djangos do not know MAILERS")
def test_mailers_mean_nothing_to_a_django_that_does_not_know_them(configure, settings):
    settings.MAILERS = {"smtp": {"BACKEND": conf.SMTP_BACKEND}}
    configure()
    assert list(conf.get().providers) == ["default"]


def test_the_test_runners_outbox_takes_the_place_of_every_provider(email_backend):
    email_backend(conf.LOCMEM_BACKEND)
    assert conf.outbox_only()


def test_without_the_test_runners_outbox_providers_are_real(email_backend):
    email_backend(conf.SMTP_BACKEND)
    assert not conf.outbox_only()


# Changes.


def test_changed_settings_are_read_again(configure):
    configure(BATCH_SIZE=5)
    assert conf.get().batch_size == 5
    configure(BATCH_SIZE=6)
    assert conf.get().batch_size == 6


def test_the_default_provider_follows_a_changed_email_backend(configure, email_backend):
    configure()
    email_backend(conf.SMTP_BACKEND)
    before = conf.get().providers["default"].backend
    email_backend("django.core.mail.backends.console.EmailBackend")
    assert conf.get().providers["default"].backend != before


@needs_mailers
def test_the_providers_follow_changed_mailers(configure, mailers):
    configure()
    mailers(one=conf.SMTP_BACKEND)
    assert list(conf.get().providers) == ["one"]
    mailers(two=conf.SMTP_BACKEND)
    assert list(conf.get().providers) == ["two"]


# Streams, retries, queues.


def test_the_built_in_streams_are_always_there(configure):
    configure(STREAMS={"alerts": {}})
    assert set(conf.get().streams) == {"alerts", "transactional", "marketing"}


def test_marketing_is_held_when_uncertain_and_the_rest_is_sent_again(configure):
    configure()
    assert conf.get().uncertain_policy("marketing") == OnUncertain.HOLD
    assert conf.get().uncertain_policy("transactional") == OnUncertain.RESEND


def test_marketing_is_held_also_when_something_else_of_it_is_set(configure):
    configure(ON_UNCERTAIN="resend", STREAMS={"marketing": {"RETENTION": HOUR}})
    assert conf.get().uncertain_policy("marketing") == OnUncertain.HOLD


def test_marketing_can_be_sent_again_when_the_project_says_so(configure):
    configure(STREAMS={"marketing": {"ON_UNCERTAIN": "resend"}})
    assert conf.get().uncertain_policy("marketing") == OnUncertain.RESEND


def test_one_can_leave_marketing_and_not_the_rest(configure):
    configure(STREAMS={"alerts": {}, "marketing": {"RETENTION": HOUR}})
    assert {n for n, stream in conf.get().streams.items() if stream.unsubscribe} == {"marketing"}


def test_nothing_is_tracked_unless_a_stream_says_so(configure):
    configure(STREAMS={"alerts": {}})
    assert {(s.track_opens, s.track_clicks) for s in conf.get().streams.values()} == {("off", "off")}
    assert not conf.get().tracking.enabled


@pytest.mark.parametrize(
    ("tracking", "path", "fault"),
    [
        ({"BASE_URL": "mail.example.com"}, "['BASE_URL']", "is not the address of a site"),
        ({"BASE_URL": "https://a.example/?x"}, "['BASE_URL']", "is not the address of a site"),
        ({"BASE_URL": "ftp://a.example"}, "['BASE_URL']", "is not the address of a site"),
        ({"BASE_URL": "https://a.example\nX: y"}, "['BASE_URL']", "is not the address of a site"),
        ({"ENABLED": True}, "['ENABLED']", "needs a BASE_URL"),
        ({"UNSUBSCRIBE_MAILTO": "nobody"}, "['UNSUBSCRIBE_MAILTO']", "is not a valid email address"),
    ],
)
def test_tracking_with_a_fault_is_named(configure, tracking, path, fault):
    configure(TRACKING=tracking)
    (problem,) = conf.problems()
    assert problem.path == f"CELERY_MAILER['TRACKING']{path}"
    assert fault in problem.fault


@pytest.mark.parametrize("url", ["https://m.example.com", "http://localhost:8000", "https://a.example/mail/"])
def test_the_address_of_a_site_is_taken(configure, url):
    configure(TRACKING={"ENABLED": True, "BASE_URL": url})
    assert conf.problems() == ()


def test_a_mode_that_is_none_is_refused(configure):
    configure(STREAMS={"alerts": {"TRACK_OPENS": "perhaps"}})
    (problem,) = conf.problems()
    assert "one of 'off', 'anonymous', 'identified'" in problem.hint


def test_a_stream_without_a_policy_has_the_projects(configure):
    configure(ON_UNCERTAIN="hold", STREAMS={"alerts": {}})
    assert conf.get().uncertain_policy("alerts") == OnUncertain.HOLD


def test_the_retry_rules_of_the_project_hold_where_nothing_else_is_said(configure):
    configure(RETRY={"MAX_ATTEMPTS": 3, "WAIT": "fixed"})
    policy = conf.get().retry_policy("transactional", Kind.TEMPORARY)
    assert (policy.max_attempts, policy.wait, policy.max) == (3, "fixed", 6 * HOUR)


def test_the_rules_of_a_kind_go_before_the_projects(configure):
    configure(RETRY={"MAX_ATTEMPTS": 3, "KINDS": {"temporary": {"MAX_ATTEMPTS": 4}}})
    assert conf.get().retry_policy("transactional", Kind.TEMPORARY).max_attempts == 4
    assert conf.get().retry_policy("transactional", Kind.CONNECTION).max_attempts == 3


def test_the_rules_of_a_stream_go_before_those_of_a_kind(configure):
    configure(
        RETRY={"KINDS": {"temporary": {"MAX_ATTEMPTS": 4, "MIN": timedelta(minutes=1)}}},
        STREAMS={"alerts": {"RETRY": {"MAX_ATTEMPTS": 5}}},
    )
    policy = conf.get().retry_policy("alerts", Kind.TEMPORARY)
    assert (policy.max_attempts, policy.min) == (5, timedelta(minutes=1))


def test_a_faulty_provider_is_tried_at_even_intervals_by_default(configure):
    configure()
    policy = conf.get().retry_policy("transactional", Kind.PROVIDER)
    assert (policy.wait, policy.min) == ("fixed", timedelta(minutes=5))


def test_the_project_may_change_the_rules_for_a_faulty_provider(configure):
    configure(RETRY={"KINDS": {"provider": {"MIN": timedelta(minutes=1)}}})
    policy = conf.get().retry_policy("transactional", Kind.PROVIDER)
    assert (policy.wait, policy.min) == ("fixed", timedelta(minutes=1))


@pytest.mark.parametrize("kind", ["weather", ""])
def test_rules_for_an_unknown_kind_are_refused(configure, kind):
    configure(RETRY={"KINDS": {kind: {}}})
    found = conf.problems()[0]
    assert found.path == f"CELERY_MAILER['RETRY']['KINDS'][{kind!r}]"


def test_an_unknown_kind_is_told_the_known_ones(configure):
    configure(RETRY={"KINDS": {"weather": {}}})
    assert problem().hint.startswith("Give one of connection, temporary, provider,")


def test_a_shortest_wait_above_the_longest_is_refused(configure):
    configure(RETRY={"MIN": 7 * HOUR})
    assert (problem().path, problem().fault) == ("CELERY_MAILER['RETRY']['MIN']", "is longer than MAX.")


def test_two_lanes_cannot_have_one_queue(configure):
    configure(QUEUES={"high": "mail", "low": "mail"})
    assert (problem().path, problem().fault) == ("CELERY_MAILER['QUEUES']", "gives two lanes one queue.")


def test_a_lane_cannot_have_anothers_default_queue(configure):
    configure(QUEUES={"high": "mail.low"})
    assert problem().fault == "gives two lanes one queue."


# Addresses of providers.


def test_a_provider_may_be_one_line(configure):
    configure(PROVIDERS={"a": {"URL": "smtp+tls://user:pa%2Fss@mail.example:587", "OPTIONS": {"timeout": 5}}})
    provider = conf.get().providers["a"]
    assert provider.backend == conf.SMTP_BACKEND
    assert provider.options["password"] == "pa/ss"
    assert (provider.options["host"], provider.options["timeout"]) == ("mail.example", 5)


def test_the_environment_names_the_provider_where_the_settings_do_not(configure, monkeypatch):
    monkeypatch.setenv(conf.URL_VARIABLE, "mailgun://secret@mg.example.com")
    configure(BATCH_SIZE=5)
    assert conf.get().providers["default"].backend == "anymail.backends.mailgun.EmailBackend"
    configure(PROVIDERS={"a": {"BACKEND": conf.LOCMEM_BACKEND}})
    assert list(conf.get().providers) == ["a"]


@pytest.mark.parametrize(
    "url", ["smtpx://user:hunter2@mail.example", "hunter2", "smtp://user:hunter2@mail:x"]
)
def test_a_bad_address_is_a_problem_that_does_not_show_it(configure, url):
    configure(PROVIDERS={"a": {"URL": url}})
    (problem,) = conf.problems()
    assert problem.path == "CELERY_MAILER['PROVIDERS']['a']['URL']"
    assert "hunter2" not in f"{problem} {conf._load()}"


def test_an_address_stands_in_the_place_of_a_backend(configure):
    configure(PROVIDERS={"a": {"URL": "smtp://mail.example", "BACKEND": conf.SMTP_BACKEND}})
    assert "has 'URL' beside 'BACKEND'" in str(conf.problems()[0])


@pytest.mark.parametrize("key", ["OVERRIDE_RECIPIENTS", "LANGUAGE_FALLBACK", "LOG_LEVEL"])
@pytest.mark.parametrize("value", ["yes", 7, {"a": 1}])
def test_lists_flags_and_levels_are_what_they_say(configure, key, value):
    configure(**{key: value})
    assert conf.problems()[0].path == f"CELERY_MAILER['{key}']"


def test_whoever_gets_all_mail_has_an_address(configure):
    configure(OVERRIDE_RECIPIENTS=["dev@example.com", "nobody"])
    assert str(conf.problems()[0]).startswith("CELERY_MAILER['OVERRIDE_RECIPIENTS'][1]: is not a valid email")
