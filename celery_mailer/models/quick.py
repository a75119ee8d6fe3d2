"""Rows that are many, made quickly from what the database says."""

from collections.abc import Collection
from typing import Any, Self

from django.db import models
from django.db.models.base import ModelState
from django.db.models.signals import post_init, pre_init


class QuickRow(models.Model):
    """A model whose instances get what was read as it is, where ``__init__`` would set field by field.

    That takes half of the time. ``__init__`` is not called, unless somebody listens to its signals.
    """

    class Meta:
        abstract = True

    @classmethod
    def from_db(
        cls, db: str | None, field_names: Collection[str], values: Collection[Any], **more: Any
    ) -> Self:
        if pre_init.has_listeners(cls) or post_init.has_listeners(cls):
            return super().from_db(db, field_names, values, **more)
        row = cls.__new__(cls)
        row.__dict__ = dict(zip(field_names, values, strict=True))
        row._state = state = ModelState()
        state.adding, state.db = False, db
        if more.get("fetch_mode") is not None:  # Django 6.1
            state.fetch_mode = more["fetch_mode"]
        return row
