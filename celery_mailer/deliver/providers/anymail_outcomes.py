"""What Anymail's ESPs say, normalised: tables for statuses, HTTP codes, ESPs' own codes and the network.

What an answer is good for. Before the request was handed over, nothing can have been taken: deferred. An
answer of 4xx, 503 or a gateway's "no connection" says that it was not taken (RFC 9110, section 15). 500, 502
and 504 do not: an error may come after the mail was queued, and a gateway does not know what the server
behind it did; nor does silence. They are uncertain, unless a key went along by which the ESP recognises
the repetition (``REMEMBERED``): then they are deferred, of the kind ``no_answer``.
"""

import re
import ssl
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from celery_mailer.deliver.providers.outcomes import error_words, storable
from celery_mailer.values import Kind, Outcome, Phase, Reply

Verdict = tuple[Outcome, Kind]

TAKEN: Verdict = (Outcome.ACCEPTED, Kind.NONE)
DOWN: Verdict = (Outcome.DEFERRED, Kind.CONNECTION)
LATER: Verdict = (Outcome.DEFERRED, Kind.TEMPORARY)
FOR_A_PERSON: Verdict = (Outcome.DEFERRED, Kind.PROVIDER)
TOO_FAST: Verdict = (Outcome.DEFERRED, Kind.THROTTLED)
NOT_SO: Verdict = (Outcome.REJECTED, Kind.CONTENT)
NOT_FROM: Verdict = (Outcome.REJECTED, Kind.SENDER)
NOT_TO: Verdict = (Outcome.REJECTED, Kind.RECIPIENT)
NOT_BUILT: Verdict = (Outcome.REJECTED, Kind.MESSAGE)
UNSURE: Verdict = (Outcome.UNCERTAIN, Kind.NO_ANSWER)
REPEAT: Verdict = (Outcome.DEFERRED, Kind.NO_ANSWER)

# Anymail's status of a recipient (its documentation, "ESP send status"). "unknown" is what an ESP says that
# took the request, but will tell only by events what becomes of whom: to ask again would send twice.
STATUSES: dict[str, Verdict] = {
    "sent": TAKEN,
    "queued": TAKEN,
    "unknown": TAKEN,
    "invalid": NOT_TO,
    "rejected": NOT_TO,
    "failed": NOT_SO,
}

# HTTP status codes (RFC 9110, section 15). 420 is SparkPost's and Mailgun's word for a sending limit,
# 521 to 526 are Cloudflare's, before it had handed the request on.
HTTP: dict[int, Verdict] = {
    401: FOR_A_PERSON,
    402: FOR_A_PERSON,
    403: FOR_A_PERSON,
    404: FOR_A_PERSON,
    405: FOR_A_PERSON,
    407: FOR_A_PERSON,
    408: LATER,
    420: TOO_FAST,
    421: DOWN,
    425: LATER,
    429: TOO_FAST,
    501: FOR_A_PERSON,
    503: DOWN,
    505: FOR_A_PERSON,
    521: DOWN,
    523: DOWN,
    525: DOWN,
    526: DOWN,
}
HTTP_CLASSES: dict[int, Verdict] = {2: UNSURE, 3: FOR_A_PERSON, 4: NOT_SO, 5: UNSURE}

