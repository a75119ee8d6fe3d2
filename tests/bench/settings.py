"""Django's settings in a contestant's processes; ``BENCH`` in the environment says whose and where."""

from pathlib import Path
from urllib.parse import urlsplit

from tests.bench.config import Config
from tests.bench.contestants import find

CONFIG = Config.from_environment()
CONTESTANT = find(CONFIG.contestant)
_database = urlsplit(CONFIG.database)

SECRET_KEY = "benchmark"
USE_TZ = True
DEBUG = False
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": _database.path[1:],
        "USER": _database.username,
        "HOST": _database.hostname,
        "PORT": _database.port,
        "CONN_MAX_AGE": None,
    }
}
INSTALLED_APPS = ["django.contrib.contenttypes", "tests.bench.queries", *CONTESTANT.apps]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [Path(__file__).parent / "templates"],
    }
]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DEFAULT_FROM_EMAIL = "shop@example.com"
EMAIL_HOST = "127.0.0.1"
EMAIL_PORT = CONFIG.smtp_port
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"stderr": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["stderr"], "level": "WARNING"},
}

CELERY_BROKER_URL = CONFIG.broker
CELERY_BROKER_TRANSPORT_OPTIONS = {"socket_timeout": 5, "socket_connect_timeout": 2}
CELERY_TASK_IGNORE_RESULT = True
CELERY_DB_REUSE_MAX = 500  # for everybody: without it, Celery opens a database connection for every task

globals().update(CONTESTANT.settings(CONFIG))
