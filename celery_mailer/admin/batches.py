"""Batches in the admin: how far each has come, and a way to stop it."""

from collections import defaultdict
from collections.abc import Collection
from typing import Any
from uuid import UUID

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Count
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from celery_mailer.acts import ACTS
from celery_mailer.admin.facts import mark
from celery_mailer.admin.lists import BoundedChangeList, BoundedPaginator
from celery_mailer.admin.pages import Views, page, routes, to, visible
from celery_mailer.admin.words import STATUSES
from celery_mailer.models import Batch, Email
from celery_mailer.values import FINAL, WAITING


def counts(batches: Collection[UUID]) -> dict[UUID, dict[str, int]]:
    """By batch and status, how many emails: one query, which reads the emails of these batches."""
    found: dict[UUID, dict[str, int]] = defaultdict(dict)
    rows = Email.objects.filter(batch__in=batches).values_list("batch", "status")
    for batch, status, number in rows.annotate(number=Count("pk")).order_by():
        found[batch][status] = number
    return found


def done(by_status: dict[str, int]) -> int:
    return sum(number for status, number in by_status.items() if status in FINAL)


class BatchChangeList(BoundedChangeList):
    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        self.result_list = list(self.result_list)
        found = counts([batch.pk for batch in self.result_list])
        for batch in self.result_list:
            batch.by_status = found[batch.pk]


class BatchAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("created_at", "total", "progress", "statuses")
    list_per_page = 20  # for each, its emails are counted
    ordering = ("-id",)  # which is the order of time, and is indexed
    sortable_by = ()
    show_full_result_count = False
    paginator = BoundedPaginator

    class Media:
        css = {"all": ["celery_mailer/admin.css"]}

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[BatchChangeList]:
        return BatchChangeList

    @admin.display(description=gettext_lazy("progress"))
    def progress(self, batch: Any) -> str:
        return format_html(
            '<progress class="mailer-progress" max="{}" value="{}">{}</progress>',
            batch.total,
            done(batch.by_status),
            done(batch.by_status),
        )

    @admin.display(description=gettext_lazy("emails"))
    def statuses(self, batch: Any) -> str:
        numbers = [
            f"{number} {word}" for status, word in STATUSES.items() if (number := batch.by_status.get(status))
        ]
        return ", ".join(numbers)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Batch | None = None) -> bool:
        return False

    def get_urls(self) -> list[Any]:
        post: Views = {"cancel": ("<uuid:pk>/cancel/", self.cancel_view)}
        return [*routes(self, {}, post), *super().get_urls()]

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        batch = visible(self, request, Batch.objects.all(), object_id)
        if request.method not in ("GET", "HEAD"):
            raise PermissionDenied
        by_status = counts([batch.pk])[batch.pk]
        return page(
            self,
            request,
            "batch/change_form.html",
            batch,
            _("Batch"),
            batch.pk,
            rows=[(status, mark(status), by_status[status]) for status in STATUSES if status in by_status],
            done=done(by_status),
            waiting=sum(by_status.get(status, 0) for status in WAITING),
            may_cancel=request.user.has_perm("celery_mailer.cancel_email"),
        )

    def cancel_view(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """Cancel what of the batch still waits; what a worker has in its hands is sent."""
        batch = visible(self, request, Batch.objects.all(), pk)
        if not request.user.has_perm("celery_mailer.cancel_email"):
            raise PermissionDenied
        waiting = Email.objects.filter(batch=batch, status__in=WAITING).order_by("pk")
        gone = ACTS["cancel"].do(list(waiting.values_list("pk", flat=True)), request.user.get_username())
        number = len(gone.emails)
        text = ngettext("%(number)d email was cancelled.", "%(number)d emails were cancelled.", number)
        self.log_change(request, batch, text % {"number": number})
        self.message_user(request, text % {"number": number}, messages.SUCCESS)
        return to(self, "batch_change", pk)


admin.site.register(Batch, BatchAdmin)