# What an ESP's own code says better than its HTTP status; by Anymail's name of the ESP.
CODES: dict[tuple[str, str], Verdict] = {
    # https://developers.brevo.com/docs/heterogenous-versions-batch-emails: seen before, so not sent again
    ("Brevo", "duplicate_parameter"): TAKEN,
    ("Mailgun", "Mailgun Magnificent API"): FOR_A_PERSON,  # 200, to an address that is none of its API
    # https://mailchimp.com/developer/transactional/docs/error-glossary/: the status is 500 for everything
    ("Mandrill", "Invalid_Key"): FOR_A_PERSON,
    ("Mandrill", "PaymentRequired"): FOR_A_PERSON,
    ("Mandrill", "PoorReputation"): FOR_A_PERSON,
    ("Mandrill", "ServiceUnavailable"): DOWN,
    ("Mandrill", "Unknown_Subaccount"): FOR_A_PERSON,
    ("Mandrill", "Unknown_Template"): NOT_SO,
    ("Mandrill", "ValidationError"): NOT_SO,
    # Postal's API controllers: the status is 200 for everything
    ("Postal", "AccessDenied"): FOR_A_PERSON,
    ("Postal", "AttachmentMissingData"): NOT_SO,
    ("Postal", "AttachmentMissingName"): NOT_SO,
    ("Postal", "FromAddressMissing"): NOT_FROM,
    ("Postal", "InvalidServerAPIKey"): FOR_A_PERSON,
    ("Postal", "NoContent"): NOT_SO,
    ("Postal", "NoRecipients"): NOT_SO,
    ("Postal", "ServerSuspended"): FOR_A_PERSON,
    ("Postal", "TooManyBCCAddresses"): NOT_SO,
    ("Postal", "TooManyCCAddresses"): NOT_SO,
    ("Postal", "TooManyToAddresses"): NOT_SO,
    ("Postal", "UnauthenticatedFromAddress"): NOT_FROM,
    # https://postmarkapp.com/developer/api/overview#error-codes: the status is 422 for nearly everything
    ("Postmark", "10"): FOR_A_PERSON,
    ("Postmark", "100"): DOWN,
    ("Postmark", "400"): NOT_FROM,
    ("Postmark", "401"): NOT_FROM,
    ("Postmark", "405"): FOR_A_PERSON,
    ("Postmark", "412"): FOR_A_PERSON,
    ("Postmark", "413"): FOR_A_PERSON,
    ("Postmark", "429"): TOO_FAST,
    # https://resend.com/docs/api-reference/errors; of a key that came with another payload it is not known
    # what became of it
    ("Resend", "concurrent_idempotent_requests"): REPEAT,
    ("Resend", "invalid_idempotent_request"): UNSURE,
    # https://developers.sparkpost.com/api/transmissions/, "Idempotent Requests": in progress, other payload
    ("SparkPost", "1601"): REPEAT,
    ("SparkPost", "1600"): UNSURE,
}

# https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_SendEmail.html and its "Common Errors"; those in
# capitals are of API_BulkEmailEntryResult.html.
SES_CODES: dict[str, Verdict] = {
    "ACCOUNT_DAILY_QUOTA_EXCEEDED": TOO_FAST,
    "ACCOUNT_SENDING_PAUSED": FOR_A_PERSON,
    "ACCOUNT_SUSPENDED": FOR_A_PERSON,
    "ACCOUNT_THROTTLED": TOO_FAST,
    "CONFIGURATION_SET_NOT_FOUND": FOR_A_PERSON,
    "CONFIGURATION_SET_SENDING_PAUSED": FOR_A_PERSON,
    "FAILED": NOT_SO,
    "INVALID_PARAMETER": NOT_SO,
    "INVALID_SENDING_POOL_NAME": FOR_A_PERSON,
    "MAIL_FROM_DOMAIN_NOT_VERIFIED": NOT_FROM,
    "MESSAGE_REJECTED": NOT_SO,
    "TEMPLATE_NOT_FOUND": NOT_SO,
    "TRANSIENT_FAILURE": LATER,
    "AccessDeniedException": FOR_A_PERSON,
    "AccountSuspendedException": FOR_A_PERSON,
    "BadRequestException": NOT_SO,
    "ExpiredToken": FOR_A_PERSON,
    "ExpiredTokenException": FOR_A_PERSON,
    "IncompleteSignature": FOR_A_PERSON,
    "InvalidClientTokenId": FOR_A_PERSON,
    "InvalidSignatureException": FOR_A_PERSON,
    "LimitExceededException": TOO_FAST,
    "MailFromDomainNotVerifiedException": NOT_FROM,
    "MessageRejected": NOT_SO,
    "MissingAuthenticationToken": FOR_A_PERSON,
    "MissingAuthenticationTokenException": FOR_A_PERSON,
    "NotFoundException": FOR_A_PERSON,
    "OptInRequired": FOR_A_PERSON,
    "RequestExpired": FOR_A_PERSON,
    "SendingPausedException": FOR_A_PERSON,
    "ServiceUnavailable": DOWN,
    "SignatureDoesNotMatch": FOR_A_PERSON,
    "Throttling": TOO_FAST,
    "ThrottlingException": TOO_FAST,
    "TooManyRequestsException": TOO_FAST,
    "UnrecognizedClientException": FOR_A_PERSON,
}

