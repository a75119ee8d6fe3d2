"""A Django project's settings; what celery_mailer asks for is in the second half."""

import os
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

import django

BASE_DIR = Path(__file__).resolve().parent.parent


def database(url: str) -> dict:
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        # WAL lets the web process read while a worker writes; IMMEDIATE makes writers wait for each other
        # at the start of a transaction, for up to 20 seconds, where they would otherwise fail in the middle.
        pragmas = "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"
        options = {"transaction_mode": "IMMEDIATE", "timeout": 20, "init_command": pragmas}
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": parts.path[1:], "OPTIONS": options}
    return {
        "ENGINE": {
            "postgres": "django.db.backends.postgresql",
            "postgresql": "django.db.backends.postgresql",
            "mysql": "django.db.backends.mysql",
        }[parts.scheme],
        "NAME": parts.path[1:],
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": parts.hostname or "",
        "PORT": str(parts.port or ""),
    }


SECRET_KEY = os.environ.get("SECRET_KEY", "for the example only")
DEBUG = True
ALLOWED_HOSTS = ["localhost", "127.0.0.1"]
DATABASES = {"default": database(os.environ.get("DATABASE_URL", f"sqlite:///{BASE_DIR / 'shop.sqlite3'}"))}
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "django_celery_beat",
    "celery_mailer",
    "shop",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
ROOT_URLCONF = "shop.urls"
AUTH_USER_MODEL = "shop.Customer"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
STATIC_URL = "static/"
USE_TZ = True
TIME_ZONE = "UTC"

# The broker and the worker.
CELERY_BROKER_URL = os.environ.get("BROKER_URL", "redis://127.0.0.1:6379/0")
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_TRANSPORT_OPTIONS = {
    # Redis: without these, one that hangs would block a web request in send_email.delay() for minutes.
    "socket_connect_timeout": 2,
    "socket_timeout": 5,
    # RabbitMQ: without this, a message that it refuses or loses is lost in silence.
    "confirm_publish": True,
}
CELERY_WORKER_PREFETCH_MULTIPLIER = 1  # else a worker hoards newsletters, and a password reset waits for them
CELERY_DB_REUSE_MAX = 500  # else Celery opens a new database connection for every task
CELERY_BEAT_SCHEDULER = "django_celery_beat.schedulers:DatabaseScheduler"

# Mail: what Django itself sends is queued too. The worker sends by SMTP, if there is a server; otherwise the
# mail is kept, to be seen under /inbox/.
DEFAULT_FROM_EMAIL = "The Teapot Shop <shop@shop.example>"
SMTP_HOST = os.environ.get("SMTP_HOST", "localhost")
SMTP_PORT = int(os.environ.get("SMTP_PORT", "25"))
if django.VERSION >= (6, 1):
    MAILERS = {
        "default": {
            "BACKEND": "celery_mailer.backends.EmailBackend",
            "OPTIONS": {"using": "smtp", "priority": "high"},
        },
        "smtp": {
            "BACKEND": "django.core.mail.backends.smtp.EmailBackend",
            "OPTIONS": {"host": SMTP_HOST, "port": SMTP_PORT},
        },
    }
else:
    EMAIL_BACKEND = "celery_mailer.backends.EmailBackend"
    EMAIL_HOST = SMTP_HOST
    EMAIL_PORT = SMTP_PORT
CELERY_MAILER = {
    "MESSAGE_ID_FQDN": "shop.example",
    "TRACKING": {"BASE_URL": "https://shop.example"},  # the site that includes celery_mailer.urls
    "STREAMS": {"marketing": {"CONTENT_RETENTION": timedelta(days=7)}},
}
if "SMTP_HOST" not in os.environ:
    CELERY_MAILER["PROVIDERS"] = {"smtp": {"BACKEND": "celery_mailer.deliver.providers.capture.EmailBackend"}}
