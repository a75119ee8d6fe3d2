"""What the DNS says about the sender: SPF, DKIM, DMARC. Without them, mail is refused or hidden."""

from collections.abc import Iterator

from celery_mailer import conf
from celery_mailer.addresses import bare
from celery_mailer.management.doctor.finding import Finding, fault, skipped, warning

PATIENCE = 5.0  # seconds for each question


class NoSuchName(Exception):
    """The name does not exist, and neither does any name below it (RFC 8020)."""


class NoAnswer(Exception):
    """The DNS cannot be asked; the message says why."""


def sender_domain(dkim_selectors: list[str]) -> Iterator[Finding]:
    """The domain of ``DEFAULT_FROM_EMAIL``."""
    sender = conf.default_from_email()
    domain = bare(sender).rpartition("@")[2]
    if "." not in domain:
        yield fault(
            f"DEFAULT_FROM_EMAIL is {sender}, which no mailbox provider takes mail from.",
            "Set it to an address at a domain of yours.",
        )
        return
    try:
        texts(domain)
        yield from _spf(domain)
        yield from _dkim(domain, dkim_selectors)
        yield from _dmarc(domain)
    except NoSuchName:
        yield warning(
            f"The DNS that this host asks knows no {domain}: replies and bounces go nowhere.",
            "Mend DEFAULT_FROM_EMAIL; or look from a host whose DNS knows the internet.",
        )
    except NoAnswer as error:
        yield skipped(f"SPF, DKIM and DMARC of {domain} were not looked up: {error}")


def texts(name: str) -> list[str]:
    """The TXT records of ``name``, each with its strings joined (RFC 7208, section 3.3).

    Raises ``NoSuchName`` or ``NoAnswer``.
    """
    try:
        import dns.exception
        import dns.resolver
    except ImportError:
        raise NoAnswer("dnspython is not installed (the extra dns)") from None
    try:
        answer = dns.resolver.get_default_resolver().resolve(name, "TXT", lifetime=PATIENCE)
    except dns.resolver.NXDOMAIN:
        raise NoSuchName(name) from None
    except dns.resolver.NoAnswer:
        return []
    except (dns.exception.DNSException, OSError) as error:
        raise NoAnswer(f"{type(error).__name__}: {error}") from None
    return [b"".join(record.strings).decode(errors="replace") for record in answer]


def _records(name: str, version: str) -> list[str]:
    try:
        return [text for text in texts(name) if text.split(";")[0].split(" ")[0].strip().lower() == version]
    except NoSuchName:
        return []


def _spf(domain: str) -> Iterator[Finding]:
    """RFC 7208: exactly one record (section 4.5), which does not let everybody send (``+all``)."""
    records = _records(domain, "v=spf1")
    if not records:
        yield warning(
            f"{domain} has no SPF record.",
            f"Publish TXT at {domain}: 'v=spf1 include:<your provider's> ~all'.",
        )
    elif len(records) > 1:
        yield warning(
            f"{domain} has {len(records)} SPF records, which counts as an error.", "Merge them into one."
        )
    elif {"+all", "all"} & set(records[0].lower().split()):
        yield warning(f"The SPF record of {domain} lets everybody send.", "End it with ~all or -all.")


def _dkim(domain: str, selectors: list[str]) -> Iterator[Finding]:
    """RFC 6376, section 3.6.2: a key for each selector. Which there are, the DNS tells nobody."""
    for selector in selectors:
        name = f"{selector}._domainkey.{domain}"
        # The version may be missing there, the key may not; an empty one is revoked (section 3.6.1).
        tags = [tag for text in _any(name) for tag in text.replace(" ", "").split(";")]
        if not any(tag.startswith("p=") and tag != "p=" for tag in tags):
            yield warning(f"There is no DKIM key at {name}.", "Publish the record that your provider names.")
    if not selectors:
        try:
            texts(f"_domainkey.{domain}")
        except NoSuchName:
            yield warning(
                f"{domain} has no DKIM keys.",
                "Have your provider sign your mail, and publish the record that it names.",
            )


def _any(name: str) -> list[str]:
    try:
        return texts(name)
    except NoSuchName:
        return []


def _dmarc(domain: str) -> Iterator[Finding]:
    """RFC 7489, section 6.6.3: at the domain itself, else above it."""
    labels = domain.split(".")
    above = [".".join(labels[i:]) for i in range(len(labels) - 1)]
    if not any(_records(f"_dmarc.{name}", "v=dmarc1") for name in above):
        yield warning(
            f"{domain} has no DMARC record.",
            f"Publish TXT at _dmarc.{domain}: 'v=DMARC1; p=none; rua=mailto:<you>', and tighten p later.",
        )