# What requests, urllib3, botocore and the standard library raise before a byte of the request is out.
NETWORK: dict[str, Verdict] = {
    "SSLCertVerificationError": FOR_A_PERSON,
    "ConnectTimeout": DOWN,
    "ConnectTimeoutError": DOWN,
    "ConnectionRefusedError": DOWN,
    "EndpointConnectionError": DOWN,
    "NameResolutionError": DOWN,
    "NewConnectionError": DOWN,
    "ProxyConnectionError": DOWN,
    "ProxyError": DOWN,
    "gaierror": DOWN,
    "CredentialRetrievalError": FOR_A_PERSON,
    "InvalidEndpointDiscoveryConfigurationError": FOR_A_PERSON,
    "InvalidHeader": FOR_A_PERSON,
    "InvalidRegionError": FOR_A_PERSON,
    "InvalidSchema": FOR_A_PERSON,
    "InvalidURL": FOR_A_PERSON,
    "MissingSchema": FOR_A_PERSON,
    "NoCredentialsError": FOR_A_PERSON,
    "NoRegionError": FOR_A_PERSON,
    "PartialCredentialsError": FOR_A_PERSON,
    "ProfileNotFound": FOR_A_PERSON,
    "TokenRetrievalError": FOR_A_PERSON,
    "TooManyRedirects": FOR_A_PERSON,
    "UnicodeEncodeError": FOR_A_PERSON,  # a key that cannot stand in a header
    "ParamValidationError": NOT_BUILT,
}
# OpenSSL's words for a handshake that failed; other TLS faults may come while the answer is awaited.
HANDSHAKE = re.compile(
    r"WRONG_VERSION_NUMBER|UNSUPPORTED_PROTOCOL|ALERT_(PROTOCOL_VERSION|HANDSHAKE_FAILURE)"
)

# How long an ESP recognises the key of a request that it had before; by Anymail's name of the ESP.
REMEMBERED = {
    "Brevo": timedelta(
        minutes=15
    ),  # https://developers.brevo.com/changelog/email-api-now-supports-idempotency
    "Resend": timedelta(hours=24),  # https://resend.com/docs/dashboard/emails/idempotency-keys
    "SparkPost": timedelta(hours=24),  # https://developers.sparkpost.com/api/transmissions/
}
REPEAT_AFTER = timedelta(minutes=1)  # soon, while the key is remembered

LONGEST_PAUSE = timedelta(days=1)  # that we take an ESP's word for


