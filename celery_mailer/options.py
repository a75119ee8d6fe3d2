"""The settings as frozen dataclasses: a field is a key, its annotation the type, its default the default."""

from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import Any, ClassVar, Literal

from celery_mailer.quiet import QuietHours
from celery_mailer.schemas import Rate, Rates
from celery_mailer.values import Kind, OnUncertain, ReputationPolicy, RetryPolicy

Wait = Literal["exponential-jitter", "exponential", "fixed", "random"]
PriorityName = Literal["now", "high", "medium", "low"]
TemplateLookup = Literal["files-first", "database-first"]
LogLevel = Literal[0, 1, 2]
OnUncertainName = Literal["resend", "hold"]
TrackingMode = Literal["off", "anonymous", "identified"]
Routes = list[str] | dict[str, int]  # providers in the order of failover, or with the weight of each


@dataclass(frozen=True)
class Dkim:
    """A signature on what goes out by Django's SMTP backend (RFC 6376)."""

    domain: str | None = None
    selector: str | None = None
    key: str | None = field(default=None, repr=False)  # RSA, private, in PEM
    key_file: str | None = None  # instead of KEY


@dataclass(frozen=True)
class Provider:
    backend: str | None = None  # dotted path of a Django email backend
    options: dict[str, Any] = field(default_factory=dict, repr=False)  # its keyword arguments; holds secrets
    using: str | None = None  # instead of BACKEND: an alias of Django 6.1's MAILERS
    url: str | None = field(default=None, repr=False)  # instead of BACKEND and OPTIONS: all in one line
    max_messages_per_connection: int = 100
    max_connection_age: timedelta = timedelta(minutes=5)
    max_connections: int | None = None  # open at the same time, of all workers
    rate_limit: Rates | None = None  # recipients; with several rates, all of them hold
    daily_quota: int | None = None  # recipients in any 24 hours
    dkim: Dkim = Dkim()
    return_path: str | None = None  # where bounces come to; each mail's own is made of it


@dataclass(frozen=True)
class RetryRule:
    """What one kind of failure changes in the retry rules; ``None`` leaves a value as it is."""

    max_attempts: int | None = None
    wait: Wait | None = None
    min: timedelta | None = None
    max: timedelta | None = None
    give_up_after: timedelta | None = None


KINDS = tuple(str(kind) for kind in Kind if kind)

# A refused login is mended by a person: it does not get better by trying at ever longer intervals from
# half a minute on.
KIND_RULES = {Kind.PROVIDER: RetryRule(wait="fixed", min=timedelta(minutes=5))}


@dataclass(frozen=True)
class Retry:
    max_attempts: int = 8
    wait: Wait = "exponential-jitter"
    min: timedelta = timedelta(seconds=30)
    max: timedelta = timedelta(hours=6)
    give_up_after: timedelta = timedelta(days=2)
    kinds: dict[str, RetryRule] = field(default_factory=dict)  # by kind of failure (``values.Kind``)


@dataclass(frozen=True)
class ReputationRule:
    """What a stream changes in the rules of reputation; ``None`` leaves a value as it is."""

    bounces_warn: float | None = None
    bounces_pause: float | None = None
    complaints_warn: float | None = None
    complaints_pause: float | None = None
    minimum: int | None = None
    pause_stream: bool | None = None


@dataclass(frozen=True)
class Reputation:
    """Shares of the emails that servers took or refused: of a stream those of a week, of a batch all.

    Google asks for complaints below 0.1 %, and never 0.3 % (Email sender guidelines); Amazon SES reviews
    accounts from 5 % of bounces on, and may stop them from 10 % on.
    """

    bounces_warn: float = 0.05
    bounces_pause: float = 0.1
    complaints_warn: float = 0.001
    complaints_pause: float = 0.003
    minimum: int = 1_000  # emails; of fewer, a single complaint would say too much
    pause_stream: bool = True  # False: it is warned of, and only its batches are paused


@dataclass(frozen=True)
class Stream:
    """A kind of mail with its own rules; ``None`` takes the project's."""

    on_uncertain: OnUncertainName | None = None
    retry: RetryRule = RetryRule()
    reputation: ReputationRule = ReputationRule()
    retention: timedelta | None = None
    content_retention: timedelta | None = None
    routes: Routes | None = None
    priority: PriorityName | None = None  # where a call names none
    quiet_hours: QuietHours | None = None  # in the site's time zone: what becomes due waits until they end
    unsubscribe: bool = False  # each mail says how to leave the stream (RFC 8058), and has one recipient
    track_opens: TrackingMode = "off"  # the most that an email may ask for
    track_clicks: TrackingMode = "off"


