from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("mail/", include("celery_mailer.urls")),
    path("inbox/", include("celery_mailer.inbox.urls")),
]
