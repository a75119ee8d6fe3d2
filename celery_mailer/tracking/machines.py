"""Which opens and clicks are not by people.

What fetches every picture and follows every link before anybody reads the mail: scanners of mail gateways,
prefetchers of mail clients, bots. A proxy that fetches a picture when its user opens the mail (Google's,
Yahoo's) is as good as a person.
"""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import lru_cache

AT_ONCE = timedelta(seconds=5)  # after a mail was handed over nobody has found, opened and read it
_PURPOSES = ("HTTP_PURPOSE", "HTTP_X_PURPOSE", "HTTP_SEC_PURPOSE", "HTTP_X_MOZ")
_PREFETCHING = re.compile(r"prefetch|preview|prerender", re.IGNORECASE)
_PROXY = re.compile(r"GoogleImageProxy|YahooMailProxy")
# "CUBOT" makes phones.
_MACHINE = re.compile(
    r"(?<!cu)bot\b|crawl|spider|scan|preview|headless|monitor|validator|barracuda|mimecast|proofpoint|symantec"
    r"|facebookexternalhit|python|curl/|wget|okhttp|java/|go-http-client|libwww|httpclient|node-fetch|axios",
    re.IGNORECASE,
)
_MAIL_PRIVACY_PROTECTION = "Mozilla/5.0"  # nothing more: Apple's servers, which fetch what was not opened


def is_machine(meta: Mapping[str, str]) -> bool:
    """Whether a request with this ``META`` says of itself that no person made it."""
    if meta.get("REQUEST_METHOD") == "HEAD" or _is_one_of_theirs(meta.get("HTTP_USER_AGENT", "")):
        return True
    return any(_PREFETCHING.search(meta[name]) for name in _PURPOSES if name in meta)


@lru_cache(maxsize=1024)
def _is_one_of_theirs(agent: str) -> bool:
    agent = agent.strip()
    if agent in ("", _MAIL_PRIVACY_PROTECTION):
        return True
    return _PROXY.search(agent) is None and _MACHINE.search(agent) is not None


def is_too_soon(at: datetime, sent_at: datetime | None) -> bool:
    """Whether a mail that was handed over at ``sent_at`` cannot have been read by a person."""
    return sent_at is not None and at < sent_at + AT_ONCE
