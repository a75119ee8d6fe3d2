"""Batches in the admin: how far each has come, and ways to stop it, for a while or for good."""

from collections import defaultdict
from collections.abc import Collection
from typing import Any
from uuid import UUID

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Count
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from celery_mailer.admin.facts import mark
from celery_mailer.admin.health import held
from celery_mailer.admin.lists import BoundedChangeList, BoundedPaginator
from celery_mailer.admin.pages import Views, page, routes, to, visible
from celery_mailer.admin.switches import PauseForm, faults_of
from celery_mailer.admin.words import STATUSES
from celery_mailer.batches import cancel_batch, resume_batch
from celery_mailer.models import Batch, Email, Pause
from celery_mailer.models.pause import pause
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
        js = ["celery_mailer/refresh.js"]

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
        post: Views = {
            "cancel": ("<uuid:pk>/cancel/", self.cancel_view),
            "pause": ("<uuid:pk>/pause/", self.pause_view),
            "resume": ("<uuid:pk>/resume/", self.resume_view),
        }
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
            pause=held(timezone.now()).get((Pause.Subject.BATCH, str(batch.pk))),
            may_cancel=request.user.has_perm("celery_mailer.cancel_email"),
            may_pause=request.user.has_perm("celery_mailer.pause_batch"),
        )

    def cancel_view(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """Cancel what of the batch still waits; what a worker has in its hands is sent."""
        batch = self._batch(request, pk, "cancel_email")
        number = cancel_batch(batch.pk, by=request.user.get_username())
        text = ngettext("%(number)d email was cancelled.", "%(number)d emails were cancelled.", number)
        told = text % {"number": number}
        self.log_change(request, batch, told)
        self.message_user(request, told, messages.SUCCESS)
        if Batch.objects.filter(pk=pk, stage=Batch.Stage.CANCEL).exists():
            self.message_user(request, _("The others are cancelled step by step, by beat."), messages.INFO)
        return to(self, "batch_change", pk)

    def pause_view(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        batch = self._batch(request, pk, "pause_batch")
        subject = {"kind": Pause.Subject.BATCH, "name": str(pk)}
        form = PauseForm({**request.POST.dict(), **subject})
        if form.is_valid():
            pause(**form.cleaned_data, by=request.user.get_username())
            self.log_change(request, batch, _("Paused: %(reason)s") % form.cleaned_data)
            self.message_user(request, _("It is paused. What is under way ends."), messages.SUCCESS)
        for fault in faults_of(form):
            self.message_user(request, fault, messages.ERROR)
        return to(self, "batch_change", pk)

    def resume_view(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        batch = self._batch(request, pk, "pause_batch")
        if resume_batch(pk):
            self.log_change(request, batch, _("Resumed"))
            self.message_user(request, _("It goes on."), messages.SUCCESS)
        return to(self, "batch_change", pk)

    def _batch(self, request: HttpRequest, pk: UUID, permission: str) -> Batch:
        batch: Batch = visible(self, request, Batch.objects.all(), pk)
        if not request.user.has_perm(f"celery_mailer.{permission}"):
            raise PermissionDenied
        return batch


admin.site.register(Batch, BatchAdmin)
