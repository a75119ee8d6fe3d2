"""By whom an email is found again: the addresses it was for, indexed.

``Email.to`` is JSON, which no index serves on every database. A row for each recipient would be the plain
way, but queueing is the hot path: to insert an email into PostgreSQL took 12 microseconds of its CPU and 0.8
kB of its log; with an indexed column 20 and 1.0, with a row in a second table 32 and 1.3 (500 at a time, into
300,000). Nearly every email has one recipient. So the first one is a column of the email itself, and only
those beside it are rows of their own: the search finds all of them.
"""

from collections.abc import Iterable
from typing import Any

from django.db import models
from django.db.models import Q

from celery_mailer.addresses import bare

FOUND = 1_000  # emails that an address is looked for in, at most, where it is not the first one


def searchable(address: str) -> str:
    """``address`` as it is looked for: bare, its domain in ASCII, in small letters.

    Small letters also before the "@", where RFC 5321 (section 2.4) would tell them apart, and people do not.
    """
    _, mark, spec = address.rpartition(" <")
    if mark and spec.endswith(">") and '"' not in spec:  # as ``addresses.clean`` writes it: no need to parse
        address = spec[:-1]
    try:
        return bare(address).lower()
    except ValueError:
        return address.lower()[:320]


class FirstAddress(models.CharField):  # type: ignore[type-arg]
    """The searchable address of the first of ``recipients``; filled in by every save and bulk insert."""

    def pre_save(self, model_instance: Any, add: bool) -> str:
        address = next((searchable(given) for given in model_instance.recipients), "")
        setattr(model_instance, self.attname, address)
        return address

    def deconstruct(self) -> Any:
        name, _, args, kwargs = super().deconstruct()
        return name, "django.db.models.CharField", args, kwargs


class FurtherRecipient(models.Model):
    """A recipient of an email (to, cc or bcc) beside the first."""

    email = models.ForeignKey("celery_mailer.Email", models.CASCADE, related_name="further_recipients")
    address = models.CharField(max_length=320, help_text="bare, in small letters")

    class Meta:
        indexes = [models.Index(fields=["address"], name="mailer_further_address_idx")]

    def __str__(self) -> str:
        return self.address


def note_further(emails: Iterable[Any], using: str) -> None:
    """Write down the further recipients of ``emails``, which were just inserted."""
    rows = [
        FurtherRecipient(email=email, address=address)
        for email in emails
        for address in dict.fromkeys(searchable(given) for given in email.recipients[1:])
    ]
    if rows:
        FurtherRecipient.objects.using(using).bulk_create(rows)


def addressed_to(address: str) -> Q:
    """Emails for ``address``, in any spelling of it, as a condition on ``Email``; makes one query."""
    address = searchable(address)
    further = FurtherRecipient.objects.filter(address=address).order_by("-pk")
    # As a list: of an OR with a subquery, PostgreSQL makes a scan of the whole table.
    return Q(address=address) | Q(pk__in=list(further.values_list("email_id", flat=True)[:FOUND]))
