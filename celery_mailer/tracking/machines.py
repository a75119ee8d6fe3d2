"""Which opens and clicks are not by people.

What fetches every picture and follows every link before anybody reads the mail: scanners of mail gateways,
prefetchers of mail clients, bots. A proxy that fetches a picture when its user opens the mail (Google's,
Yahoo's) is as good as a person.
"""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta

AT_ONCE = timedelta(seconds=5)  # after a mail was handed over nobody has found, opened and read it
_PURPOSES = ("Purpose", "X-Purpose", "Sec-Purpose", "X-Moz")
_PREFETCHING = re.compile(r"prefetch|preview|prerender", re.IGNORECASE)
_PROXY = re.compile(r"GoogleImageProxy|YahooMailProxy")
_MACHINE = re.compile(
    r"bot\b|crawl|spider|scan|preview|headless|monitor|validator|barracuda|mimecast|proofpoint|symantec"
    r"|facebookexternalhit|python|curl/|wget|okhttp|java/|go-http-client|libwww|httpclient|node-fetch|axios",
    re.IGNORECASE,
)
_MAIL_PRIVACY_PROTECTION = "Mozilla/5.0"  # nothing more: Apple's servers, which fetch what was not opened


def is_machine(method: str, headers: Mapping[str, str]) -> bool:
    """Whether a request with ``headers`` says of itself that no person made it."""
    agent = headers.get("User-Agent", "").strip()
    if method == "HEAD" or agent in ("", _MAIL_PRIVACY_PROTECTION):
        return True
    if any(_PREFETCHING.search(headers.get(name, "")) for name in _PURPOSES):
        return True
    return _PROXY.search(agent) is None and _MACHINE.search(agent) is not None


def is_too_soon(at: datetime, sent_at: datetime | None) -> bool:
    """Whether a mail that was handed over at ``sent_at`` cannot have been read by a person."""
    return sent_at is not None and at < sent_at + AT_ONCE
