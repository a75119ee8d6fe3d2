"""Events in the admin: a list to look through, also of those whose email is not known."""

from collections.abc import Iterable
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from celery_mailer.admin.facts import link
from celery_mailer.admin.lists import BoundedChangeList, BoundedPaginator, WordsFilter, column
from celery_mailer.admin.words import BOUNCES, EVENTS, said
from celery_mailer.models import Event
from celery_mailer.models.recipient import searchable


class EmailKnownFilter(admin.SimpleListFilter):
    title = gettext_lazy("email")
    parameter_name = "email"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, Any]]:
        return [("known", _("known")), ("unknown", _("not known"))]

    def queryset(self, request: HttpRequest, queryset: "QuerySet[Event]") -> "QuerySet[Event]":
        if self.value() not in ("known", "unknown"):
            return queryset
        return queryset.filter(email__isnull=self.value() == "unknown")


class KindFilter(WordsFilter):
    title = gettext_lazy("kind")
    parameter_name = "kind"
    words = EVENTS


class EventAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = (
        column("at", gettext_lazy("time")), "shown_kind", column("recipient", gettext_lazy("recipient")),
        "shown_email", column("provider", gettext_lazy("provider")), "shown_bounce", "words",
    )  # fmt: skip
    list_filter = (EmailKnownFilter, KindFilter)
    list_display_links = None
    ordering = ("-id",)  # which is the order in which they came, and is indexed
    sortable_by = ()
    search_fields = ("id",)  # shows the box; what is searched: ``get_search_results``
    search_help_text = gettext_lazy("A whole address.")
    actions = None
    show_facets = admin.ShowFacets.NEVER
    show_full_result_count = False
    paginator = BoundedPaginator

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[BoundedChangeList]:
        return BoundedChangeList

    def get_search_results(
        self, request: HttpRequest, queryset: "QuerySet[Event]", search_term: str
    ) -> tuple["QuerySet[Event]", bool]:
        term = search_term.strip()
        return queryset.filter(recipient=searchable(term)) if term else queryset, False

    @admin.display(description=gettext_lazy("kind"))
    def shown_kind(self, event: Event) -> Any:
        return said(EVENTS, event.kind)

    @admin.display(description=gettext_lazy("email"))
    def shown_email(self, event: Event) -> Any:
        # The end of an id: the beginnings of those of one day are alike.
        pk = event.email_id
        return link("email", pk, str(pk)[-12:]) if pk else _("not known")

    @admin.display(description=gettext_lazy("bounce"))
    def shown_bounce(self, event: Event) -> Any:
        return said(BOUNCES, event.bounce) if event.bounce else ""

    @admin.display(description=gettext_lazy("words"))
    def words(self, event: Event) -> str:
        return f"{event.code or ''} {event.text or event.url}".strip()[:200]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Event | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Event | None = None) -> bool:
        """Events go with their emails, so who may delete these may delete them; Django asks."""
        return request.user.has_perm("celery_mailer.delete_email")


admin.site.register(Event, EventAdmin)
