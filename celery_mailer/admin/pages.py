"""What the pages of this admin beside Django's own have in common."""

from collections.abc import Callable, Mapping
from typing import Any

from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import Model, QuerySet
from django.http import Http404, HttpRequest, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.functional import Promise
from django.views.decorators.http import require_POST, require_safe

View = Callable[..., HttpResponseBase]
Views = Mapping[str, tuple[str, View]]  # by name, the route and the view


def routes(model_admin: Any, get: Views, post: Views) -> list[URLPattern]:
    """The URLs of views for those who may enter the admin: what changes something is in ``post``."""
    opts, site = model_admin.opts, model_admin.admin_site
    allowed = [(get, require_safe), (post, require_POST)]
    return [
        path(route, site.admin_view(only(view)), name=f"{opts.app_label}_{opts.model_name}_{name}")
        for views, only in allowed
        for name, (route, view) in views.items()
    ]


def page(
    model_admin: Any,
    request: HttpRequest,
    template: str,
    original: Model,
    title: str | Promise,
    subtitle: object,
    **more: Any,
) -> TemplateResponse:
    """A page about ``original``, in the frame of Django's change form."""
    context = {
        **model_admin.admin_site.each_context(request),
        "title": title,
        "subtitle": str(subtitle),
        "opts": model_admin.opts,
        "original": original,
        "change": True,
        "media": model_admin.media,
        "has_view_permission": True,
        "has_delete_permission": model_admin.has_delete_permission(request, original),
        "preserved_filters": model_admin.get_preserved_filters(request),
        **more,
    }
    request.current_app = model_admin.admin_site.name
    return TemplateResponse(request, f"admin/celery_mailer/{template}", context)


def listing(
    model_admin: Any, request: HttpRequest, template: str, title: str | Promise, **more: Any
) -> TemplateResponse:
    """A page about all of a model, in the frame of ``admin/celery_mailer/page.html``."""
    context = {
        **model_admin.admin_site.each_context(request),
        "title": title,
        "opts": model_admin.opts,
        "media": model_admin.media,
        **more,
    }
    request.current_app = model_admin.admin_site.name
    return TemplateResponse(request, f"admin/celery_mailer/{template}", context)


def address_of(model_admin: Any, page: str, pk: Any) -> str:
    """The URL of a page of this app, such as ``email_change``."""
    return reverse(f"admin:celery_mailer_{page}", args=[pk], current_app=model_admin.admin_site.name)


def to(model_admin: Any, page: str, pk: Any) -> HttpResponseRedirect:
    return HttpResponseRedirect(address_of(model_admin, page, pk))


def to_list(model_admin: Any) -> HttpResponseRedirect:
    opts, site = model_admin.opts, model_admin.admin_site
    name = f"admin:{opts.app_label}_{opts.model_name}_changelist"
    return HttpResponseRedirect(reverse(name, current_app=site.name))


def visible(model_admin: Any, request: HttpRequest, rows: "QuerySet[Any]", pk: Any) -> Any:
    """The row with the key ``pk``. Raises ``PermissionDenied``, and ``Http404``."""
    if not model_admin.has_view_permission(request):
        raise PermissionDenied
    try:
        return get_object_or_404(rows, pk=pk)
    except ValidationError:  # it is no key at all
        raise Http404 from None
