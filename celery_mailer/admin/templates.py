"""Templates in the admin: edited with their translations, seen as they would be sent, tried, and restored."""

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404
from django.utils import translation
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from celery_mailer import mail
from celery_mailer.admin.pages import Views, address_of, page, routes, to, visible
from celery_mailer.admin.preview import guarded
from celery_mailer.admin.template_forms import DefaultForm, TranslationForm, TranslationFormSet
from celery_mailer.admin.trial import attempt, latest_emails
from celery_mailer.admin.versions import comparison, latest_change, restore, versions_of
from celery_mailer.exceptions import InvalidEmail
from celery_mailer.models import EmailTemplate, TemplateVersion

WORDS = ("language", "subject", "content", "html_content")


class TranslationInline(admin.StackedInline):  # type: ignore[type-arg]
    model = EmailTemplate
    fk_name = "default_template"
    form = TranslationForm
    formset = TranslationFormSet
    fields = (*WORDS, "variables")
    extra = 0
    verbose_name = gettext_lazy("translation")
    verbose_name_plural = gettext_lazy("translations")


class EmailTemplateAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    form = DefaultForm
    inlines = (TranslationInline,)
    fieldsets = (
        (None, {"fields": ("name", "description", "variables")}),
        (gettext_lazy("Words"), {"fields": WORDS, "classes": ("mailer-words",)}),
    )
    list_display = ("name", "subject", "languages", "description", "updated_at")
    search_fields = ("name", "subject", "description")

    class Media:
        css = {"all": ["celery_mailer/admin.css"]}
        js = ["celery_mailer/tabs.js", "celery_mailer/template.js"]

    def get_queryset(self, request: HttpRequest) -> "QuerySet[EmailTemplate]":
        """The default templates; a translation is edited with its own."""
        rows: QuerySet[EmailTemplate] = super().get_queryset(request).filter(default_template=None)
        return rows

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        changelist = super().get_changelist_instance(request)
        changelist.result_list = changelist.result_list.prefetch_related("translated_templates")
        return changelist

    @admin.display(description=gettext_lazy("languages"))
    def languages(self, template: EmailTemplate) -> str:
        rows = [template, *template.translated_templates.all()]
        return ", ".join(row.language or "-" for row in rows)

    # The pages beside the form.

    def get_urls(self) -> list[Any]:
        get: Views = {"versions": ("<int:pk>/versions/", self.versions_view)}
        post: Views = {
            "preview": ("preview/", self.preview_view),
            "test": ("<int:pk>/test/", self.test_view),
            "restore": ("<int:pk>/versions/<int:version>/restore/", self.restore_view),
        }
        return [*routes(self, get, post), *super().get_urls()]

    def render_change_form(self, request: HttpRequest, context: Any, *args: Any, **more: Any) -> HttpResponse:
        template: EmailTemplate | None = context.get("original")
        context["may_try"] = self._may_try(request, adding=template is None)
        if template is not None and context["may_try"]:
            reads = request.user.has_perm("celery_mailer.read_email")
            context["latest_emails"] = latest_emails(template) if reads else []
            context["rows"] = [template, *EmailTemplate.objects.filter(default_template=template)]
        return super().render_change_form(request, context, *args, **more)

    def _may_try(self, request: HttpRequest, *, adding: bool) -> bool:
        return self.has_change_permission(request) or (adding and self.has_add_permission(request))

    def preview_view(self, request: HttpRequest) -> HttpResponse:
        """What the unsaved words come to, as JSON; the HTML in it is for a sandboxed frame."""
        if not self._may_try(request, adding=True):
            raise PermissionDenied
        context_of = request.POST.get("email", "")
        if context_of and not request.user.has_perm("celery_mailer.read_email"):
            raise PermissionDenied
        return guarded(JsonResponse(attempt(request.POST.dict(), context_of)), "default-src 'none'")

    def test_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Send the template, as it is stored and with its samples, to whoever asks for it."""
        template = self._template(request, pk)
        rows = {str(row.pk): row for row in [template, *template.translated_templates.all()]}
        row = rows.get(request.POST.get("row", ""), template)
        user: Any = request.user
        address = getattr(user, user.get_email_field_name(), "")
        try:
            # Without an active language, the default template stands for itself.
            with translation.override(None):
                email = mail.send(
                    address, template=row, context=row.samples, language=row.language, priority="high"
                )
        except InvalidEmail as error:
            self.message_user(request, str(error), messages.ERROR)
        else:
            link = address_of(self, "email_change", email.pk)
            text = format_html('{} <a href="{}">{}</a>', _("A test is on its way:"), link, address)
            self.message_user(request, text, messages.SUCCESS)
        return to(self, "emailtemplate_change", pk)

    def versions_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """The versions, and how two of them differ."""
        template = self._template(request, pk, change=False)
        versions = versions_of(template)
        by_id = {str(version.pk): version for version in versions}
        asked = [by_id[key] for key in (request.GET.get("older"), request.GET.get("newer")) if key in by_id]
        pair = asked if len(asked) == 2 else latest_change(versions)
        return page(
            self,
            request,
            "emailtemplate/versions.html",
            template,
            _("Versions"),
            template,
            may_restore=self.has_change_permission(request),
            versions=versions,
            pair=pair,
            differences=comparison(*pair) if pair else None,
        )

    def restore_view(self, request: HttpRequest, pk: int, version: int) -> HttpResponse:
        template = self._template(request, pk)
        family = [template.pk, *template.translated_templates.values_list("pk", flat=True)]
        row = get_object_or_404(TemplateVersion, pk=version, template__in=family)
        try:
            restore(row)
        except ValidationError as error:
            self.message_user(request, " ".join(error.messages), messages.ERROR)
        else:
            self.log_change(request, template, f"{_('Restored')}: {row}")
            self.message_user(request, _("Restored."), messages.SUCCESS)
        return to(self, "emailtemplate_versions", pk)

    def _template(self, request: HttpRequest, pk: int, *, change: bool = True) -> EmailTemplate:
        if change and not self.has_change_permission(request):
            raise PermissionDenied
        template: EmailTemplate = visible(self, request, self.get_queryset(request), pk)
        return template


admin.site.register(EmailTemplate, EmailTemplateAdmin)
