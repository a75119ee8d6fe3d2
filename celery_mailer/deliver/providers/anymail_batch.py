"""Several whole messages in one call of an ESP's HTTP API, each with an answer of its own.

Anymail's own batch sending makes one message of a template at the ESP, which fills in what differs. Ours
are rendered already, and each has its own body, headers and unsubscribe link; that a template with the
ESP's substitutions came to the same bytes could not be proved. So each message's payload is built by
Anymail exactly as for a call of its own, and goes as it is into the array that two of its ESPs take.
Mailgun, SES, SendGrid, SparkPost, Mandrill and Brevo only take variations of one message; MailerSend's
bulk call answers before it has looked at the messages, without ids. Mailtrap and Mailjet take whole
messages, but in other forms than for one: what goes in would not be what Anymail builds.

Measured, at 50 ms for an answer: a slice of 100 by single calls took 5.4 s, in calls of 20 it took 0.3 s.
Resend limits the calls per second, whatever is in them.

An ESP's key against repetition covers a whole call. No other call will ever hold the same emails, so an
unanswered one is repeated at once, and once, under its key; if that stays unanswered too, its emails are
uncertain. For the same reason an email that was tried before goes alone: its ESP may know its own key.
"""

import json
import time
import uuid
from collections.abc import Callable, Generator, Iterator
from copy import copy
from dataclasses import dataclass, field, replace
from itertools import islice, takewhile
from typing import Any
from urllib.parse import urljoin

from anymail.backends.base_requests import AnymailRequestsBackend
from anymail.message import AnymailStatus
from celery.exceptions import SoftTimeLimitExceeded

from celery_mailer.deliver.providers import anymail_outcomes as outcomes
from celery_mailer.deliver.providers.anymail import CANCELLED, AnymailProvider, repetition_key
from celery_mailer.deliver.providers.contract import Parcel
from celery_mailer.deliver.providers.recipients import keep_only
from celery_mailer.values import Kind, Outcome, Reply, Result, everyone

AT_ONCE = 20  # parcels: as many as may be under way; what is drawn beyond that is composed in vain
LONGEST = 10 * 10**6  # bytes of one call; Postmark takes five times as many, Resend does not say


@dataclass(frozen=True, slots=True)
class Api:
    """An ESP's call for several messages; ``single`` is the path of that for one, which takes the same.

    ``parts`` splits an answer to so many messages into (HTTP status, body) of each, as if it had come alone.
    """

    single: str
    path: str
    most: int  # messages in one call
    parts: Callable[[Any, int], list[tuple[int, Any]]]
    headers: dict[str, str] = field(default_factory=dict)
    leaves_out: frozenset[str] = frozenset()  # fields that only the single call takes


def _postmark(body: Any, number: int) -> list[tuple[int, Any]]:
    return [(422 if one.get("ErrorCode") else 200, one) for one in body]


def _resend(body: Any, number: int) -> list[tuple[int, Any]]:
    refused = {int(error["index"]): error for error in body.get("errors") or ()}
    taken = iter(body["data"])
    parts = [(422, refused[i]) if i in refused else (200, next(taken)) for i in range(number)]
    return parts + [(200, unasked) for unasked in taken]


# By Anymail's name of the ESP.
APIS = {
    # https://postmarkapp.com/developer/user-guide/send-email-with-api/batch-emails
    "Postmark": Api("email", "email/batch", 500, _postmark),
    # https://resend.com/docs/api-reference/emails/send-batch-emails and
    # https://resend.com/changelog/batch-validation-modes
    "Resend": Api(
        "emails",
        "emails/batch",
        100,
        _resend,
        {"x-batch-validation": "permissive"},
        frozenset({"attachments", "scheduled_at"}),
    ),
}


def provider_class(backend: Any) -> type[AnymailProvider]:
    """The provider for one of Anymail's backends; one that sends in its own way keeps to that."""
    kind = type(backend)
    as_anymail = all(
        getattr(kind, name, None) is getattr(AnymailRequestsBackend, name)
        for name in ("send_messages", "_send", "post_to_esp")
    )
    return BatchProvider if as_anymail and backend.esp_name in APIS else AnymailProvider


@dataclass(slots=True, eq=False)
class _Item:
    """A parcel with what Anymail makes of it, or why it cannot be handed over."""

    parcel: Parcel
    payload: Any = None
    request: dict[str, Any] = field(default_factory=dict)  # keyword arguments of ``requests``
    fault: Reply | None = None