def http_reply(response: Any, esp: str, *, keyed: bool = False) -> Reply:
    """The reply that a ``requests.Response`` of ``esp`` is; ``keyed`` if an idempotency key went along.

    Its text is the ESP's error message alone, as it came: it may repeat a key (see ``scrub``).
    """
    status, body = int(response.status_code), _body(response)
    code = _first(body, "ErrorCode", "name", "code")
    verdict = CODES.get((esp, code)) or HTTP.get(status) or HTTP_CLASSES.get(status // 100, UNSURE)
    words = _first(body, "message", "Message", "ErrorMessage", "error", "description") or str(response.reason)
    text = f"{code}: {words}" if code and code != words else words
    return as_reply(verdict, status, text, pause(response.headers, datetime.now(UTC)), keyed=keyed)


def ses_reply(response: Mapping[str, Any]) -> Reply:
    """The reply that the parsed ``response`` of a botocore ``ClientError`` is, or of a refused bulk email."""
    error, meta = response.get("Error", {}), response.get("ResponseMetadata", {})
    entry = (response.get("BulkEmailEntryResults") or [{}])[0]  # all went the same way
    code, words = error.get("Code") or entry.get("Status", ""), error.get("Message") or entry.get("Error", "")
    status = int(meta.get("HTTPStatusCode") or 0)
    verdict = SES_CODES.get(code) or HTTP.get(status) or HTTP_CLASSES.get(status // 100, UNSURE)
    text = f"{code}: {words}"
    return as_reply(verdict, status or None, text, pause(meta.get("HTTPHeaders", {}), datetime.now(UTC)))


def network_reply(error: BaseException, *, keyed: bool = False) -> Reply:
    """The reply that an exception of requests or botocore stands for, by what lies beneath it."""
    chain = list(_beneath(error))
    names = (kind.__name__ for e in chain for kind in type(e).__mro__)
    verdict = next((NETWORK[name] for name in names if name in NETWORK), None)
    cause = chain[-1]
    if verdict is None and isinstance(cause, ssl.SSLError) and HANDSHAKE.search(str(cause)):
        verdict = DOWN
    known = isinstance(cause, Exception) and type(cause).__module__ in {"builtins", "socket", "ssl"}
    text = error_words(cause) if known else type(error).__name__  # type: ignore[arg-type]
    return as_reply(verdict or UNSURE, None, text, keyed=keyed)


def as_reply(
    verdict: Verdict, status: int | None, text: str, after: timedelta | None = None, *, keyed: bool = False
) -> Reply:
    """``verdict`` as a reply; a doubt that a key takes away becomes a repetition."""
    outcome, kind = REPEAT if keyed and verdict == UNSURE else verdict
    if (outcome, kind) == REPEAT:
        after = after or REPEAT_AFTER
    phase = Phase.CONNECT if status is None and kind == Kind.CONNECTION else None
    return Reply(outcome, kind, phase, status, text, after if outcome == Outcome.DEFERRED else None)


def recipient_reply(status: str, message_id: Any, refusal: Reply | None, *, named: bool) -> Reply:
    """The reply to a recipient of whom Anymail says ``status``.

    ``refusal`` is the whole answer, if that was an error: then who is not refused in person (as ``named``
    others may be) was not sent to either. Postmark refuses a message for one bad address, and so says.
    """
    if refusal is not None and STATUSES[status] != NOT_TO and status not in ("sent", "queued"):
        return replace(refusal, outcome=Outcome.DEFERRED, kind=Kind.TEMPORARY) if named else refusal
    reply = as_reply(STATUSES[status], None, refusal.text if refusal else status)
    return replace(reply, code=refusal.code if refusal else None, message_id=str(message_id or ""))


def scrub(text: str, secrets: Iterable[str]) -> str:
    """``text`` without ``secrets``, as it can be stored."""
    for secret in secrets:
        text = text.replace(secret, "***")
    return storable(text)


def pause(headers: Mapping[str, str], now: datetime) -> timedelta | None:
    """The header Retry-After (RFC 9110, section 10.2.3), in seconds or as a date; at most a day."""
    value = str({name.lower(): value for name, value in headers.items()}.get("retry-after", "")).strip()
    try:
        after = timedelta(seconds=int(value)) if value.isdecimal() else parsedate_to_datetime(value) - now
    except (ValueError, TypeError, OverflowError):
        return LONGEST_PAUSE if value.isdecimal() else None
    return min(max(after, timedelta(0)), LONGEST_PAUSE)


def _beneath(error: BaseException) -> Iterator[BaseException]:
    """``error`` and what it wraps: each library has another place for that."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        wrapped = [
            found.__cause__,
            getattr(found, "reason", None),
            getattr(found, "kwargs", {}).get("error"),
            *found.args,
        ]
        found = next((w for w in wrapped if isinstance(w, BaseException) and id(w) not in seen), None)


def _body(response: Any) -> Any:
    try:
        return response.json()
    except ValueError:
        return {"code": response.text.strip()[:40]} if response.text else {}


def _first(body: Any, *names: str) -> str:
    """The first of ``names`` that ``body`` has, or what ESPs wrap it in."""
    for layer in _layers(body):
        if isinstance(layer, str):
            return layer
        for name in names:
            if isinstance(layer.get(name), str | int) and layer[name] != "":
                return str(layer[name])
    return ""


def _layers(body: Any) -> Iterator[Any]:
    if isinstance(body, list):
        body = body[0] if body else {}
    if isinstance(body, str):
        yield body
    if isinstance(body, dict):
        yield body
        for name in ("data", "errors", "Messages", "Errors"):
            if isinstance(body.get(name), dict | list):
                yield from _layers(body[name])
