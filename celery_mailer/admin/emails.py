"""Emails in the admin: to look at, and to act on by POST. Nobody edits one."""

from collections.abc import Callable
from functools import partial
from io import BytesIO
from typing import Any
from uuid import UUID

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Q, QuerySet
from django.http import FileResponse, Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.utils.text import Truncator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from celery_mailer.acts import ACTS, Act, Done, suppressible
from celery_mailer.admin.dashboard import dashboard
from celery_mailer.admin.facts import facts, mark, subject_of
from celery_mailer.admin.lists import (
    BOUND,
    BoundedChangeList,
    BoundedPaginator,
    LaneFilter,
    StatusFilter,
    StreamFilter,
    column,
)
from celery_mailer.admin.pages import Views, page, routes, to, visible
from celery_mailer.admin.preview import (
    Hidden,
    file_of,
    guarded,
    may_be_shown,
    readable,
    remote_images,
    see,
)
from celery_mailer.admin.timeline import timeline
from celery_mailer.admin.words import LANES, said
from celery_mailer.models import Email, Enclosure
from celery_mailer.models.attachment import enclosures_of
from celery_mailer.models.recipient import addressed_to

SOURCE_SHOWN = 2**18  # bytes of a message's source on its page; all of it is in the download
LISTED = (
    "status", "reason", "priority", "stream", "to", "cc", "bcc", "due_at", "attempt_count", "created_at",
    "content__subject", "content__template", "content__sensitive", "rendered__subject",
)  # fmt: skip


CREATED = column("created_at", gettext_lazy("created"))


class EmailChangeList(BoundedChangeList):
    def get_queryset(self, request: HttpRequest, *args: Any, **kwargs: Any) -> "QuerySet[Email]":
        # Not the bodies.
        rows = super().get_queryset(request, *args, **kwargs).select_related("content", "rendered")
        return rows.only(*LISTED)


def _listed(act: Act) -> Callable[..., None]:
    """``act`` as an action on the emails that were selected in the list."""

    def run(self: "EmailAdmin", request: HttpRequest, queryset: "QuerySet[Email]") -> None:
        ids = list(queryset.filter(status__in=act.sources).order_by("pk").values_list("pk", flat=True))
        self.report(request, act, act.do(ids, request.user.get_username()))

    run.__name__ = f"{act.name}_selected"
    return admin.action(run, permissions=[act.permission], description=act.label)  # type: ignore[arg-type]


class EmailAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = (
        "shown_status", "lane", column("stream", gettext_lazy("stream")), "recipient", "subject", "template",
        column("due_at", gettext_lazy("due")), "attempts", CREATED,
    )  # fmt: skip
    list_display_links = ("recipient",)
    list_filter = (StatusFilter, LaneFilter, StreamFilter)
    date_hierarchy = "created_at"
    ordering = ("-created_at", "-id")
    sortable_by = (CREATED,)  # type: ignore[assignment]  # whatever list_display may hold, says Django
    search_fields = ("id",)  # shows the box; what is searched: ``get_search_results``
    search_help_text = gettext_lazy("An address, an id, or a Message-ID; each of them whole.")
    show_facets = admin.ShowFacets.NEVER
    show_full_result_count = False
    paginator = BoundedPaginator
    actions = [_listed(act) for act in ACTS.values() if not act.to_recipients]

    class Media:
        css = {"all": ["celery_mailer/admin.css"]}
        js = ["celery_mailer/tabs.js", "celery_mailer/refresh.js"]

    # The list.

    @admin.display(description=gettext_lazy("status"))
    def shown_status(self, email: Email) -> str:
        return mark(email.status)

    @admin.display(description=gettext_lazy("recipient"), empty_value="-")
    def recipient(self, email: Email) -> str:
        first, *more = email.recipients or [""]
        return f"{first} +{len(more)}" if more else first

    @admin.display(description=gettext_lazy("subject"))
    def subject(self, email: Email) -> str:
        return Truncator(subject_of(email)).chars(60)

    @admin.display(description=gettext_lazy("template"))
    def template(self, email: Email) -> str:
        return email.content.template if hasattr(email, "content") else ""

    @admin.display(description=gettext_lazy("lane"))
    def lane(self, email: Email) -> Any:
        return said(LANES, email.priority)

    @admin.display(description=gettext_lazy("attempts"))
    def attempts(self, email: Email) -> int:
        return email.attempt_count

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[EmailChangeList]:
        return EmailChangeList

    def get_search_results(
        self, request: HttpRequest, queryset: "QuerySet[Email]", search_term: str
    ) -> tuple["QuerySet[Email]", bool]:
        """What has exactly this address, id or Message-ID: each is one look into an index."""
        return queryset.filter(_search(search_term.strip())) if search_term.strip() else queryset, False

    def response_action(  # type: ignore[override]  # Django 6.1 has one argument more
        self, request: HttpRequest, queryset: "QuerySet[Email]", **where: Any
    ) -> HttpResponse | None:
        if request.POST.get("select_across") == "1" and BoundedPaginator(queryset, 1).count >= BOUND:
            fault = _("These are too many to act on at once. Narrow them by filters or by date.")
            self.message_user(request, fault, messages.ERROR)
            return HttpResponseRedirect(request.get_full_path())
        return super().response_action(request, queryset, **where)

    # What may be done.

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Email | None = None) -> bool:
        return False

    def has_read_permission(self, request: HttpRequest) -> bool:
        return self._has(request, "read")

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        return self._has(request, "cancel")

    def has_resend_permission(self, request: HttpRequest) -> bool:
        return self._has(request, "resend")

    def has_decide_permission(self, request: HttpRequest) -> bool:
        return self._has(request, "decide")

    def has_suppress_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request) and request.user.has_perm("celery_mailer.add_suppression")

    def _has(self, request: HttpRequest, verb: str) -> bool:
        return self.has_view_permission(request) and request.user.has_perm(f"celery_mailer.{verb}_email")

    def _may(self, request: HttpRequest, act: Act) -> bool:
        return bool(getattr(self, f"has_{act.permission}_permission")(request))

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        # To look into JSON is to read every row, and SQLite and Oracle cannot. The search has an index.
        in_json = lookup.partition("__")[0] in ("to", "cc", "bcc")
        return not in_json and super().lookup_allowed(lookup, value, request)

    def report(self, request: HttpRequest, act: Act, done: Done) -> None:
        """Say what was done, and write it into the log of the admin."""
        for email in Email.objects.filter(pk__in=done.emails):
            self.log_change(request, email, str(act.label))
        if done.emails or not done.faults:
            number = len(done.emails)
            text = ngettext("%(act)s: %(number)d email.", "%(act)s: %(number)d emails.", number)
            level = messages.SUCCESS if number else messages.WARNING
            self.message_user(request, text % {"act": act.label, "number": number}, level)
        for fault in done.faults[:10]:
            self.message_user(request, fault, messages.ERROR)

    # The page of one email.

    def get_urls(self) -> list[Any]:
        get: Views = {
            "html": ("<uuid:pk>/html/", self.html_view),
            "source": ("<uuid:pk>/source/", self.source_view),
            "file": ("<uuid:pk>/files/<int:enclosure>/", self.file_view),
            "dashboard": ("dashboard/", partial(dashboard, self)),
        }
        post: Views = {"act": ("<uuid:pk>/act/<slug:name>/", self.act_view)}
        return [*routes(self, get, post), *super().get_urls()]

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        email = self._email(request, object_id)
        if request.method not in ("GET", "HEAD"):
            raise PermissionDenied
        to_suppress = suppressible(email)
        return page(
            self,
            request,
            "email/change_form.html",
            email,
            subject_of(email) or _("Email"),
            email.pk,
            facts=facts(email),
            timeline=timeline(email),
            acts=[act for act in self._acts(request, email) if to_suppress or not act.to_recipients],
            to_suppress=to_suppress,
            **self._message(request, email),
        )

    def _email(self, request: HttpRequest, pk: Any) -> Email:
        rows = Email.objects.select_related("content__template_version__template", "rendered")
        email: Email = visible(self, request, rows, pk)
        return email

    def _acts(self, request: HttpRequest, email: Email) -> list[Act]:
        dropped = not hasattr(email, "content") or email.content.dropped
        return [
            act
            for act in ACTS.values()
            if email.status in act.sources and self._may(request, act)
            if not (act.makes_new and dropped)
        ]

    def _message(self, request: HttpRequest, email: Email) -> dict[str, Any]:
        """What the page shows of what the email says, or why it does not."""
        try:
            self._check_read(request)
            seen = see(email, ())
            html = seen.html
            return {
                "seen": seen,
                "has_html": html is not None,
                "blocked": remote_images(html or ""),
                "enclosures": enclosures_of([email.pk]).get(email.pk, []),
            }
        except PermissionDenied:
            return {"hidden": _("You have no permission to read what emails say.")}
        except Hidden as hidden:
            return {"hidden": hidden.why}

    def _check_read(self, request: HttpRequest) -> None:
        if not self.has_read_permission(request):
            raise PermissionDenied

    def act_view(self, request: HttpRequest, pk: UUID, name: str) -> HttpResponse:
        email = self._email(request, pk)
        act = ACTS.get(name)
        if act is None:
            raise Http404
        if not self._may(request, act):
            raise PermissionDenied
        done = act.do([email.pk], request.user.get_username())
        self.report(request, act, done)
        return to(self, "email_change", done.emails[0] if act.makes_new and done.emails else email.pk)

    def html_view(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """The HTML as the recipient sees it, for a frame; an email without HTML has none."""
        email = self._email(request, pk)
        self._check_read(request)
        enclosures = enclosures_of([pk]).get(pk, [])
        try:
            html = see(email, [e for e in enclosures if may_be_shown(e)]).html
        except Hidden as hidden:
            raise Http404(hidden.why) from hidden
        if html is None:
            raise Http404(_("This email has no HTML."))
        return guarded(HttpResponse(html))

    def source_view(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """The message as it goes over the wire (RFC 5322): its beginning as text, or all of it as a file."""
        email = self._email(request, pk)
        self._check_read(request)
        try:
            raw = see(email, enclosures_of([pk]).get(pk, [])).raw
        except Hidden as hidden:
            raise Http404(hidden.why) from hidden
        if "download" not in request.GET:
            text = raw[:SOURCE_SHOWN].decode(errors="replace")
            return guarded(HttpResponse(text, content_type="text/plain; charset=utf-8"))
        response = HttpResponse(raw, content_type="application/octet-stream")
        response["Content-Disposition"] = f'attachment; filename="{pk}.eml"'
        return guarded(response)

    def file_view(self, request: HttpRequest, pk: UUID, enclosure: int) -> FileResponse:
        """An attachment, to be saved and never to be opened by the browser: it came from somebody else."""
        email = self._email(request, pk)
        self._check_read(request)
        row = get_object_or_404(Enclosure.objects.select_related("attachment"), pk=enclosure, email=email)
        try:
            readable(email)
            file = file_of(row)
        except (Hidden, OSError) as error:
            raise Http404 from error
        response = FileResponse(
            file if hasattr(file, "read") else BytesIO(file),
            as_attachment=True,
            filename=row.name or f"attachment-{row.position}",
            content_type="application/octet-stream",
        )
        return guarded(response)


def _search(term: str) -> Q:
    try:
        return Q(pk=UUID(term))
    except ValueError:
        return Q(message_id__in=[term, f"<{term}>"]) | addressed_to(term)


admin.site.register(Email, EmailAdmin)