class BatchProvider(AnymailProvider):
    """A provider that puts what it is given together, into as few calls as may be."""

    def send_many(self, parcels: Iterator[Parcel], timeout: float) -> Generator[Result]:
        while items := [self._prepare(parcel) for parcel in islice(parcels, AT_ONCE)]:
            for call in self._calls(items):
                begun = list(takewhile(lambda item: item.fault or item.parcel.begin(), call))
                usable = True
                for result in self._results(begun, timeout):
                    usable = usable and result.usable
                    yield result
                if len(begun) < len(call) or not usable or not self._wear.fit or not self._backend.session:
                    return

    def _prepare(self, parcel: Parcel) -> _Item:
        backend, message = self._backend, parcel.built
        self._posting = False
        try:
            keep_only(set(parcel.recipients), message)
            vars(message)["anymail_status"] = AnymailStatus()
            if not backend.run_pre_send(message):
                return _Item(parcel, fault=CANCELLED)
            payload = backend.build_message_payload(message, backend.send_defaults)
            return _Item(parcel, payload, payload.get_request_params(backend.api_url))
        except SoftTimeLimitExceeded:
            raise
        except Exception as error:
            return _Item(parcel, fault=self._failure(error, keyed=False))

    def _calls(self, items: list[_Item]) -> Iterator[list[_Item]]:
        """``items`` in their order, cut to what goes into one call."""
        call: list[_Item] = []
        size, common = 0, None
        for item in items:
            shared, length = self._shared(item), len(item.request.get("data") or "")
            full = len(call) == APIS[self._esp].most or size + length > LONGEST
            if call and (full or shared is None or shared != common):
                yield call
                call, size = [], 0
            call.append(item)
            size, common = size + length, shared
        if call:
            yield call

    def _shared(self, item: _Item) -> object | None:
        """What messages of one call have in common, key and all; ``None`` of one that goes alone."""
        if item.fault is not None or getattr(item.parcel.built, "tried_before", False):
            return None
        api = APIS[self._esp]
        if item.payload.get_api_endpoint() != api.single or api.leaves_out & item.payload.data.keys():
            return None
        return sorted(item.request["headers"].items())

    def _results(self, items: list[_Item], timeout: float) -> Iterator[Result]:
        deadline = time.monotonic() + timeout
        if len(items) < 2:
            yield from (self._alone(item, timeout) for item in items)
            return
        answer = self._call(items, deadline)
        if isinstance(answer, list):
            for item, part in zip(items, answer, strict=True):
                yield self._heard(item, part)
        elif answer.outcome == Outcome.REJECTED:
            yield from self._one_by_one(items, answer, deadline)
        else:
            usable = self._judge(everyone(items[0].parcel.recipients, answer)).usable
            yield from (everyone(item.parcel.recipients, answer, usable=usable) for item in items)

    def _one_by_one(self, items: list[_Item], refusal: Reply, deadline: float) -> Iterator[Result]:
        """After a call was refused, perhaps for one of its messages: nobody has been sent anything."""
        later = replace(refusal, outcome=Outcome.DEFERRED, kind=Kind.TEMPORARY)
        usable = True
        for item in items:
            left = deadline - time.monotonic()
            usable = usable and self.open(max(left, 0.1)) is None
            if usable and left > 0:
                result = self._alone(item, left)
                usable = result.usable
            else:
                result = everyone(item.parcel.recipients, later, usable=usable)
            yield result

    def _alone(self, item: _Item, timeout: float) -> Result:
        message, recipients = item.parcel.built, item.parcel.recipients
        if item.fault is not None:
            return self._judge(everyone(recipients, self._clean(item.fault)))
        self._limit(timeout)
        with self._key(message, recipients) as keyed:
            return self._heard(item, keyed=keyed)

    def _heard(self, item: _Item, answer: Any = None, *, keyed: bool = False) -> Result:
        """What ``answer``, else that to a call of its own, comes to, as in ``AnymailBaseBackend._send``."""
        backend, message, payload = self._backend, item.parcel.built, item.payload
        status: Any = vars(message)["anymail_status"]
        self._posting = True
        try:
            response = answer if answer is not None else self._post(payload, message)
            status.esp_response = response
            backend.raise_for_status(response, payload, message)
            status.set_recipient_status(backend.parse_recipient_status(response, payload, message))
            backend.run_post_send(message)
            backend.raise_for_recipient_status(status, response, payload, message)
            reply = Reply(Outcome.ACCEPTED)
        except SoftTimeLimitExceeded:
            self.close()
            raise
        except Exception as error:
            reply = self._failure(error, keyed)
        self._wear.used()
        return self._judge(self._told(message, item.parcel.recipients, reply))

    def _call(self, items: list[_Item], deadline: float) -> list[Any] | Reply:
        """The answer to each of ``items``, or one that says that there is none, and why."""
        key = self._common_key(items)
        answer = self._post_all(items, key, deadline)
        if isinstance(answer, list) or answer.kind != Kind.NO_ANSWER:
            return answer
        if key is not None and time.monotonic() < deadline:
            again = self._post_all(items, key, deadline)
            if isinstance(again, list):
                return again  # any other answer leaves open what became of the first
        return replace(answer, outcome=Outcome.UNCERTAIN, retry_after=None)

    def _common_key(self, items: list[_Item]) -> str | None:
        if self._esp not in outcomes.REMEMBERED:
            return None
        keys = [repetition_key(item.parcel.built, item.parcel.recipients) for item in items]
        return str(uuid.uuid5(uuid.NAMESPACE_OID, "\n".join(map(str, keys)))) if all(keys) else None

    def _post_all(self, items: list[_Item], key: str | None, deadline: float) -> list[Any] | Reply:
        api, backend = APIS[self._esp], self._backend
        headers = items[0].request["headers"] | api.headers | ({"Idempotency-Key": key} if key else {})
        body = f"[{','.join(item.request['data'] for item in items)}]"
        self._limit(max(deadline - time.monotonic(), 0.1))
        try:
            url = urljoin(backend.api_url, api.path)
            response = backend.session.post(url, data=body, headers=headers, timeout=backend.timeout)
        except SoftTimeLimitExceeded:
            self.close()
            raise
        except Exception as error:
            return self._clean(outcomes.network_reply(error))
        if response.status_code // 100 != 2:
            return self._clean(outcomes.http_reply(response, self._esp))
        try:
            parts = api.parts(response.json(), len(items))
        except (AttributeError, KeyError, StopIteration, TypeError, ValueError):
            parts = []
        if len(parts) != len(items):
            return outcomes.as_reply(outcomes.UNSURE, response.status_code, "not one answer for each message")
        return [_as_alone(response, status, part) for status, part in parts]


def _as_alone(response: Any, status: int, body: Any) -> Any:
    """``response`` as if it had answered to one message only."""
    alone = copy(response)
    alone.status_code, alone._content = status, json.dumps(body).encode()
    return alone
