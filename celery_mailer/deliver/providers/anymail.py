"""An ESP's HTTP API by a backend of django-anymail, with what its count leaves out: who, why, under which id.

Anymail's exceptions hold the API key and the whole message, and can be pickled with both: they are turned
into values here, and go no further.
"""

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from anymail import exceptions as anymail
from celery.exceptions import SoftTimeLimitExceeded
from django.core.exceptions import ImproperlyConfigured
from django.core.mail import EmailMessage
from django.db import DatabaseError

from celery_mailer import options
from celery_mailer.addresses import bare
from celery_mailer.deliver.providers import anymail_outcomes as outcomes
from celery_mailer.deliver.providers import returning
from celery_mailer.deliver.providers.outcomes import error_words
from celery_mailer.deliver.providers.recipients import keep_only
from celery_mailer.deliver.providers.wear import Wear
from celery_mailer.values import EMAIL_ID, Kind, Outcome, Reply, Result, everyone, summarise

TIMEOUT = 30.0  # seconds to connect, and for each read of the answer, unless the backend has its own

# About the provider, not about one email: the next would fare no better.
_STOPS = {Kind.CONNECTION, Kind.PROVIDER, Kind.THROTTLED}

CANCELLED = outcomes.as_reply(outcomes.NOT_BUILT, None, "a receiver of Anymail's pre_send cancelled it")
# The ESPs whose events bring metadata back.
TELL_METADATA = frozenset({
    "Amazon SES", "Brevo", "Mailgun", "Mailjet", "Mailtrap", "Mandrill", "Postmark", "Resend", "SendGrid",
    "SparkPost", "Unisender Go",
})  # fmt: skip

_UNFIT = (
    anymail.AnymailInvalidAddress,
    anymail.AnymailSerializationError,
    anymail.AnymailUnsupportedFeature,
)


class AnymailProvider:
    """A provider over an Anymail backend, whose session stays open between emails and tasks."""

    def __init__(self, alias: str, backend: Any, rules: options.Provider) -> None:
        self.alias = alias
        self._backend = backend
        self._backend.fail_silently = False  # else it keeps the reason to itself
        self._post, self._backend.post_to_esp = backend.post_to_esp, self._note_and_post
        self._posting = False
        self._esp = str(backend.esp_name)
        self._timeout = getattr(backend, "timeout", None) or TIMEOUT
        self._client_params = getattr(backend, "client_params", None)
        self._secrets = sorted(_secrets(vars(backend)), key=len, reverse=True)
        self._return_path = rules.return_path if self._esp in returning.ESPS else None
        self._wear = Wear(rules)
        self._unanswered = 0  # emails in a row of which nobody knows what became

    def open(self, timeout: float) -> Reply | None:
        if not self._wear.fit:
            self.close()
        self._limit(timeout)
        try:
            if self._backend.open():
                self._wear.renewed()
        except SoftTimeLimitExceeded:
            raise
        except Exception as error:
            self.close()
            return self._clean(outcomes.as_reply(outcomes.FOR_A_PERSON, None, _words(error)))
        return None

    def send(self, message: EmailMessage, recipients: list[str], timeout: float) -> Result:
        self._limit(timeout)
        self._posting = False
        try:
            with self._key(message, recipients) as keyed:
                answer = self._hand_over(message, set(recipients), keyed)
        except SoftTimeLimitExceeded:
            self.close()  # the answer may still come on that line
            raise
        self._wear.used()
        return self._judge(self._told(message, recipients, answer))

    def _told(self, message: EmailMessage, recipients: list[str], answer: Reply) -> Result:
        statuses = getattr(message, "anymail_status", None)
        if statuses is not None and statuses.recipients:
            # Whatever was raised after that, by a receiver of ``post_send`` for one: the ESP has answered.
            return self._by_status(statuses, recipients)
        return everyone(recipients, self._clean(answer))

    def _hand_over(self, message: EmailMessage, wanted: set[str], keyed: bool) -> Reply:
        try:
            keep_only(wanted, message)
            if self._esp in TELL_METADATA:
                _name(message)
            if own := returning.return_path(self._return_path, message):
                vars(message)["envelope_sender"] = own
            if self._backend.send_messages([message]):
                return Reply(Outcome.ACCEPTED)
        except SoftTimeLimitExceeded:
            raise
        except Exception as error:
            return self._failure(error, keyed)
        if self._posting:
            return outcomes.as_reply(outcomes.UNSURE, None, "the backend did not count it", keyed=keyed)
        return CANCELLED

    def _note_and_post(self, payload: Any, message: EmailMessage) -> Any:
        self._posting = True
        return self._post(payload, message)

    def _failure(self, error: Exception, keyed: bool) -> Reply:
        if isinstance(error, anymail.AnymailError):
            return self._anymail_failure(error, keyed)
        if isinstance(error, ImproperlyConfigured):
            return outcomes.as_reply(outcomes.FOR_A_PERSON, None, _words(error))
        if self._posting:
            return outcomes.network_reply(error, keyed=keyed)
        # The message could not be put into the ESP's form, or a receiver of ``pre_send`` has failed.
        later = isinstance(error, OSError | DatabaseError)
        return outcomes.as_reply(outcomes.LATER if later else outcomes.NOT_BUILT, None, error_words(error))

    def _anymail_failure(self, error: anymail.AnymailError, keyed: bool) -> Reply:
        if isinstance(error, _UNFIT):
            return outcomes.as_reply(outcomes.NOT_BUILT, None, _words(error))
        if isinstance(error.response, Mapping):
            return outcomes.ses_reply(error.response)
        if error.response is not None:
            return outcomes.http_reply(error.response, self._esp, keyed=keyed)
        if error.__cause__ is not None:
            return outcomes.network_reply(error.__cause__, keyed=keyed)
        # An answer that makes no sense, or one of Anymail's own checks before the request.
        answered = isinstance(error, anymail.AnymailAPIError)
        verdict = outcomes.UNSURE if answered else outcomes.NOT_BUILT
        return outcomes.as_reply(
            verdict, None, type(error).__name__ if answered else _words(error), keyed=keyed
        )

    def _by_status(self, statuses: Any, recipients: list[str]) -> Result:
        found = {_folded(address): status for address, status in statuses.recipients.items()}
        answer, refusal = statuses.esp_response, None
        if int(getattr(answer, "status_code", 200)) >= 400:
            refusal = self._clean(outcomes.http_reply(answer, self._esp))
        named = any(outcomes.STATUSES[s.status] == outcomes.NOT_TO for s in found.values())
        replies = {}
        for recipient in recipients:
            status = found.get(_folded(recipient))
            said, message_id = (status.status, status.message_id) if status else ("unknown", "")
            replies[recipient] = outcomes.recipient_reply(said, message_id, refusal, named=named)
        return summarise(replies)

    def _judge(self, result: Result) -> Result:
        """Add whether to try the next email: silence must come twice in a row to blame the provider."""
        kinds = {reply.kind for reply in result.recipients.values()}
        self._unanswered = self._unanswered + 1 if Kind.NO_ANSWER in kinds else 0
        if kinds & {Kind.NO_ANSWER, Kind.CONNECTION}:
            self.close()
        return replace(result, usable=not (kinds <= _STOPS or self._unanswered > 1))

    @contextmanager
    def _key(self, message: EmailMessage, recipients: list[str]) -> Iterator[bool]:
        """Let a key go along by which the ESP recognises the repetition; yields whether one does."""
        key = repetition_key(message, recipients) if self._esp in outcomes.REMEMBERED else None
        if key is None:
            yield False
        elif self._esp == "Brevo":  # which has it among the email's headers, and does not send it on
            message.extra_headers = {"idempotencyKey": key, **message.extra_headers}
            yield True
        else:
            headers = self._backend.session.headers
            headers["Idempotency-Key"] = key
            try:
                yield True
            finally:
                headers.pop("Idempotency-Key", None)

    def _limit(self, timeout: float) -> None:
        if self._client_params is not None:
            self._backend.client_params = _patient_client(self._client_params, min(TIMEOUT, timeout))
        elif isinstance(self._timeout, tuple):
            self._backend.timeout = tuple(min(seconds or timeout, timeout) for seconds in self._timeout)
        else:
            self._backend.timeout = min(self._timeout, timeout)

    def _clean(self, reply: Reply) -> Reply:
        return replace(reply, text=outcomes.scrub(reply.text, self._secrets))

    def close(self) -> None:
        with suppress(Exception):
            self._backend.close()

    def abandon(self) -> None:
        for name in ("session", "client"):
            if hasattr(self._backend, name):
                setattr(self._backend, name, None)


