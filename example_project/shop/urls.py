from django.contrib import admin
from django.urls import include, path

from shop.views import SignUpView

urlpatterns = [
    path("mail/", include("celery_mailer.urls")),  # unsubscribing
    path("admin/", admin.site.urls),
    path("accounts/sign_up/", SignUpView.as_view(), name="sign_up"),
    path("inbox/", include("celery_mailer.inbox.urls")),
    path("accounts/", include("django.contrib.auth.urls")),  # the password reset among them
]
