"""Suppressed addresses in the admin: to look at, to add by hand, and to release by POST with a reason."""

from collections.abc import Iterable, Iterator
from typing import Any
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from celery_mailer import conf
from celery_mailer.addresses import clean
from celery_mailer.admin.facts import link
from celery_mailer.admin.lists import BoundedChangeList, BoundedPaginator, WordsFilter, column
from celery_mailer.admin.pages import Views, page, routes, to, visible
from celery_mailer.admin.words import REASONS, said
from celery_mailer.exceptions import InvalidEmail
from celery_mailer.models import Suppression
from celery_mailer.models.suppression import digest_of, in_force, release
from celery_mailer.values import SuppressionReason


class SuppressionForm(forms.ModelForm):  # type: ignore[type-arg]
    """An address that somebody suppresses by hand."""

    stream = forms.ChoiceField(required=False, label=gettext_lazy("Stream"))

    class Meta:
        model = Suppression
        fields = ("address", "stream", "expires_at", "note")
        labels = {
            "address": gettext_lazy("Address"),
            "expires_at": gettext_lazy("Expires"),
            "note": gettext_lazy("Note"),
        }
        help_texts = {"address": ""}  # in any spelling

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["address"].required = True
        every = [("", _("every stream"))]
        self.fields["stream"].choices = every + [(name, name) for name in conf.get().streams]  # type: ignore[attr-defined]

    def clean_address(self) -> str:
        try:
            return clean("address", self.cleaned_data["address"])
        except InvalidEmail as error:
            raise forms.ValidationError(_("This is not a valid email address.")) from error

    def clean(self) -> dict[str, Any]:
        values: dict[str, Any] = super().clean() or self.cleaned_data
        if "address" in values:
            digest, stream = digest_of(values["address"]), values.get("stream", "")
            same = Suppression.objects.filter(
                digest=digest, stream=stream, reason=SuppressionReason.MANUAL, active=True
            )
            if same.filter(in_force(timezone.now())).exists():
                raise forms.ValidationError(
                    _("This address is suppressed by hand already. Release it first.")
                )
            self.instance = same.first() or self.instance  # one that has expired is renewed
        return values


class ForceFilter(admin.SimpleListFilter):
    title = gettext_lazy("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, Any]]:
        return [("in_force", _("in force")), ("expired", _("expired")), ("released", _("released"))]

    def queryset(self, request: HttpRequest, queryset: "QuerySet[Suppression]") -> "QuerySet[Suppression]":
        now = timezone.now()
        if self.value() == "in_force":
            return queryset.filter(in_force(now))
        if self.value() == "expired":
            return queryset.filter(active=True, expires_at__lte=now)
        return queryset.filter(active=None) if self.value() == "released" else queryset


class ReasonFilter(WordsFilter):
    title = gettext_lazy("reason")
    parameter_name = "reason"
    words = {reason: REASONS[reason] for reason in SuppressionReason}


class SuppressionAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    form = SuppressionForm
    list_display = (
        "shown_address", "shown_stream", "shown_reason", column("created_at", gettext_lazy("created")),
        column("expires_at", gettext_lazy("expires")), "state",
    )  # fmt: skip
    list_filter = (ForceFilter, ReasonFilter)
    ordering = ("-id",)  # which is the order of time, and is indexed
    sortable_by = ()
    search_fields = ("id",)  # shows the box; what is searched: ``get_search_results``
    search_help_text = gettext_lazy("A whole address.")
    show_facets = admin.ShowFacets.NEVER
    show_full_result_count = False
    paginator = BoundedPaginator
    change_form_template = "admin/celery_mailer/suppression/change_form.html"

    class Media:
        css = {"all": ["celery_mailer/admin.css"]}

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[BoundedChangeList]:
        return BoundedChangeList

    def get_search_results(
        self, request: HttpRequest, queryset: "QuerySet[Suppression]", search_term: str
    ) -> tuple["QuerySet[Suppression]", bool]:
        """The address in any spelling, also one that was erased."""
        term = search_term.strip()
        return queryset.filter(digest=digest_of(term)) if term else queryset, False

    @admin.display(description=gettext_lazy("address"))
    def shown_address(self, row: Suppression) -> str:
        return row.address or _("erased (%s…)") % row.digest[:12]

    @admin.display(description=gettext_lazy("stream"))
    def shown_stream(self, row: Suppression) -> str:
        return row.stream or _("every stream")

    @admin.display(description=gettext_lazy("reason"))
    def shown_reason(self, row: Suppression) -> Any:
        return said(REASONS, row.reason)

    @admin.display(description=gettext_lazy("state"))
    def state(self, row: Suppression) -> str:
        if row.active is None:
            return _("released")
        return _("expired") if row.expires_at and row.expires_at <= timezone.now() else _("in force")

    # What may be done.

    def has_change_permission(self, request: HttpRequest, obj: Suppression | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Suppression | None = None) -> bool:
        return False

    def may_release(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request) and request.user.has_perm(
            "celery_mailer.release_suppression"
        )

    def save_model(self, request: HttpRequest, obj: Suppression, form: Any, change: bool) -> None:
        obj.note = obj.note or _("by %s") % request.user.get_username()
        super().save_model(request, obj, form, change)

    # The page of one.

    def get_urls(self) -> list[Any]:
        post: Views = {"release": ("<uuid:pk>/release/", self.release_view)}
        return [*routes(self, {}, post), *super().get_urls()]

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        row = visible(self, request, Suppression.objects.all(), object_id)
        if request.method not in ("GET", "HEAD"):
            raise PermissionDenied
        return page(
            self,
            request,
            "suppression/change_form.html",
            row,
            _("Suppression"),
            self.shown_address(row),
            facts=[(label, value) for label, value in self._facts(row) if value],
            may_release=row.active is not None and self.may_release(request),
        )

    def _facts(self, row: Suppression) -> Iterator[tuple[str | Promise, Any]]:
        yield _("Address"), self.shown_address(row)
        yield _("Stream"), self.shown_stream(row)
        yield _("Reason"), self.shown_reason(row)
        yield _("State"), self.state(row)
        yield _("Created"), row.created_at
        yield _("Expires"), row.expires_at
        yield _("Email"), row.email_id and link("email", row.email_id)
        yield _("Note"), row.note
        yield _("Released"), row.released_at
        yield _("Released by"), row.released_by
        yield _("Released because"), row.release_note

    def release_view(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """End it; who did it is the user who asks, and a reason has to be given."""
        row = visible(self, request, Suppression.objects.all(), pk)
        if not self.may_release(request):
            raise PermissionDenied
        note = request.POST.get("note", "").strip()[:255]
        if not note:
            self.message_user(request, _("Say why it is released."), messages.ERROR)
        elif release([row.pk], by=request.user.get_username(), note=note):
            self.log_change(request, row, _("Released: %s") % note)
            self.message_user(request, _("The address was released."), messages.SUCCESS)
        return to(self, "suppression_change", pk)


admin.site.register(Suppression, SuppressionAdmin)
