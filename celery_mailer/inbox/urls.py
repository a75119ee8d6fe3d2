"""``path("inbox/", include("celery_mailer.inbox.urls"))``: needs no setting."""

from django.urls import path

from celery_mailer.inbox import views

app_name = "celery_mailer_inbox"

urlpatterns = [
    path("", views.index, name="index"),
    path("<uuid:pk>/", views.message, name="message"),
    path("<uuid:pk>/html/", views.html, name="html"),
    path("<uuid:pk>/source/", views.source, name="source"),
    path("<uuid:pk>/files/<int:number>/", views.file, name="file"),
]
