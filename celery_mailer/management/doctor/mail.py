"""The way out: whether providers let us in, what is stopped, and what waits for too long."""

from collections.abc import Iterator
from contextlib import suppress

from django.utils import timezone

from celery_mailer import census, conf
from celery_mailer.deliver import providers
from celery_mailer.deliver.providers.outcomes import error_words
from celery_mailer.management.doctor.finding import Finding, fault, warning
from celery_mailer.models import Pause, ProviderState
from celery_mailer.models.provider import State
from celery_mailer.values import Kind, Phase, Reply

PATIENCE = 10.0  # seconds for all that a provider says
TOO_LONG = 300.0  # seconds


def logins() -> Iterator[Finding]:
    """Whether each provider lets us connect and log in, where it has that. Nothing is sent."""
    for alias in conf.get().providers:
        name = f"CELERY_MAILER['PROVIDERS'][{alias!r}]"
        try:
            reply = providers.get(alias).open(PATIENCE)
        except Exception as error:  # a class that does not import, options that it refuses
            yield fault(f"The provider {alias} cannot be used: {error_words(error)}", f"Mend {name}.")
            continue
        finally:
            with suppress(Exception):
                providers.close(alias)
        if reply is not None:
            yield fault(f"The provider {alias} {_what(reply)}: {_said(reply)}", f"{_cure(reply)} {name}.")


def _what(reply: Reply) -> str:
    if reply.phase == Phase.LOGIN:
        return "refuses the login"
    return "cannot be reached" if reply.kind == Kind.CONNECTION else "cannot be used"


def _said(reply: Reply) -> str:
    return " ".join(str(word) for word in (reply.code, reply.text) if word)


def _cure(reply: Reply) -> str:
    if reply.phase == Phase.LOGIN:
        return "Mend the user and the password in"
    if reply.kind == Kind.CONNECTION:
        return "Let this host reach it (firewall, DNS, TLS), or mend the host and the port in"
    return "Mend"


def stopped() -> Iterator[Finding]:
    """What people have paused, and providers that are left alone because they failed."""
    now = timezone.now()
    for pause in Pause.objects.order_by("kind", "name"):
        if pause.holds(now):
            yield warning(
                f"The {pause} is paused since {timezone.localtime(pause.created_at):%Y-%m-%d %H:%M}.",
                f"manage.py mailer_resume {pause.kind} {pause.name}",
            )
    for row in ProviderState.objects.filter(alias__in=conf.get().providers).exclude(state=State.CLOSED):
        yield warning(
            f"The provider {row.alias} is left alone ({row.kind}): {row.text}",
            f"Mend it, then manage.py mailer_resume provider {row.alias}",
        )


def backlog() -> Iterator[Finding]:
    """Mail that could go and does not, whatever the cause."""
    for lane, age in census.oldest_due(timezone.now()).items():
        if age > TOO_LONG:
            yield warning(
                f"Mail of the lane {lane} has waited for {age / 60:,.0f} minutes.",
                "If nothing else is found here: more workers for its queue, or a higher RATE_LIMIT.",
            )
