"""Settings of the test project, in this process and, steered by the environment, in worker processes."""

import json
import os
from urllib.parse import unquote, urlsplit

import django

from tests import mysql

mysql.install()

SITE = json.loads(os.environ.get("TEST_SITE", "{}"))


def database(url: str) -> dict:
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        name = parts.path[1:] or ":memory:"
        wal = (
            {"init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"}
            if name != ":memory:"
            else {}
        )
        options = {"transaction_mode": "IMMEDIATE", "timeout": 20, **wal}
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": name, "OPTIONS": options}
    engine = {"postgres": "postgresql", "mysql": "mysql"}[parts.scheme]
    return {
        "ENGINE": f"django.db.backends.{engine}",
        "NAME": parts.path[1:],
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": parts.hostname or "",
        "PORT": str(parts.port or ""),
    }


SECRET_KEY = "tests"
USE_TZ = True
ALLOWED_HOSTS = ["*"]
DATABASES = {"default": database(SITE.get("database", "sqlite:///"))}
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django_celery_beat",
    "celery_mailer",
    "tests.shop",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [os.path.join(os.path.dirname(__file__), "templates")],
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
ROOT_URLCONF = "tests.urls"
DEFAULT_FROM_EMAIL = "Shop <shop@example.com>"
_port = SITE.get("smtp_port", 25)
if django.VERSION >= (6, 1):
    _smtp = {
        "BACKEND": "django.core.mail.backends.smtp.EmailBackend",
        "OPTIONS": {"host": "127.0.0.1", "port": _port},
    }
    _queue = {"BACKEND": "celery_mailer.backends.EmailBackend", "OPTIONS": {"using": "smtp"}}
    MAILERS = {"default": _queue if SITE.get("queue_backend") else _smtp, "smtp": _smtp}
else:
    EMAIL_HOST = "127.0.0.1"
    EMAIL_PORT = _port
    if SITE.get("queue_backend"):
        EMAIL_BACKEND = "celery_mailer.backends.EmailBackend"

MEDIA_ROOT = SITE.get("media", "")

CELERY_BROKER_URL = SITE.get("broker", "memory://")
CELERY_BROKER_TRANSPORT_OPTIONS = SITE.get("transport_options", {"polling_interval": 0.01})
CELERY_TASK_DEFAULT_QUEUE = SITE.get("default_queue", "celery")
CELERY_BEAT_SCHEDULER = "django_celery_beat.schedulers:DatabaseScheduler"
CELERY_BEAT_MAX_LOOP_INTERVAL = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_DB_REUSE_MAX = 500
for _name, _value in SITE.get("celery", {}).items():
    globals()[f"CELERY_{_name}"] = _value
CELERY_MAILER = {"TRACKING": {"BASE_URL": "https://mail.example.com"}}
if SITE.get("mailer"):
    CELERY_MAILER |= eval(SITE["mailer"], {"timedelta": __import__("datetime").timedelta})