@dataclass(frozen=True)
class Queues:
    keys_as_in_calls: ClassVar = True  # lanes are named as priorities are spelled

    high: str = "mail.high"
    medium: str = "mail.medium"
    low: str = "mail.low"


@dataclass(frozen=True)
class Attachments:
    storage: str = "default"  # an alias of Django's STORAGES
    max_size: int = 20 * 2**20  # bytes, each
    image_roots: list[str] = field(default_factory=list)  # folders beside MEDIA_ROOT and the static files'


@dataclass(frozen=True)
class Tracking:
    enabled: bool = False  # opens and clicks; unsubscribing works without
    base_url: str | None = None  # the public address of the site that includes ``celery_mailer.urls``
    consent: str | None = None  # dotted path of a callable: (address, stream) to a mode, or true or false
    unsubscribe_mailto: str | None = None  # an address beside the links of List-Unsubscribe


@dataclass(frozen=True)
class Bounces:
    """Mail that comes back, where ``mailer_bounce`` is to look for it."""

    imap_url: str | None = field(default=None, repr=False)  # of a mailbox; holds a password


@dataclass(frozen=True)
class Settings:
    providers: dict[str, Provider] = field(default_factory=dict)
    streams: dict[str, Stream] = field(default_factory=dict)
    routes: Routes = field(default_factory=list)  # without any: the default provider
    domain_routes: dict[str, Routes] = field(default_factory=dict)  # by the domain of all recipients
    domain_limits: dict[str, Rate] = field(default_factory=dict)  # recipients, by their domain
    default_priority: PriorityName = "medium"
    queues: Queues = Queues()
    batch_size: int = 100
    retry: Retry = Retry()
    reputation: Reputation = Reputation()
    on_uncertain: OnUncertainName = "resend"
    lease: timedelta = timedelta(minutes=2)
    retention: timedelta = timedelta(days=90)
    content_retention: timedelta = timedelta(days=30)
    message_id_fqdn: str | None = None
    override_recipients: list[str] | None = None  # in the place of to, cc and bcc: for staging sites
    log_level: LogLevel = 2  # attempts that are kept: 0 none, 1 those that failed, 2 all
    template_dir: str = "emails"  # file templates are looked for in it first, then as they are named
    template_engine: str = "django"  # a NAME of Django's TEMPLATES
    template_lookup: TemplateLookup = "files-first"
    language_fallback: bool = True  # de-at, de, default; False: a template that is not in it is an error
    address_validator: str | None = None  # dotted path of a callable that raises ValueError for an address
    post_office_tags: bool = False  # whether {% load post_office %} means {% load celery_mailer %}
    attachments: Attachments = Attachments()
    tracking: Tracking = Tracking()
    bounces: Bounces = Bounces()
    # Of the limits; None: the broker's. It holds secrets.
    redis_url: str | None = field(default=None, repr=False)

    def retry_policy(self, stream: str, kind: Kind) -> RetryPolicy:
        """The rules for ``stream`` and ``kind``: the project's, under the kind's, under the stream's."""
        rules = [KIND_RULES.get(kind), self.retry.kinds.get(kind), self.streams[stream].retry]
        values = {f.name: getattr(self.retry, f.name) for f in fields(RetryRule)}
        for rule in filter(None, rules):
            values |= {f.name: v for f in fields(rule) if (v := getattr(rule, f.name)) is not None}
        return RetryPolicy(**values)

    def reputation_policy(self, stream: str) -> ReputationPolicy:
        """The project's rules, under those of ``stream``."""
        rule = self.streams[stream].reputation if stream in self.streams else ReputationRule()
        own = {f.name: v for f in fields(rule) if (v := getattr(rule, f.name)) is not None}
        return ReputationPolicy(**{f.name: getattr(self.reputation, f.name) for f in fields(rule)} | own)

    def routes_for(self, stream: str, domain: str | None) -> Routes:
        """The providers of mail in ``stream`` to recipients all at ``domain`` (``None``: at several)."""
        by_stream = self.streams[stream].routes if stream in self.streams else None
        by_domain = self.domain_routes.get(domain) if domain else None
        return by_domain or by_stream or self.routes or [self.default_provider()]

    def default_provider(self) -> str:
        """``default``, or the first that is configured."""
        return "default" if "default" in self.providers else next(iter(self.providers))

    def uncertain_policy(self, stream: str) -> OnUncertain:
        return OnUncertain(self.streams[stream].on_uncertain or self.on_uncertain)
