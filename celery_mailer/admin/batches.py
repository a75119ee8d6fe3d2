"""Batches in the admin: how far each has come, and ways to stop it, for a while or for good."""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from celery_mailer.admin.facts import mark
from celery_mailer.admin.health import held
from celery_mailer.admin.lists import BOUND, BoundedChangeList, BoundedPaginator, column
from celery_mailer.admin.pages import Views, page, routes, to, visible
from celery_mailer.admin.switches import BatchPauseForm, faults_of
from celery_mailer.admin.words import STATUSES
from celery_mailer.batches import cancel_batch, resume_batch
from celery_mailer.models import Batch, Email, Figure, Pause
from celery_mailer.models.figure import sums
from celery_mailer.models.pause import pause
from celery_mailer.reputation import Standing
from celery_mailer.values import FINAL, WAITING

OPEN = gettext_lazy("not finished")


@dataclass(frozen=True)
class Progress:
    """Emails of a batch by status; of a large one only those that are final, as beat has counted them."""

    by_status: dict[str, int]
    total: int
    exact: bool

    @property
    def done(self) -> int:
        return sum(number for status, number in self.by_status.items() if status in FINAL)

    @property
    def open(self) -> int:
        """Those of a large batch that are not final, whatever their status."""
        return 0 if self.exact else max(0, self.total - self.done)

    @property
    def unfinished(self) -> int:
        return self.open + sum(number for status, number in self.by_status.items() if status not in FINAL)

    @property
    def waiting(self) -> int:
        return self.open + sum(self.by_status.get(status, 0) for status in WAITING)


def progress(batches: Collection[Batch]) -> dict[UUID, Progress]:
    """How far ``batches`` have come: two queries, which together read about ``BOUND`` emails at most."""
    few = BOUND // max(len(batches), 1)
    small = [batch.pk for batch in batches if batch.total <= few]
    counted: dict[UUID, dict[str, int]] = defaultdict(dict)
    rows = Email.objects.filter(batch__in=small).values_list("batch", "status")
    for pk, status, number in rows.annotate(number=Count("pk")).order_by():
        counted[pk][status] = number
    large = {str(batch.pk): None for batch in batches if batch.total > few}
    for name, numbers in sums(Figure.Subject.BATCH, large).items():
        counted[UUID(name)] = {status: numbers[status] for status in FINAL if numbers[status]}
    return {batch.pk: Progress(counted[batch.pk], batch.total, batch.total <= few) for batch in batches}


class BatchChangeList(BoundedChangeList):
    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        self.result_list = list(self.result_list)
        found = progress(self.result_list)
        for batch in self.result_list:
            batch.progress = found[batch.pk]


class BatchAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = (
        column("created_at", gettext_lazy("created")), column("total", gettext_lazy("total")), "progress",
        "statuses",
    )  # fmt: skip
    list_per_page = 20
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
            batch.progress.done,
            batch.progress.done,
        )

    @admin.display(description=gettext_lazy("emails"))
    def statuses(self, batch: Any) -> str:
        found = batch.progress
        numbers = [
            f"{number} {word}" for status, word in STATUSES.items() if (number := found.by_status.get(status))
        ]
        return ", ".join([*numbers, *([f"{found.open} {OPEN}"] if found.open else [])])

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Batch | None = None) -> bool:
        return False

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> tuple[Any, Any, Any, list[Any]]:
        """Whatever deletes batches asks this; what is in the last list keeps them from it.

        Emails outlive their batch: those that it held back, by a pause or a canary, would be sent.
        """
        deleted, counts, lacking, protected = super().get_deleted_objects(objs, request)
        emails = Email.objects.filter(batch__in=[batch.pk for batch in objs]).exclude(status__in=FINAL)
        open_ones = emails.order_by("batch").values_list("batch", flat=True).distinct()
        told = [_("emails of batch %(id)s that are not finished") % {"id": pk} for pk in open_ones]
        return deleted, counts, lacking, [*protected, *told]

    def delete_model(self, request: HttpRequest, obj: Batch) -> None:
        self.delete_queryset(request, Batch.objects.filter(pk=obj.pk))

    def delete_queryset(self, request: HttpRequest, queryset: "QuerySet[Batch]") -> None:
        names = [str(pk) for pk in queryset.values_list("pk", flat=True)]
        super().delete_queryset(request, queryset)
        Pause.objects.filter(kind=Pause.Subject.BATCH, name__in=names).delete()

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
        found = progress([batch])[batch.pk]
        return page(
            self,
            request,
            "batch/change_form.html",
            batch,
            _("Batch"),
            batch.pk,
            rows=[(s, mark(s), found.by_status[s]) for s in STATUSES if s in found.by_status],
            progress=found,
            has_delete_permission=self.has_delete_permission(request, batch) and not found.unfinished,
            reputation=Standing.of(sums(Figure.Subject.BATCH, {str(batch.pk): None})[str(batch.pk)]),
            pause=held(timezone.now()).get((Pause.Subject.BATCH, str(batch.pk))),
            may_cancel=request.user.has_perm("celery_mailer.cancel_email"),
            may_pause=batch.cancelled_at is None and request.user.has_perm("celery_mailer.pause_batch"),
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
        form = BatchPauseForm(request.POST)
        faults = faults_of(form)
        if not faults:
            try:
                pause(Pause.Subject.BATCH, str(pk), **form.cleaned_data, by=request.user.get_username())
                self.log_change(request, batch, _("Paused: %(reason)s") % form.cleaned_data)
                self.message_user(request, _("It is paused. What is under way ends."), messages.SUCCESS)
            except ValidationError as error:
                faults = error.messages
        for fault in faults:
            self.message_user(request, fault, messages.ERROR)
        return to(self, "batch_change", pk)

    def resume_view(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        batch = self._batch(request, pk, "pause_batch")
        if resume_batch(pk):
            self.log_change(request, batch, _("Resumed"))
            self.message_user(request, _("It goes on."), messages.SUCCESS)
        elif batch.cancelled_at is not None:
            self.message_user(request, _("This batch was cancelled."), messages.ERROR)
        return to(self, "batch_change", pk)

    def _batch(self, request: HttpRequest, pk: UUID, permission: str) -> Batch:
        batch: Batch = visible(self, request, Batch.objects.all(), pk)
        if not request.user.has_perm(f"celery_mailer.{permission}"):
            raise PermissionDenied
        return batch


admin.site.register(Batch, BatchAdmin)