def _patient_client(params: dict[str, Any], timeout: float) -> dict[str, Any]:
    """SES's ``client_params``, with timeouts, and without botocore's own repetitions: after a silence they
    would send twice without a record. What the project has set itself stands."""
    from botocore.config import Config

    ours = Config(connect_timeout=timeout, read_timeout=timeout, retries={"total_max_attempts": 1})
    return {**params, "config": ours.merge(params["config"]) if "config" in params else ours}


def repetition_key(message: EmailMessage, recipients: list[str]) -> str | None:
    """The same for each attempt of an email at the same recipients, as a UUID, which is what Brevo wants."""
    headers = {name.lower(): value for name, value in message.extra_headers.items()}
    identity = getattr(message, "email_id", None) or headers.get("message-id")
    if not identity:
        return None
    return str(uuid.uuid5(uuid.NAMESPACE_OID, "\n".join([str(identity), *sorted(recipients)])))


def _name(message: EmailMessage) -> None:
    """Have the ESP's events name our email, also where its own id of it was lost with the answer."""
    if email_id := getattr(message, "email_id", None):
        metadata = {**(getattr(message, "metadata", None) or {}), EMAIL_ID: str(email_id)}
        vars(message)["metadata"] = metadata


def _folded(address: str) -> str:
    """An address as it is compared: ESPs repeat them in lower case, and domains in either script."""
    with suppress(ValueError):
        address = bare(address)
    return address.lower()


def _words(error: Exception) -> str:
    """What Anymail says itself: ``str(error)`` would add the ESP's whole answer."""
    return f"{type(error).__name__}: {error.args[0]}" if error.args else type(error).__name__


def _secrets(options: Mapping[str, Any]) -> Iterator[str]:
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from _secrets(value)
        elif (
            isinstance(value, str)
            and len(value) > 3
            and {"key", "token", "secret", "password"} & {*name.split("_")}
        ):
            yield value
