"""The public pages: ``path("mail/", include("celery_mailer.urls"))``. BASE_URL says at which site."""

from django.urls import path

from celery_mailer.tokens import Purpose
from celery_mailer.tracking import unsubscribe, views

app_name = "celery_mailer"
urlpatterns = [
    path("o/<str:token>", views.open_pixel, name=Purpose.OPEN.value),
    path("c/<str:token>", views.follow_link, name=Purpose.CLICK.value),
    path("u/<str:token>", unsubscribe.unsubscribe, name=Purpose.UNSUBSCRIBE.value),
    path("p/<str:token>", unsubscribe.preferences, name=Purpose.PREFERENCES.value),
]
