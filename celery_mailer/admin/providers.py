"""Providers in the admin: how they are, and the switches of a person who knows better for a while."""

from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import Http404, HttpRequest, HttpResponse
from django.utils.translation import gettext as _

from celery_mailer.admin.facts import mark
from celery_mailer.admin.health import healths, subjects
from celery_mailer.admin.pages import Views, listing, page, routes, to_list
from celery_mailer.admin.switches import PauseForm, SwitchForm, UntilForm, faults_of
from celery_mailer.admin.words import BREAKERS, REASONS, said
from celery_mailer.deliver.breaker_switch import close_breaker, open_breaker
from celery_mailer.models import Pause, ProviderChange, ProviderState
from celery_mailer.models.pause import pause, resume

LOGGED = 100  # changes of a breaker that are shown


class ProviderAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    class Media:
        css = {"all": ["celery_mailer/admin.css"]}
        js = ["celery_mailer/refresh.js"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_switch_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request) and request.user.has_perm("celery_mailer.switch_provider")

    def get_urls(self) -> list[Any]:
        post: Views = {
            "pause": ("pause/", self.pause_view),
            "resume": ("resume/", self.resume_view),
            "open": ("open/", self.open_view),
            "close": ("close/", self.close_view),
        }
        return [*routes(self, {}, post), *super().get_urls()]

    # The pages.

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        self._check_look(request)
        return listing(
            self,
            request,
            "providerstate/list.html",
            _("Providers"),
            healths=healths(),
            subjects=subjects(),
            may_switch=self.has_switch_permission(request),
        )

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        self._check_look(request)
        alias = unquote(object_id)
        health = next((health for health in healths() if health.alias == alias), None)
        if health is None:
            raise Http404
        return page(
            self,
            request,
            "providerstate/change_form.html",
            health.breaker or ProviderState(alias=alias),
            _("Provider"),
            alias,
            health=health,
            changes=changes(alias),
            may_switch=self.has_switch_permission(request),
        )

    def _check_look(self, request: HttpRequest) -> None:
        if not self.has_view_permission(request) or request.method not in ("GET", "HEAD"):
            raise PermissionDenied

    # The switches.

    def pause_view(self, request: HttpRequest) -> HttpResponse:
        return self._switch(request, PauseForm, self._pause)

    def _pause(self, request: HttpRequest, kind: str, name: str, reason: str, until: Any) -> str:
        row = pause(kind, name, reason, until=until, by=request.user.get_username())
        self.log_change(request, row, _("Paused: %(reason)s") % {"reason": reason})
        return _("“%(name)s” is paused. What is under way ends.")

    def resume_view(self, request: HttpRequest) -> HttpResponse:
        return self._switch(request, SwitchForm, self._resume)

    def _resume(self, request: HttpRequest, kind: str, name: str) -> str:
        row = Pause.objects.filter(kind=kind, name=name).first()
        if row is not None:
            self.log_change(request, row, _("Resumed"))
        return _("“%(name)s” goes on.") if resume(kind, name) else _("“%(name)s” was not paused.")

    def open_view(self, request: HttpRequest) -> HttpResponse:
        return self._switch(request, UntilForm, self._open)

    def _open(self, request: HttpRequest, kind: str, name: str, until: Any) -> str:
        open_breaker(_known(kind, name), until, request.user.get_username())
        self.log_change(request, ProviderState(pk=name), _("Left alone"))
        return _("“%(name)s” is left alone until then; the first mail after that is a trial.")

    def close_view(self, request: HttpRequest) -> HttpResponse:
        return self._switch(request, SwitchForm, self._close)

    def _close(self, request: HttpRequest, kind: str, name: str) -> str:
        close_breaker(_known(kind, name), request.user.get_username())
        self.log_change(request, ProviderState(pk=name), _("Used again"))
        return _("“%(name)s” is used again, with a few mails at first.")

    def _switch(self, request: HttpRequest, form_class: Any, do: Callable[..., str]) -> HttpResponse:
        """Do what the form asks for, say what was done or what is wrong with it, and show the list again."""
        if not self.has_switch_permission(request):
            raise PermissionDenied
        form = form_class(request.POST)
        try:
            if form.is_valid():
                told = do(request, **form.cleaned_data) % {"name": form.cleaned_data["name"]}
                self.message_user(request, told, messages.SUCCESS)
            faults = faults_of(form)
        except ValidationError as error:
            faults = error.messages
        for fault in faults:
            self.message_user(request, fault, messages.ERROR)
        return to_list(self)


def _known(kind: str, name: str) -> str:
    """``name``, if it is the alias of a provider. Raises ``ValidationError``."""
    Pause(kind=kind, name=name, reason="-").clean()
    if kind != Pause.Subject.PROVIDER:
        raise ValidationError(_("Only a provider has a breaker."))
    return name


def changes(alias: str) -> list[tuple[ProviderChange, Any, Any]]:
    """The log of a breaker, newest first, each with the new state and the reason in words."""
    rows = ProviderChange.objects.filter(alias=alias).order_by("-pk")[:LOGGED]
    return [(row, mark(row.to_state, BREAKERS), said(REASONS, row.reason)) for row in rows]


admin.site.register(ProviderState, ProviderAdmin)
