"""A provider in one line, as the environment holds it: ``smtp+tls://user:pass@mail.example.com:587``.

``SCHEMES`` is the whole grammar. The parts of an address are percent-decoded (RFC 3986, section 2.1), so a
"/" in a secret is written ``%2F``. No error repeats any part of an address: all of it may be secret.
"""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from django.views.decorators.debug import sensitive_variables


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise ValueError
    return seconds


def _flag(text: str) -> bool:
    return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[text.lower()]


Convert = Callable[[str], Any]


@dataclass(frozen=True)
class Scheme:
    """What the parts of an address are to a backend; an option's name, or nothing where none may stand.

    ``user`` also takes what stands alone (``resend://key``), unless there is a ``host``. ``required``
    are the options without which nothing can be sent.
    """

    backend: str
    user: str = ""
    password: str = ""
    host: str = ""
    path: str = ""
    required: tuple[str, ...] = ()
    query: Mapping[str, Convert] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    finish: Callable[[dict[str, Any]], dict[str, Any]] = dict  # from these options to the backend's


def _api_url(options: dict[str, Any]) -> dict[str, Any]:
    """``api_url`` out of a host and a path."""
    path = options.pop("path", "")
    return {**options, "api_url": f"https://{options['api_url']}{path}"} if "api_url" in options else options


def _ses(options: dict[str, Any]) -> dict[str, Any]:
    """What boto3 takes goes to its client; what is not given, it finds in its own environment."""
    ours = {"configuration_set_name", "message_tag_name"}
    client = {name: value for name, value in options.items() if name not in ours}
    rest = {name: value for name, value in options.items() if name in ours}
    return {**rest, "client_params": client} if client else rest


_ESP: dict[str, Convert] = {
    "api_url": str,
    "ignore_unsupported_features": _flag,
    "timeout": _seconds,
}


def _esp(module: str, user: str, query: tuple[str, ...] = (), **parts: Any) -> Scheme:
    """An ESP of django-anymail, whose key is ``user``."""
    backend = f"anymail.backends.{module}.EmailBackend"
    required = parts.pop("required", (user,))
    return Scheme(backend, user, query={**_ESP, **dict.fromkeys(query, str)}, required=required, **parts)


def _smtp(port: int, **fixed: Any) -> Scheme:
    return Scheme(
        "django.core.mail.backends.smtp.EmailBackend",
        user="username",
        password="password",  # noqa: S106 the option's name
        host="host",
        required=("host",),
        query={"timeout": _seconds, "ssl_keyfile": str, "ssl_certfile": str},
        fixed={"port": port, **fixed},
    )


# The ports are RFC 6409's and RFC 8314's.
SCHEMES: dict[str, Scheme] = {
    "smtp": _smtp(25),
    "smtp+tls": _smtp(587, use_tls=True),
    "smtps": _smtp(465, use_ssl=True),
    "brevo": _esp("brevo", "api_key"),
    "mailersend": _esp("mailersend", "api_token", ("batch_send_mode",)),
    "mailgun": _esp("mailgun", "api_key", host="sender_domain"),
    "mailjet": _esp("mailjet", "api_key", password="secret_key", required=("api_key", "secret_key")),  # noqa: S106
    "mailtrap": _esp("mailtrap", "api_token", ("sandbox_id",)),
    "mandrill": _esp("mandrill", "api_key"),
    "postal": _esp("postal", "api_key", host="api_url", required=("api_key", "api_url"), finish=_api_url),
    "postmark": _esp("postmark", "server_token", ("message_stream",)),
    "resend": _esp("resend", "api_key"),
    "scaleway": _esp(
        "scaleway", "secret_key", ("region",), host="project_id", required=("secret_key", "project_id")
    ),
    "sendgrid": _esp("sendgrid", "api_key"),
    "ses": Scheme(
        "anymail.backends.amazon_ses.EmailBackend",
        user="aws_access_key_id",
        password="aws_secret_access_key",  # noqa: S106
        host="region_name",
        query=dict.fromkeys(
            ("aws_session_token", "configuration_set_name", "endpoint_url", "message_tag_name"), str
        ),
        finish=_ses,
    ),
    "sparkpost": _esp("sparkpost", "api_key", ("subaccount",)),
    "unisender-go": _esp(
        "unisender_go",
        "api_key",
        host="api_url",
        path="path",
        required=("api_key", "api_url"),
        finish=_api_url,
    ),
    "capture": Scheme("celery_mailer.deliver.providers.capture.EmailBackend"),
    "console": Scheme("django.core.mail.backends.console.EmailBackend"),
    "file": Scheme(
        "django.core.mail.backends.filebased.EmailBackend", path="file_path", required=("file_path",)
    ),
    "simulator": Scheme("celery_mailer.deliver.providers.simulator.EmailBackend", query={"slow": _seconds}),
}


