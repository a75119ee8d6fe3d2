"""The limits' counters, where they are kept in the database."""

from datetime import datetime

from django.db import models


class Bucket(models.Model):
    """What is remembered of one limit (``deliver.buckets.rules.State``)."""

    key = models.CharField(primary_key=True, max_length=255)
    state = models.JSONField(default=dict)
    expires_at = models.DateTimeField(db_index=True, help_text="from then on it says nothing any more")

    def __str__(self) -> str:
        return self.key


def delete_expired_buckets(before: datetime, limit: int) -> int:
    """Delete up to ``limit`` buckets that say nothing any more since that time; returns how many."""
    keys = list(Bucket.objects.filter(expires_at__lt=before).values_list("pk", flat=True)[:limit])
    # Once more by the time: one of them may be in use again.
    return Bucket.objects.filter(pk__in=keys, expires_at__lt=before).delete()[0]