_ESCAPE = "write special characters inside a secret as %XX: / as %2F, # as %23, : as %3A, ? as %3F."


@sensitive_variables()
def parse(url: str) -> dict[str, Any]:
    """The entry of ``PROVIDERS`` that ``url`` stands for: ``{"BACKEND": …, "OPTIONS": {…}}``.

    Raises ``ValueError`` that says what is wrong, without a word of the address.
    """
    try:
        parts = urlsplit(url.strip())
    except ValueError:
        raise ValueError(f"is not an address; {_ESCAPE}") from None
    scheme = _scheme(parts.scheme, url)
    options = {**scheme.fixed, **_authority(scheme, parts), **_query(scheme, parts.query)}
    missing = [name for name in scheme.required if not options.get(name)]
    if missing:
        raise ValueError(f"does not say the {parts.scheme} provider's {' and '.join(missing)}.")
    return {"BACKEND": scheme.backend, "OPTIONS": scheme.finish(options)}


def _scheme(name: str, url: str) -> Scheme:
    if name in SCHEMES and url.strip()[len(name) :].startswith("://"):
        return SCHEMES[name]
    near = difflib.get_close_matches(name, SCHEMES, n=1)
    hint = f"Did you mean {near[0]}://?" if near else f"Known: {', '.join(f'{s}://' for s in SCHEMES)}."
    raise ValueError(f"does not begin with a known scheme. {hint}")


@sensitive_variables()
def _authority(scheme: Scheme, parts: SplitResult) -> dict[str, Any]:
    """The options before the query."""
    user, password, host = _login_and_host(scheme, parts.netloc)
    options: dict[str, Any] = {}
    if "port" in scheme.fixed:
        host, port = _host_and_port(parts)
        options = {"port": port} if port else {}
    path = parts.path if parts.path != "/" else ""
    if parts.fragment or (path and not scheme.path):
        raise ValueError(f"has something after the host; {_ESCAPE}")
    for part, value in {"user": user, "password": password, "host": host, "path": path}.items():
        if value and not getattr(scheme, part):
            raise ValueError(f"has a {part}, which this provider does not take.")
        if value:
            options[getattr(scheme, part)] = unquote(value)
    return options


@sensitive_variables()
def _login_and_host(scheme: Scheme, netloc: str) -> tuple[str, str, str]:
    """User, password and host, cut out by hand: what stands for a host may be a key, which keeps its case."""
    login, at, host = netloc.rpartition("@")
    if scheme.user and not scheme.host and not at:
        login, host = host, ""
    if scheme.user and not at and ":" in host and "port" not in scheme.fixed:
        raise ValueError(f"has a login without an @ after it; {_ESCAPE}")
    user, colon, password = login.partition(":")
    if colon and not (user and password):
        raise ValueError("has half a login; give both parts, or neither.")
    return user, password, host


@sensitive_variables()
def _host_and_port(parts: SplitResult) -> tuple[str, int | None]:
    try:
        return parts.hostname or "", parts.port
    except ValueError:
        raise ValueError(f"has no valid port; {_ESCAPE}") from None


@sensitive_variables()
def _query(scheme: Scheme, query: str) -> dict[str, Any]:
    options = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in scheme.query:
            known = ", ".join(scheme.query) or "none"
            near = difflib.get_close_matches(name, scheme.query, n=1)
            raise ValueError(
                "has an unknown option. " + (f"Did you mean {near[0]!r}?" if near else f"Known: {known}.")
            )
        try:
            options[name] = scheme.query[name](value)
        except (ValueError, KeyError):
            raise ValueError(f"has a wrong value for {name!r}.") from None
    return options
